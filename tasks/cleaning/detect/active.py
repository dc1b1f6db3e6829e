"""A few labelled rows: which one to label next, and what the labels say about all other cells.

The log-odds found without labels (``outliers.py``) are the start. Labels move them per column, by
a shift of its odd cells and by what its equal values were labelled; both are shrunk, so that one
label moves a column a little and its repeats more. The next row is the one whose cells are least
certain in the columns where much is uncertain: that label says most about the other cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, xlogy

from tasks.cleaning.detect.numbers import Bools, Floats
from tasks.cleaning.detect.outliers import OutlierConfig, score_cells
from tasks.cleaning.repair.votes import encoded

UNSCORED = -8.0
SHIFT_SPREAD = 3.0  # standard deviation of a column's shift before any label
PER_LABEL = 2.0  # log-odds that a labelled equal value adds
MOST_FROM_LABELS = 6.0
NEWTON_STEPS = 12


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known before any label.

    Attributes:
        log_odds: Of being wrong [rows, columns].
        odd: Cells that more speaks against than against their column's middle [rows, columns].
        codes: The same number for equal values of a column [rows, columns].
    """

    log_odds: Floats
    odd: Bools
    codes: NDArray[np.int64]


def evidence_of(frame: pl.DataFrame, config: OutlierConfig | None = None) -> Evidence:
    """Return the evidence of all cells of a frame of texts; words get UNSCORED."""
    log_odds = np.full((frame.height, frame.width), UNSCORED)
    for scores in score_cells(frame, config):
        log_odds[scores.numbers.rows, frame.columns.index(scores.numbers.name)] = scores.log_odds
    codes = [np.asarray(encoded(frame[name])[0], np.int64) for name in frame.columns]
    odd = log_odds > np.median(log_odds, axis=0) + 0.5
    return Evidence(log_odds, odd, np.column_stack(codes))


def refined(evidence: Evidence, rows: Sequence[int], wrong: Bools) -> Floats:
    """Return the probability of being wrong of every cell [rows, columns], given labelled rows.

    Args:
        evidence: Result of :func:`evidence_of`.
        rows: Labelled rows.
        wrong: Which of their cells are wrong [labelled rows, columns].

    Raises:
        ValueError: Rows and labels differ in number.
    """
    if wrong.shape != (len(rows), evidence.log_odds.shape[1]):
        raise ValueError(
            f"{len(rows)} labelled rows of {evidence.log_odds.shape[1]} cells need labels of that "
            f"shape, got {wrong.shape}"
        )
    chosen = np.asarray(rows, np.int64)
    log_odds = evidence.log_odds.copy()
    for column in range(log_odds.shape[1]):
        start, odd = evidence.log_odds[chosen, column], evidence.odd[chosen, column]
        shift = _shift(start[odd], wrong[odd, column])
        codes = evidence.codes[:, column]
        said = np.where(wrong[:, column], 1.0, -1.0)
        least = min(int(codes.min(initial=0)), 0)
        sums = np.bincount(codes[chosen] - least, said, int(codes.max(initial=0)) - least + 1)
        from_equal = np.clip(PER_LABEL * sums[codes - least], -MOST_FROM_LABELS, MOST_FROM_LABELS)
        log_odds[:, column] += shift * evidence.odd[:, column] + from_equal
    probability = expit(log_odds)
    probability[chosen] = wrong
    return np.asarray(probability, np.float64)


def next_row(
    evidence: Evidence,
    rows: Sequence[int],
    probability: Floats,
    among: NDArray[np.int64] | None = None,
) -> int:
    """Return the row to label next: the uncertain one in the most uncertain columns.

    Args:
        evidence: Result of :func:`evidence_of`.
        rows: Rows that have labels.
        probability: Result of :func:`refined`.
        among: Rows that may be asked for; all if left out.

    Raises:
        ValueError: Every one of them has a label.
    """
    open_rows = np.setdiff1d(np.arange(len(probability)) if among is None else among, rows)
    if len(open_rows) == 0:
        raise ValueError("every row has a label: there is none left to ask for")
    entropy = -(xlogy(probability, probability) + xlogy(1 - probability, 1 - probability))
    entropy[np.asarray(rows, np.int64)] = 0.0
    # The tie-break counts where nothing is uncertain: rows with odd cells come first.
    gain = (entropy * np.sqrt(entropy.sum(0))).sum(1) + 1e-9 * evidence.odd.sum(1)
    return int(open_rows[gain[open_rows].argmax()])


def _shift(start: Floats, wrong: Bools) -> float:
    """Return the shift of log-odds that labelled cells ask for, shrunk towards none."""
    shift = 0.0
    for _ in range(NEWTON_STEPS if len(start) else 0):
        p = expit(start + shift)
        slope = (wrong - p).sum() - shift / SHIFT_SPREAD**2
        shift += float(slope / ((p * (1 - p)).sum() + 1 / SHIFT_SPREAD**2))
        shift = float(np.clip(shift, -10.0, 10.0))
    return shift
