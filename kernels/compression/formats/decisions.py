"""How far the answers of two engines are apart: decisions first, then values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Apart:
    """How far two lists of answers are apart.

    Attributes:
        decisions: That were compared.
        flips: Of them, that differ.
        max_rel: Largest difference of two values of one float output, in units of the largest
            magnitude that the first list has in that output; infinity where one is no number.
        by_output: The same for each float output.
    """

    decisions: int
    flips: int
    max_rel: float
    by_output: dict[str, float]

    @property
    def share(self) -> float:
        """Share of the decisions that differ."""
        return self.flips / max(self.decisions, 1)


def decide(outputs: Outputs, limit: float = 0.5) -> NDArray[np.int64]:
    """Return the decisions in one answer, int64 [n].

    Whole numbers and truth values are decisions already. Where there are none, the first float
    output decides: by its largest entry along the last axis, or, where that axis has one entry or
    there is none, by ``limit``.

    Args:
        outputs: Of one run.
        limit: A single score at or above it is a yes.

    Raises:
        ValueError: When there is no output that decides.
    """
    whole = [one for one in outputs.values() if one.dtype.kind in "iub"]
    if whole:
        return np.concatenate([one.reshape(-1).astype(np.int64) for one in whole])
    floats = [one for one in outputs.values() if one.dtype.kind == "f"]
    if not floats:
        raise ValueError("no output decides: none has numbers")
    first = floats[0]
    if first.ndim and first.shape[-1] > 1:
        return np.asarray(first.argmax(axis=-1), np.int64).reshape(-1)
    return np.asarray(first >= limit, np.int64).reshape(-1)


def compare(first: Sequence[Outputs], second: Sequence[Outputs], limit: float = 0.5) -> Apart:
    """Return how far the second list of answers is from the first.

    Raises:
        ValueError: When they have other outputs or shapes, or there is none.
    """
    if not first or len(first) != len(second):
        raise ValueError("give as many answers of each kind, and one at least")
    decisions = flips = 0
    gaps: dict[str, float] = {}
    largest: dict[str, float] = {}
    for one, other in zip(first, second, strict=True):
        _require_alike(one, other)
        decided, again = decide(one, limit), decide(other, limit)
        decisions += decided.size
        flips += int((decided != again).sum())
        for name in [name for name in one if one[name].dtype.kind == "f"]:
            a, b = one[name].astype(np.float64), other[name].astype(np.float64)
            gaps[name] = max(gaps.get(name, 0.0), _gap(a, b))
            magnitude = np.abs(a[np.isfinite(a)]).max(initial=0.0)
            largest[name] = max(largest.get(name, 0.0), float(magnitude))
    by_output = {
        name: gap / max(largest[name], 1e-30) if gap else 0.0 for name, gap in gaps.items()
    }
    return Apart(decisions, flips, max(by_output.values(), default=0.0), by_output)


def _require_alike(one: Outputs, other: Outputs) -> None:
    if list(one) != list(other):
        raise ValueError(f"outputs {list(other)} in the place of {list(one)}")
    for name, value in one.items():
        found = other[name]
        if found.shape != value.shape:
            raise ValueError(f"output {name!r} is {found.shape}, {value.shape} expected")
        if found.dtype.kind != value.dtype.kind and value.dtype.kind == "f":
            raise ValueError(f"output {name!r} is {found.dtype}, {value.dtype} expected")


def _gap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        gap = np.abs(a - b)[~same]
    return math.inf if not np.isfinite(gap).all() else float(gap.max())
