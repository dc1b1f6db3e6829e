"""Ranges of activations for int8: measured once as histograms, then cut by several rules.

A wide range keeps outliers and coarsens the rest; where to cut is decided by what the cut does to
the model's answers (`kernels.compression.qdq`), not by the histogram alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from kernels.compression.export import ExportError
from kernels.compression.sessions import open_session

Outputs = Mapping[str, NDArray[np.generic]]
Inputs = Mapping[str, NDArray[np.generic]]
BINS = 2048
LEVELS = 256
FINEST = 1e-30
"""Narrower ranges are as good as one number."""


@dataclass(frozen=True, slots=True, eq=False)
class Activation:
    """What one tensor held over the calibration inputs.

    Attributes:
        low: Least value.
        high: Largest value.
        counts: int64 [BINS], histogram over [low, high].
        mean: float64 [channels], mean per entry of axis 1; empty where there is no such axis.
    """

    low: float
    high: float
    counts: NDArray[np.int64]
    mean: NDArray[np.float64]


def require_inputs(graph: onnx.GraphProto, inputs: Sequence[Inputs]) -> None:
    """Raise `ExportError` unless there are inputs, of the file's names and shapes, all finite."""
    if not inputs:
        raise ExportError("calibration inputs are missing; give 32 or more like those to come")
    constants = {t.name for t in graph.initializer}
    wanted = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in graph.input
        if value.name not in constants
    }
    for place, one in enumerate(inputs):
        if one.keys() != wanted.keys():
            raise ExportError(f"input {place} names {sorted(one)}, the file {sorted(wanted)}")
        for name, value in one.items():
            sizes = wanted[name]  # 0: any size
            fits = zip(value.shape, sizes, strict=False)
            if len(sizes) != value.ndim or any(size and size != own for own, size in fits):
                raise ExportError(
                    f"input {place}: {name} is {list(value.shape)}, the file wants "
                    f"{[size or 'any' for size in sizes]}"
                )
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ExportError(f"input {place}: {name} holds NaN or infinity; take it out")


def measure_activations(
    model: onnx.ModelProto, names: Sequence[str], inputs: Sequence[Inputs], *, threads: int
) -> dict[str, Activation]:
    """Run the model twice over the inputs and return what each named float tensor held.

    Args:
        model: float32 model with inferred shapes.
        names: Tensors inside of it.
        inputs: Calibration inputs, at least one.
        threads: Of ONNX Runtime.
    """
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    present = {o.name for o in opened.graph.output}
    opened.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in present)
    session = open_session(opened.SerializeToString(), threads=threads)

    def run() -> Iterable[list[NDArray[np.float32]]]:
        return (session.run(list(names), dict(one)) for one in inputs)

    ends: dict[str, tuple[float, float]] = {}
    sums: dict[str, NDArray[np.float64]] = {}
    for outputs in run():
        for name, values in zip(names, outputs, strict=True):
            low, high = ends.get(name, (np.inf, -np.inf))
            ends[name] = min(low, float(values.min())), max(high, float(values.max()))
            axes = (0, *range(2, values.ndim))
            mean = values.mean(axis=axes, dtype=np.float64) if values.ndim > 1 else np.zeros(0)
            sums[name] = sums.get(name, 0.0) + mean / len(inputs)
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for outputs in run():
        for name, values in zip(names, outputs, strict=True):
            low, high = ends[name]
            wide = (low, high if high > low else low + 1.0)
            counts[name] += np.histogram(values, BINS, wide)[0]
    return {name: Activation(*ends[name], counts[name], sums[name]) for name in names}


def cut(activation: Activation, rule: str) -> tuple[float, float]:
    """Return the range that a rule keeps; it always holds 0.

    Args:
        activation: What was measured.
        rule: ``min-max``; a percentage such as ``99.99``: that share of values on each side of 0
            is kept; ``entropy``: the cut whose int8 histogram tells least apart from the measured
            one (Kullback-Leibler divergence, Migacz 2017); ``mse``: the cut of the least squared
            error.

    Raises:
        ValueError: For any other rule.
    """
    low, high = min(activation.low, 0.0), max(activation.high, 0.0)
    if rule == "min-max" or high - low < FINEST or activation.high - activation.low < FINEST:
        return low, high
    edges = np.linspace(activation.low, activation.high, BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    counts = activation.counts.astype(np.float64)
    if rule == "entropy":
        return _best(low, high, [_divergence(counts, centres, low * s, high * s) for s in SHARES])
    if rule == "mse":
        return _best(low, high, [_squares(counts, centres, low * s, high * s) for s in SHARES])
    try:
        share = float(rule) / 100
    except ValueError:
        share = 0.0
    if not 0.5 < share <= 1:
        raise ValueError(f"{rule!r} is no range rule; give min-max, entropy, mse, or 99.99")
    total = np.cumsum(counts) / counts.sum()
    top = edges[1:][int(np.searchsorted(total, share))]
    bottom = edges[:-1][int(np.searchsorted(total, 1 - share, side="right"))]
    return min(float(bottom), 0.0), max(float(top), 0.0)


SHARES = np.linspace(0.2, 1.0, 41)


def _best(low: float, high: float, losses: Sequence[float]) -> tuple[float, float]:
    share = float(SHARES[int(np.argmin(losses))])
    return low * share, high * share


def _places(
    centres: NDArray[np.float64], low: float, high: float
) -> tuple[NDArray[np.float64], float]:
    step = (high - low) / (LEVELS - 1)
    return np.clip(np.rint((centres - low) / step), 0, LEVELS - 1), step


def _squares(
    counts: NDArray[np.float64], centres: NDArray[np.float64], low: float, high: float
) -> float:
    places, step = _places(centres, low, high)
    return float((counts * (places * step + low - centres) ** 2).sum())


def _divergence(
    counts: NDArray[np.float64], centres: NDArray[np.float64], low: float, high: float
) -> float:
    """Divergence of the measured histogram from what is left of it after int8.

    What falls on one level is spread evenly over the bins of that level which held anything;
    clipped bins are left with nothing.
    """
    places = _places(centres, low, high)[0].astype(np.int64)
    held = (counts > 0).astype(np.float64)
    inside = (centres >= low) & (centres <= high)
    mass = np.bincount(places, counts * inside, LEVELS)
    bins = np.maximum(np.bincount(places, held * inside, LEVELS), 1.0)
    left = (mass / bins)[places] * held * inside
    p, q = counts / counts.sum(), left / max(left.sum(), 1.0)
    tiny = 1e-9
    return float((p * np.log((p + tiny) / (q + tiny))).sum())
