"""Plain data that JSON can hold: it has no words for infinity and no number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any


def finite(value: Any, instead: Callable[[float], str] | None = None) -> Any:
    """Return the data with other values in the place of floats that are not finite.

    Args:
        value: Plain data; mappings and lists of them are walked through.
        instead: Gives what stands there, as ``str``, which `float` reads back; None: None does.

    >>> finite({"loss": float("inf"), "seen": (1.5, 2)}, str)
    {'loss': 'inf', 'seen': [1.5, 2]}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return instead(value) if instead else None
    if isinstance(value, Mapping):
        return {str(name): finite(each, instead) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each, instead) for each in value]
    return value
