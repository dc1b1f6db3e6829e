"""Whether the rows of a model know nothing of each other, found out by asking it.

That the first dimension of a file is free does not make it a batch: it may be a sequence, and a
network quantised at run time scales its activations by the largest of the whole batch. Then an
answer would depend on who else asks. So some rows are answered together and each alone; only where
the answers agree, requests are put together.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from connectors.model_server.datatypes import BYTES, DTYPES
from connectors.model_server.onnx_model import OnnxModel, RunError, TensorSpec
from connectors.model_server.tensors import Array

logger = logging.getLogger(__name__)

FREE_SIDES = (1, 8, 32, 224)
"""Lengths tried for free dimensions other than the first."""

ROWS = 3
RELATIVE, OF_LARGEST = 1e-3, 1e-4
"""Kernels for one row and for many add in another order; more than this is no rounding."""


def example(spec: TensorSpec, rows: int, free: int) -> Array:
    """Return made-up values for an input; floating rows differ in size, whole numbers are small.

    Args:
        spec: The input.
        rows: Length of a free first dimension.
        free: Length of the other free dimensions.
    """
    shape = [free if side is None else side for side in spec.shape]
    if spec.free_rows:
        shape[0] = rows
    if spec.datatype == BYTES:
        made = np.empty(shape, object)
        made[...] = "a"
        return made
    rng, dtype = np.random.default_rng(0), DTYPES[spec.datatype]
    if dtype.kind != "f":
        # They may be indices, but those of a byte are more likely the grays of an image.
        return rng.integers(0, 256 if spec.datatype == "UINT8" else 2, size=shape).astype(dtype)
    values = rng.normal(size=shape)
    if spec.free_rows:
        values *= (4.0 ** np.arange(rows)).reshape(rows, *(1 for _ in shape[1:]))
    return values.astype(dtype)


def examples(model: OnnxModel, rows: int) -> dict[str, Array] | None:
    """Return made-up inputs that a model runs on, None where none is found."""
    for free in FREE_SIDES:
        feeds = {name: example(spec, rows, free) for name, spec in model.inputs.items()}
        try:
            model.run(feeds)
        except RunError:
            continue
        return feeds
    return None


def rows_are_independent(model: OnnxModel, feeds: Mapping[str, Array]) -> bool:
    """Tell whether requests to a model may be put together.

    Args:
        model: With a free first dimension everywhere.
        feeds: Made-up inputs of `ROWS` rows.
    """
    together = model.run(feeds)
    for row in range(ROWS):
        try:
            alone = model.run({key: value[row : row + 1] for key, value in feeds.items()})
        except RunError:
            return False
        if not all(_agrees(value, together[key], row) for key, value in alone.items()):
            return False
    return True


def _agrees(alone: Array, together: Array, row: int) -> bool:
    if together.shape[:1] != (ROWS,) or alone.shape[:1] != (1,):
        return False
    one, other = alone[0], together[row]
    if one.shape != other.shape:
        return False
    if one.dtype.kind == "f":
        slack = OF_LARGEST * float(np.abs(other).max(initial=0.0))
        return np.allclose(one, other, rtol=RELATIVE, atol=slack, equal_nan=True)
    return bool(np.array_equal(one, other))
