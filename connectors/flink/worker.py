"""What a PyFlink worker does better with than by default: numba, memory, Arrow columns.

All of it is for the process that scores; ``open`` of the scoring function calls it.
"""

from __future__ import annotations

import builtins
import ctypes
import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of settings in glibc's ``malloc.h``."""

_KEPT_BYTES = 256 * 2**20
_HEAP_BLOCK_BYTES = 32 * 2**20
"""The largest threshold that every glibc takes."""


def import_numba() -> None:
    """Import numba with the true ``print``: a worker of PyFlink replaces it, numba looks it up."""
    replaced = builtins.print
    keeper = getattr(replaced, "__self__", None)
    builtins.print = getattr(keeper, "_print", replaced)
    try:
        importlib.import_module("numba")
    finally:
        builtins.print = replaced


def keep_freed_memory() -> None:
    """Keep what is freed for the next batch instead of giving it back to the kernel.

    A batch is megabytes: by default each of its arrays is mapped anew, and the kernel fills it
    with zeros page by page. Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_THRESHOLD, _HEAP_BLOCK_BYTES)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def keep_arrow_columns() -> bool:
    """Hand batches to the scoring function as the Arrow columns they came as, without a copy.

    PyFlink reads a batch through a file object that copies it three times, then makes an object
    of every value and looks it up among those before. PyFlink 2.3 has no setting for that (later
    versions are to have functions on Arrow, FLINK-40472), so two of its functions are replaced.

    Returns:
        Whether this PyFlink has them; if not, columns come as pandas series.
    """
    try:
        from pyflink.fn_execution import coder_impl_fast
        from pyflink.fn_execution.ResettableIO import ResettableIO

        is_known = hasattr(coder_impl_fast, "arrow_to_pandas") and hasattr(ResettableIO, "readinto")
    except ImportError:
        is_known = False
    if not is_known:
        logger.warning("this PyFlink reads Arrow batches otherwise; columns come as pandas series")
        return False
    ResettableIO.read_buffer = _read_buffer
    coder_impl_fast.arrow_to_pandas = _columns
    return True


def _read_buffer(self: Any, size: int) -> memoryview:
    """Method of a ``ResettableIO``: its next bytes. Arrow calls it instead of ``read``."""
    at = self._input_offset
    chunk = memoryview(self._input_bytes)[at : at + size]
    self._input_offset = at + len(chunk)
    return chunk


def _columns(_timezone: Any, _types: Any, batches: list[pa.RecordBatch]) -> list[pa.Array]:
    (batch,) = batches
    columns: list[pa.Array] = batch.columns
    return columns
