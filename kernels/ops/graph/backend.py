"""Which implementation runs: the one asked for, or the best one that the device has."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec

from torch import Tensor

logger = logging.getLogger(__name__)

BACKENDS = ("reference", "cpu", "triton")


def available(x: Tensor) -> tuple[str, ...]:
    """Return the backends that can compute on the device of ``x``, best first."""
    own = ("cpu", "reference") if x.device.type == "cpu" else ("reference",)
    if not find_spec("triton"):
        return own
    if x.device.type != "cpu":
        return ("triton", *own)
    # On CPU tensors Triton has its interpreter, to be switched on before it is imported.
    return (*own, "triton") if os.environ.get("TRITON_INTERPRET") == "1" else own


def choose(operator: str, backend: str | None, x: Tensor, offered: tuple[str, ...]) -> str:
    """Return the backend to use and log it.

    Args:
        operator: Name of the operator, for the log and for messages.
        backend: What the caller asks for; None for the best.
        x: Tensor whose device counts.
        offered: Backends that the operator has.

    Raises:
        ValueError: For a backend that is unknown, or missing here.
    """
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"{operator}: unknown backend {backend!r}; choose from {list(BACKENDS)}")
    here = [name for name in available(x) if name in offered]
    if backend is not None and backend not in here:
        raise ValueError(f"{operator}: backend {backend!r} cannot run on {x.device}; it has {here}")
    chosen = backend or here[0]
    logger.debug("%s runs on %s (%s, %s)", operator, chosen, x.device, x.dtype)
    return chosen
