"""Answers as lines of JSON: small ones whole, large arrays as files beside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MOST_VALUES = 1000
"""Numbers of one output that are written into a line."""


def kept(answer: dict[str, Any], folder: Path | None, name: str) -> dict[str, Any]:
    """Return an answer for a line: large arrays by type and shape, and where they were written."""
    import numpy as np

    from connectors.lite.lines import plain

    told: dict[str, Any] = {}
    for key, value in answer.items():
        if not isinstance(value, np.ndarray) or (value.size <= MOST_VALUES and key != "heat"):
            told[key] = plain(value)
            continue
        told[key] = {"type": str(value.dtype), "shape": list(value.shape)}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.{''.join(c if c.isalnum() else '-' for c in key)}.npy"
            np.save(path, value, allow_pickle=False)
            told[key]["file"] = str(path)
    return told


def plain(value: Any) -> Any:
    """Return an answer as JSON takes it; numbers that JSON has not become null."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
