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
EDGE = 50


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
        slow = (
            22.0 + 4.0 * np.sin(2 * np.pi * at / 1_500) + 0.15 * np.cumsum(rng.normal(size=n)) / 4
        )
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


class _Faults:
    """A series to which one fault after the other is done, each where no other is."""

    def __init__(self, truth: Floats, noise: float, rng: np.random.Generator) -> None:
        self.n, self.noise, self.rng = len(truth), noise, rng
        self.value = truth.copy()
        self.times = START + INTERVAL * np.arange(self.n)
        self.lost = np.zeros(self.n, bool)
        self.wrong = {fault: np.zeros(self.n, bool) for fault in FAULTS}
        self.free = np.ones(self.n, bool)
        self.free[:EDGE] = self.free[-EDGE:] = False

    def place(self, shortest: int, longest: int, margin: int = 12) -> slice:
        """Take a place of some length, and a margin around it."""
        for _ in range(10_000):
            length = int(self.rng.integers(shortest, longest + 1))
            start = int(self.rng.integers(EDGE, self.n - length - EDGE))
            around = slice(start - margin, start + length + margin)
            if self.free[around].all():
                self.free[around] = False
                return slice(start, start + length)
        raise ValueError(f"{self.n} readings hold no more faults; make the series longer")

    def either(self) -> int:
        """Return 1 or -1."""
        return int(self.rng.choice([-1, 1]))

    def drift(self) -> None:
        part = self.place(self.n // 5, self.n // 5)
        end = self.either() * self.rng.uniform(6, 12) * self.noise
        offset = np.linspace(0.0, end, self.n // 5)
        self.value[part] += offset
        self.wrong["drift"][part] = np.abs(offset) > 0.25 * self.noise

    def unit(self) -> None:
        part = self.place(self.n // 50, self.n // 20)
        factor, shift = UNITS[int(self.rng.integers(len(UNITS)))]
        self.value[part] = self.value[part] * factor + shift
        self.wrong["unit"][part] = True

    def stuck(self) -> None:
        for _ in range(2):
            part = self.place(40, 120)
            self.value[part] = self.value[part.start]
            self.wrong["stuck"][part.start + 1 : part.stop] = True

    def gap(self) -> None:
        for _ in range(2):
            part = self.place(20, 100)
            self.lost[part] = True
            self.wrong["gap"][part.stop] = True

    def clock(self) -> None:
        part = self.place(20, 100)
        self.times[part] += self.either() * float(self.rng.integers(30, 400)) * INTERVAL
        self.wrong["clock"][part] = True
        for _ in range(3):
            part = self.place(1, 1)
            self.times[part] = self.times[part.start - 1]
            self.wrong["clock"][part] = True

    def spike(self) -> None:
        for _ in range(self.n // 160):
            part = self.place(1, 3, 6)
            height = self.either() * self.rng.uniform(8.0, 30.0) * self.noise
            self.value[part] += height * self.rng.uniform(0.8, 1.2, part.stop - part.start)
            self.wrong["spike"][part] = True


def made_up(kind: str, seed: int, n: int = 4_000, faults: Sequence[str] = FAULTS) -> MadeUp:
    """Return a series with faults.

    Args:
        kind: One of ``KINDS``.
        seed: Of process and faults.
        n: Readings before any are lost, 2,500 at least for all faults.
        faults: Which faults there are.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    decimals = 1 if kind == "coarse" else 2
    truth = np.round(process(kind, n, rng), decimals)
    moves = np.abs(np.diff(truth))
    noise = float(np.median(moves[moves > 0]))
    peer = 10.0 + 0.8 * truth + 0.4 * noise * rng.normal(size=n)
    made = _Faults(truth, noise, rng)
    for fault in reversed(FAULTS):  # the longest find a place first
        if fault in faults:
            getattr(made, fault)()
    value = made.value
    if kind == "coarse":  # a coarse sensor's faults are coarse, too, but for its unit
        value = np.where(made.wrong["unit"], value, np.round(value / COARSE) * COARSE)
    kept = ~made.lost
    stamps = pl.Series((made.times[kept] * 1e6).astype(np.int64)).cast(pl.Datetime("us"))
    frame = pl.DataFrame(
        {
            "time": stamps.dt.to_string("%Y-%m-%d %H:%M:%S"),
            "value": [f"{v:.{decimals}f}" for v in value[kept]],
            "peer": [f"{v:.{decimals + 1}f}" for v in peer[kept]],
        }
    )
    return MadeUp(frame, truth[kept], {k: w[kept] for k, w in made.wrong.items()}, noise)
