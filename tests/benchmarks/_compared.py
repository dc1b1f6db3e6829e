"""Contenders timed in turns, and differences over seeds with their interval."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

WARM = 3


def milliseconds(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, NDArray[np.float64]]:
    """Return milliseconds [rounds] of each contender; they take turns, so that all slow alike.

    Args:
        contenders: What is run, by name.
        rounds: Runs of each that count; three before them do not.
        clock: CPU time of this process, which other programs hardly change, or wall time.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(WARM + rounds):
        for name, run in contenders.items():
            began = clock()
            run()
            taken[name].append(1e3 * (clock() - began))
    return {name: np.array(each[WARM:]) for name, each in taken.items()}


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, lower and upper end of its 95 % interval over seeds (Student's t)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return mean, float(mean - half), float(mean + half)


def means_of(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, float]:
    """Return the means of some keys over rows, one per seed."""
    return {key: float(np.mean([row[key] for row in rows])) for key in keys}


def differences(
    rows: Sequence[Mapping[str, Any]], pairs: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    """Return mean and interval of the first key less the second, paired by seed.

    Args:
        rows: One per seed.
        pairs: Name of the difference -> the two keys; ``NAME_interval`` holds the ends.
    """
    found: dict[str, Any] = {}
    for name, (first, second) in pairs.items():
        mean, low, high = mean_interval([row[first] - row[second] for row in rows])
        found |= {name: mean, f"{name}_interval": (low, high)}
    return found
