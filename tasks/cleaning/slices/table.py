"""The bias report: a figure in every slice, against the rest, with what can be said of it.

Verdicts: ``worse`` or ``better`` (``apart``, where neither high nor low is bad) where the
difference to the rest is shown to be larger than the floor (Benjamini and Hochberg over all slices
and figures of the table), ``alike`` where its interval lies within the floor, and ``undecided``
where neither is shown, as in most small slices: that is not the same as fair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from tasks.cleaning.slices.groups import Condition, Slices
from tasks.cleaning.slices.intervals import Bools, Comparison, Floats, Sums, adjusted

SLICES: Mapping[str, Any] = {
    "figure": pl.String,
    "slice": pl.String,  # for people
    "rows": pl.Int64,  # that have a score
    "value": pl.Float64,  # mean score, a rate where scores are 0 or 1
    "low": pl.Float64,  # limits of the value alone, 1 - alpha
    "high": pl.Float64,
    "rest": pl.Float64,  # mean score of all rows that are not in the slice
    "difference": pl.Float64,  # value less rest
    "difference_low": pl.Float64,  # limits of it, adjusted to all slices looked at
    "difference_high": pl.Float64,
    "floor": pl.Float64,  # smaller differences do not matter
    "q": pl.Float64,  # adjusted p of a difference larger than the floor; null: too few rows
    "verdict": pl.String,  # worse, better, apart, alike, undecided
}
"""Polars schema of a slice table."""
RATE_FLOOR = 0.02
MEAN_FLOOR = 0.1
"""Default floors: two points of a rate; a tenth of a standard deviation of a mean."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A score for every row.

    Attributes:
        scores: float64 [rows]; NaN where a row has none. All 0 or 1: a rate.
        worse: Whether high or low scores are bad; where neither is, slices differ or not.
        floor: Difference that begins to matter, in units of the score; by default .02 for rates
            and a tenth of the standard deviation otherwise.
    """

    scores: Floats
    worse: Literal["high", "low", "neither"] = "high"
    floor: float | None = None

    def __post_init__(self) -> None:
        """Reject a floor below 0 and scores that are not finite."""
        if self.floor is not None and not self.floor >= 0:
            raise ValueError(f"floor is {self.floor}; give 0 or more, in units of the score")
        if np.isinf(self.scores).any():
            raise ValueError("scores hold infinities; leave those rows out as NaN")

    @property
    def rate(self) -> bool:
        """Whether every score is 0 or 1."""
        known = self.scores[~np.isnan(self.scores)]
        return bool(((known == 0) | (known == 1)).all())

    @property
    def share(self) -> bool:
        """Whether every score lies in 0..1."""
        known = self.scores[~np.isnan(self.scores)]
        return bool(((known >= 0) & (known <= 1)).all())

    @property
    def varies(self) -> bool:
        """Whether scores differ at all."""
        known = self.scores[~np.isnan(self.scores)]
        return bool(len(known) and known.min() < known.max())

    @property
    def least(self) -> float:
        """The floor."""
        if self.floor is not None:
            return self.floor
        known = self.scores[~np.isnan(self.scores)]
        return RATE_FLOOR if self.rate else MEAN_FLOOR * float(known.std() if len(known) else 0.0)


@dataclass(frozen=True, slots=True)
class SliceConfig:
    """How sure a report is.

    Attributes:
        alpha: Share of false ones among the slices said to be worse or better.
        least_rows: Slices of fewer rows, and those that leave fewer, are undecided untested.
    """

    alpha: float = 0.05
    least_rows: int = 20

    def __post_init__(self) -> None:
        """Reject what could not be computed."""
        if not 0.0 < self.alpha < 0.5:
            raise ValueError(f"alpha must lie in 0..0.5, got {self.alpha}; 0.05 is usual")
        if self.least_rows < 2:
            raise ValueError(f"least_rows must be at least 2, got {self.least_rows}")


@dataclass(frozen=True, slots=True)
class SliceTable:
    """A report and what it rests on.

    Attributes:
        frame: Frame of ``SLICES``, by figure, then as the slices were made.
        members: Conditions of the slice in each row.
        tests: Slices times figures that had enough rows.
        level: Share of each difference's limits that may be off, after the adjustment.
        alpha: As configured.
    """

    frame: pl.DataFrame
    members: Sequence[tuple[Condition, ...]]
    tests: int
    level: float
    alpha: float


def slice_table(
    figures: Mapping[str, Figure], slices: Slices, config: SliceConfig | None = None
) -> SliceTable:
    """Measure figures in every slice.

    Args:
        figures: Scores by name; all are one family of tests.
        slices: Of the same rows.
        config: How sure to be.

    Raises:
        ValueError: When scores and slices have different numbers of rows.
    """
    config = config or SliceConfig()
    members = slices.members()
    compared = {name: against_rest(one, slices) for name, one in figures.items()}
    q, level = _adjusted_tests(figures, compared, config)
    parts, kept = [], []
    for name, one in figures.items():
        comparison = compared[name]
        limits = comparison.limits(level / 2)
        verdict = _verdicts(one, comparison.difference, limits, q[name], config.alpha)
        part = frame_of(name, one, members, comparison, limits, q[name], config)
        some = comparison.here.n > 0
        parts.append(part.with_columns(pl.Series("verdict", verdict)).filter(pl.Series(some)))
        kept += [member for member, there in zip(members, some, strict=True) if there]
    frame = pl.concat([pl.DataFrame(schema=dict(SLICES)), *parts])
    tests = sum(int((~np.isnan(each)).sum()) for each in q.values())
    return SliceTable(frame, kept, tests, level, config.alpha)


def _adjusted_tests(
    figures: Mapping[str, Figure], compared: Mapping[str, Comparison], config: SliceConfig
) -> tuple[dict[str, Floats], float]:
    """Return adjusted p-values [slices] by figure, NaN where not tested, and the level."""
    p = {}
    for name, one in figures.items():
        comparison = compared[name]
        both = np.minimum(comparison.above(one.least), comparison.below(one.least))
        p[name] = np.where(enough(comparison, config), np.minimum(2 * both, 1.0), np.nan)
    together = np.concatenate([*p.values(), np.zeros(0)])
    tested = ~np.isnan(together)
    together[tested], level = adjusted(together[tested], config.alpha)
    sizes = [len(each) for each in p.values()]
    return dict(zip(p, np.split(together, np.cumsum(sizes)[:-1]), strict=False)), level


def against_rest(figure: Figure, slices: Slices) -> Comparison:
    """Compare every slice with all rows that are not in it.

    Raises:
        ValueError: When scores and slices have different numbers of rows.
    """
    if figure.scores.shape != (slices.rows,):
        raise ValueError(
            f"scores have shape {figure.scores.shape}, the slices {slices.rows:,} rows; give one "
            "score a row"
        )
    here = slices.sums(figure.scores)
    known = figure.scores[~np.isnan(figure.scores)]
    facts = (float(len(known)), float(known.sum()), float((known * known).sum()))
    everything = Sums(*(np.full(len(here.n), fact) for fact in facts))
    return Comparison(here, everything - here, figure.rate)


def enough(comparison: Comparison, config: SliceConfig) -> Bools:
    """Tell which comparisons have rows enough on both sides."""
    least = config.least_rows
    return np.asarray((comparison.here.n >= least) & (comparison.there.n >= least))


def _verdicts(
    figure: Figure, difference: Floats, limits: tuple[Floats, Floats], q: Floats, alpha: float
) -> list[str]:
    apart = np.nan_to_num(q, nan=1.0) <= alpha
    bad = (difference > 0) if figure.worse == "high" else (difference < 0)
    within = (limits[0] >= -figure.least) & (limits[1] <= figure.least) & ~np.isnan(q)
    direction = np.where(bad, "worse", "better")
    if figure.worse == "neither":
        direction = np.full(len(bad), "apart")
    words = np.where(apart, direction, np.where(within, "alike", ""))
    return [str(word) or "undecided" for word in words]


def frame_of(
    name: str,
    figure: Figure,
    members: Sequence[tuple[Condition, ...]],
    comparison: Comparison,
    limits: tuple[Floats, Floats],
    q: Floats,
    config: SliceConfig,
) -> pl.DataFrame:
    """Return rows of ``SLICES`` for one figure, without a verdict."""
    low, high = comparison.own_limits(config.alpha / 2)
    if figure.share:
        low, high = np.maximum(low, 0.0), np.minimum(high, 1.0)
        limits = np.maximum(limits[0], -1.0), np.minimum(limits[1], 1.0)
    return pl.DataFrame(
        {
            "figure": [name] * len(members),
            "slice": [slice_name(one) for one in members],
            "rows": comparison.here.n.astype(np.int64),
            "value": comparison.here.mean,
            "low": low,
            "high": high,
            "rest": comparison.there.mean,
            "difference": comparison.difference,
            "difference_low": limits[0],
            "difference_high": limits[1],
            "floor": np.full(len(members), figure.least),
            "q": pl.Series(q, dtype=pl.Float64).fill_nan(None),
            "verdict": [None] * len(members),
        },
        schema=dict(SLICES),
    )


def slice_name(member: tuple[Condition, ...]) -> str:
    """Return a slice's name for people."""
    return " and ".join(one.name for one in member)
