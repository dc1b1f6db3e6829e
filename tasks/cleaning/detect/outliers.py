"""Misplaced numbers: the log-odds that a cell of a column of numbers is wrong, without any label.

Three kinds of column are told apart, and the evidence of each is added up in log-odds:

* *steady*: one value fills most of it. What differs on both sides of it is in doubt; on one side
  it is natural (counts, shares of 1) unless it is one other value and falls at random.
* *in sequence* (``sequences.py``): what leaves the sequence is in doubt, the farther the more.
* *spread*: far from the middle on the scale that makes the column symmetrical, beyond a gap, in a
  column that is not heavy-tailed, and not far in the columns that it goes with (``relations.py``).

To these is added whether the number is written with far more decimals than its column, and taken
away where the odd cells keep together (``chance.py``). One sigmoid makes all of it comparable over
columns and tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit

from tasks.cleaning.detect.chance import association, groupings, runs_z
from tasks.cleaning.detect.numbers import (
    Bools,
    Floats,
    Numbers,
    heaviness,
    magnitudes,
    numbers_of,
    robust_z,
)
from tasks.cleaning.detect.relations import expected_ranks, rank_table
from tasks.cleaning.detect.sequences import Sequence, sequence_of
from tasks.cleaning.findings import findings_of, joined

VERSION = "outliers/1"
FEW = 4  # odd cells below which a column shows no pattern


@dataclass(frozen=True, slots=True)
class OutlierConfig:
    """Weights of the evidence, in log-odds unless said; chosen once on 30 public tables.

    Attributes:
        least: Log-odds of a cell that nothing speaks against; no sum is lower.
        most: No sum is higher.
        steady: Least share of the commonest value of a steady column.
        both_sides: Steady column with other values on both sides of the commonest.
        steadier: Added per share above ``steady``.
        same_value: Taken away where one value makes up most of what differs.
        other_value: Steady column with one or two other values, which fall at random.
        often: Taken away there where they are more than ``often_share``.
        often_share: Share of the column.
        one_side: Steady column with many values on one side.
        few_wild: Steady column of amounts (``amount`` or more) where fewer than four cells
            differ, by half the commonest value or more.
        amount: See above: smaller numbers are often codes and flags.
        far: Robust deviations at which a cell of a spread column is in doubt.
        base, per_deviation: Spread column at ``far``; per further robust deviation.
        per_heaviness: Taken away per unit of heavy tail (``numbers.heaviness``), in deviations.
        per_gap: Per factor e between a cell and the farthest that is not in doubt.
        repeated: Taken away where the number occurs again.
        explained: Taken away where other columns predict a value that far out.
        format: Number with ``format_digits`` more decimals than its column.
        format_digits: See above.
        out_of_order: Cell that leaves a sequence, at ``near`` robust deviations from the middle.
        near, per_far: See above; per further robust deviation (at most six).
        kept: Taken away from cells that keep to a sequence.
        clustered: Taken away per z of clustering in order of rows below ``runs``.
        runs: See above.
        associated: Taken away where the odd cells go with another column.
        association: -log10 p from which they do.
    """

    least: float = -8.0
    most: float = 12.0
    steady: float = 0.55
    both_sides: float = 0.75
    steadier: float = 15.0
    same_value: float = 3.0
    other_value: float = 1.0
    often: float = 3.0
    often_share: float = 0.15
    one_side: float = -4.0
    few_wild: float = 1.0
    amount: float = 10.0
    far: float = 3.2
    base: float = -1.8
    per_deviation: float = 0.8
    per_heaviness: float = 3.0
    per_gap: float = 1.5
    repeated: float = 2.5
    explained: float = 3.0
    format: float = 9.0
    format_digits: int = 4
    out_of_order: float = 0.7
    near: float = 1.8
    per_far: float = 0.8
    kept: float = 2.0
    clustered: float = 1.0
    runs: float = -1.5
    associated: float = 3.0
    association: float = 2.0


@dataclass(frozen=True, slots=True)
class CellScores:
    """Log-odds of being wrong of the cells of one column.

    Attributes:
        numbers: The column.
        log_odds: One per number [n].
        kind: ``steady``, ``sequence`` or ``spread``.
    """

    numbers: Numbers
    log_odds: Floats
    kind: str

    @property
    def confidence(self) -> Floats:
        """Probability of being wrong [n]."""
        return np.asarray(expit(self.log_odds), np.float64)


def score_cells(frame: pl.DataFrame, config: OutlierConfig | None = None) -> list[CellScores]:
    """Return the scores of every column of numbers, in order of columns.

    Args:
        frame: Texts.
        config: Weights.
    """
    config = config or OutlierConfig()
    columns = [n for n in (numbers_of(frame[name]) for name in frame.columns) if n is not None]
    groups, table = groupings(frame), rank_table(columns, frame.height)
    return [_score(numbers, groups, table, config) for numbers in columns]


def outliers(
    frame: pl.DataFrame, *, least: float = 0.5, config: OutlierConfig | None = None
) -> pl.DataFrame:
    """Return findings of all numbers that are wrong with a probability of at least ``least``."""
    parts = []
    for scores in score_cells(frame, config):
        hit = np.flatnonzero(scores.confidence >= least)
        rows = scores.numbers.rows[hit]
        cells = pl.DataFrame(
            {
                "row": rows,
                "observed": frame[scores.numbers.name].gather(rows),
                "confidence": scores.confidence[hit],
            }
        )
        low, middle, high = np.quantile(scores.numbers.values, [0.25, 0.5, 0.75])
        parts.append(
            findings_of(
                cells,
                column=scores.numbers.name,
                rule=f"outlier-{scores.kind}",
                expected=f"near {middle:.6g}, half of the cells in {low:.6g} to {high:.6g}",
                premise=PREMISES[scores.kind],
                detector_version=VERSION,
            )
        )
    return joined(parts)


PREMISES: Mapping[str, str] = {
    "steady": "nearly all cells hold one value",
    "sequence": "the column runs in one direction",
    "spread": "far from the other numbers of the column",
}


def _score(
    numbers: Numbers,
    groups: Mapping[str, NDArray[np.int64]],
    table: dict[str, Floats],
    config: OutlierConfig,
) -> CellScores:
    values = numbers.values
    commonest = values[numbers.counts.argmax()]
    odd = values != commonest
    if not odd.any():
        return CellScores(numbers, np.full(len(values), config.least), "steady")
    if 1.0 - odd.mean() >= config.steady:
        score, kind = _steady(numbers, odd, commonest, config), "steady"
    else:
        score, kind = _spread(numbers, table, config), "spread"
        odd = magnitudes(values) > config.far
    written = _odd_format(numbers, config)
    if not written.all():
        score = score - config.clustered * max(0.0, config.runs - runs_z(odd)) * odd
        together = association(odd & ~written, numbers.rows, groups, numbers.name)
        score = score - config.associated * (together > config.association) * odd
    sequence = sequence_of(numbers) if kind == "spread" else None
    if sequence is not None:
        score, kind = _in_sequence(numbers, score, sequence, config), "sequence"
    score = score + config.format * written
    return CellScores(numbers, np.clip(score, config.least, config.most), kind)


def _steady(numbers: Numbers, odd: Bools, commonest: float, config: OutlierConfig) -> Floats:
    values, count = numbers.values, int(odd.sum())
    below, above = int((values < commonest).sum()), int((values > commonest).sum())
    if min(below, above) >= config.often_share * count and count >= FEW:
        score = config.both_sides + config.steadier * (1.0 - odd.mean() - config.steady)
        scores = score - config.same_value * (numbers.counts > 0.5 * count)
    elif numbers.distinct <= 3:
        rare = count >= FEW and odd.mean() < config.often_share
        scores = np.full(len(values), config.other_value - config.often * (not rare))
    else:
        scores = np.full(len(values), config.one_side)
    if count < FEW and abs(commonest) >= config.amount:
        wild = np.abs(values - commonest) >= 0.5 * abs(commonest)
        scores = np.where(wild, np.maximum(scores, config.few_wild), scores)
    return np.where(odd, scores, config.least)


def _spread(numbers: Numbers, table: dict[str, Floats], config: OutlierConfig) -> Floats:
    magnitude = magnitudes(numbers.values)
    far = magnitude > config.far
    edge = magnitude[~far].max(initial=1e-9)
    gap = np.log(np.maximum(magnitude, 1e-9) / max(edge, 1e-9))
    beyond = np.minimum(magnitude, 14.0) - config.far - config.per_heaviness * heaviness(magnitude)
    score = config.base + config.per_deviation * beyond + config.per_gap * np.minimum(gap, 2.0)
    score = score - config.repeated * (numbers.counts > 1)
    expected, explained = expected_ranks(numbers, table)
    if explained > 0.3:
        own = table[numbers.name][numbers.rows]
        along = (np.sign(own) == np.sign(expected)) & (np.abs(expected) > 0.4 * np.abs(own))
        score = score - config.explained * along
    return np.where(far, score, -7.0 + 0.6 * magnitude)


def _odd_format(numbers: Numbers, config: OutlierConfig) -> Bools:
    usual = np.quantile(numbers.decimals, 0.7)
    odd = numbers.decimals - usual >= config.format_digits
    return odd if odd.mean() < 0.3 else np.zeros(len(odd), bool)


def _in_sequence(
    numbers: Numbers, score: Floats, sequence: Sequence, config: OutlierConfig
) -> Floats:
    out = ~sequence.kept
    alone = np.convolve(out, [1, 1, 1], "same") * out <= 1
    far = np.minimum(np.abs(robust_z(numbers.values)), 6.0)
    left = np.maximum(score, 0.0) + config.out_of_order * (sequence.share > 0.75)
    left = left + config.per_far * (far - config.near) - 1.5 * (~alone)
    if len(out) > 20:
        left = left - 1.5 * max(0.0, config.runs - runs_z(out))
    return np.where(out, left, score - config.kept)
