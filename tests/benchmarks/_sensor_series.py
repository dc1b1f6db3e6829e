"""Made-up sensor series of several kinds, their faults, and the truth about every reading.

Processes: a random walk, a daily wave under noise that keeps together, set points with and without
noise, a slow temperature on a coarse sensor, regimes of other level and noise, and true short
pulses that look like faults. Faults are laid where no other lies, so that each row has one truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

KINDS = ("walk", "wave", "steps", "holds", "coarse", "regimes", "pulses")
FAULTS = ("spike", "stuck", "gap", "clock", "unit", "drift")
INTERVAL = 10.0
START = 1_767_225_600.0  # 2026-01-01
UNITS = ((1.8, 32.0), (25.4, 0.0), (1_000.0, 0.0), (0.1, 0.0), (1.0 / 0.3048, 0.0))
COARSE = 0.5


@dataclass(slots=True)
class MadeUp:
    """One series.

    Attributes:
        frame: Columns time, value and peer, texts.
        truth: True readings of the rows that are left [n].
        wrong: Rows at fault, by kind of fault [n] each.
        noise: Usual size of a step of the process, the unit of errors.
    """

    frame: pl.DataFrame
    truth: Floats
    wrong: dict[str, Bools] = field(default_factory=dict)
    noise: float = 1.0

    @property
    def clean(self) -> Bools:
        """Rows whose reading is right [n]."""
        return ~np.logical_or.reduce([self.wrong[k] for k in ("spike", "stuck", "unit", "drift")])


def process(kind: str, n: int, rng: np.random.Generator) -> Floats:
    """Return the true readings of a process [n]."""
    at = np.arange(n)
    if kind == "walk":
        return 50.0 + 0.3 * np.cumsum(rng.normal(size=n))
    if kind == "wave":
        noise = np.zeros(n)
        for i, e in enumerate(rng.normal(size=n)):
            noise[i] = 0.7 * noise[i - 1] + e if i else e
        return 60.0 + 12.0 * np.sin(2 * np.pi * at / rng.integers(300, 900)) + 0.4 * noise
    if kind in {"steps", "holds"}:
        level = np.repeat(rng.choice([20.0, 35.0, 50.0, 65.0, 80.0], n), rng.integers(40, 200, n))
        return level[:n] + (0.5 * rng.normal(size=n) if kind == "steps" else 0.0)
    if kind == "coarse":
        slow = 22.0 + 4.0 * np.sin(2 * np.pi * at / 1_500) + 0.15 * np.cumsum(rng.normal(size=n)) / 4
        return np.round((slow + 0.25 * rng.normal(size=n)) / COARSE) * COARSE
    if kind == "regimes":
        edges = np.sort(rng.choice(np.arange(200, n - 200), 5, replace=False))
        regime = np.searchsorted(edges, at, side="right")
        level, spread = rng.uniform(30, 120, 6), rng.uniform(0.2, 2.5, 6)
        return level[regime] + spread[regime] * rng.normal(size=n)
    pulses = np.zeros(n)
    for start in rng.choice(n - 20, n // 80, replace=False).tolist():
        pulses[start : start + int(rng.integers(1, 12))] = rng.uniform(8.0, 15.0)
    return 40.0 + pulses + 0.5 * rng.normal(size=n)


def made_up(kind: str, seed: int, n: int = 4_000, faults: Sequence[str] = FAULTS) -> MadeUp:
    """Return a series with faults.

    Args:
        kind: One of ``KINDS``.
        seed: Of process and faults.
        n: Readings before any are lost.
        faults: Which faults there are.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    x = process(kind, n, rng)
    decimals = 1 if kind == "coarse" else 2
    truth = np.round(x, decimals)
    moves = np.abs(np.diff(truth))
    noise = float(np.median(moves[moves > 0]))
    peer = 10.0 + 0.8 * truth + 0.8 * 0.5 * noise * rng.normal(size=n)
    value, times = truth.copy(), START + INTERVAL * np.arange(n)
    wrong = {fault: np.zeros(n, bool) for fault in FAULTS}
    free = np.ones(n, bool)
    free[:50] = free[-50:] = False

    def place(length: int, margin: int = 12) -> slice:
        while True:
            start = int(rng.integers(50, n - length - 50))
            if free[start - margin : start + length + margin].all():
                free[start - margin : start + length + margin] = False
                return slice(start, start + length)

    if "drift" in faults:
        part = place(n // 5)
        ramp = rng.choice([-1, 1]) * rng.uniform(6, 12) * noise
        offset = np.linspace(0.0, ramp, n // 5)
        value[part] += offset
        wrong["drift"][part] = np.abs(offset) > 0.25 * noise
    if "unit" in faults:
        part = place(int(rng.integers(80, 200)))
        factor, shift = UNITS[int(rng.integers(len(UNITS)))]
        value[part] = value[part] * factor + shift
        wrong["unit"][part] = True
    if "stuck" in faults:
        for _ in range(2):
            part = place(int(rng.integers(40, 120)))
            value[part] = value[part.start]
            wrong["stuck"][part.start + 1 : part.stop] = True
    lost = np.zeros(n, bool)
    if "gap" in faults:
        for _ in range(2):
            part = place(int(rng.integers(20, 100)))
            lost[part] = True
            wrong["gap"][part.stop] = True
    if "clock" in faults:
        part = place(int(rng.integers(20, 100)))
        times[part] += rng.choice([-1, 1]) * float(rng.integers(30, 400)) * INTERVAL
        wrong["clock"][part] = True
        for _ in range(3):
            part = place(1)
            times[part] = times[part.start - 1]
            wrong["clock"][part] = True
    if "spike" in faults:
        for _ in range(n // 160):
            part = place(int(rng.integers(1, 4)), 6)
            height = rng.choice([-1, 1]) * rng.uniform(8.0, 30.0) * noise
            value[part] += height * rng.uniform(0.8, 1.2, part.stop - part.start)
            wrong["spike"][part] = True
    if kind == "coarse":  # a coarse sensor's faults are coarse, too, but for its unit
        value = np.where(wrong["unit"], value, np.round(value / COARSE) * COARSE)
    kept = ~lost
    stamps = (times[kept] * 1e6).astype(np.int64)
    frame = pl.DataFrame(
        {
            "time": pl.Series(stamps, dtype=pl.Int64).cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d %H:%M:%S"),
            "value": [f"{v:.{decimals}f}" for v in value[kept]],
            "peer": [f"{v:.{decimals + 1}f}" for v in peer[kept]],
        }
    )
    return MadeUp(frame, truth[kept], {k: w[kept] for k, w in wrong.items()}, noise)
