"""Figures of a review order: errors found per reviewed item, held against a random order."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from tasks.cleaning.labels.scores import Floats


def auroc(doubt: ArrayLike, wrong: ArrayLike) -> float:
    """Return how often an error is more doubtful than a correct label, ties count half.

    NaN where there are no errors or no correct labels.
    """
    from scipy.stats import rankdata

    error = np.asarray(wrong, dtype=bool)
    n, m = int(error.sum()), int((~error).sum())
    if not n or not m:
        return math.nan
    return float((rankdata(doubt)[error].sum() - n * (n + 1) / 2) / (n * m))


def found(doubt: ArrayLike, wrong: ArrayLike) -> Floats:
    """Return the errors expected among the first 1..N reviewed, ties in random order [N]."""
    score, error = np.asarray(doubt, dtype=np.float64), np.asarray(wrong, dtype=np.float64)
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    totals = np.cumsum(error[order])[ends]
    steps = np.append(0, ends + 1)
    return np.interp(np.arange(1, len(score) + 1), steps, np.append(0, totals))


def found_per_reviewed(doubt: ArrayLike, wrong: ArrayLike, budget: int) -> float:
    """Return the share of errors among the first ``budget`` reviewed; at random: the error rate.

    Raises:
        ValueError: The budget is not within 1..N.
    """
    curve = found(doubt, wrong)
    if not 1 <= budget <= len(curve):
        raise ValueError(f"a budget of {budget} does not fit {len(curve)} rows")
    return float(curve[budget - 1] / budget)


def times_random(doubt: ArrayLike, wrong: ArrayLike, recall: float = 0.8) -> float:
    """Return errors found per reviewed item over a random order's, where ``recall`` is reached.

    At most 1 / error rate. NaN where there are no errors.
    """
    curve = found(doubt, wrong)
    if not len(curve) or not curve[-1] > 0:
        return math.nan
    needed = float(recall * curve[-1])
    reviewed = int(np.searchsorted(curve, needed - 1e-9)) + 1
    return float(curve[reviewed - 1] / reviewed / (curve[-1] / len(curve)))
