"""Published rows of the Fraud Detection Handbook, shown beside a run on the same public folds.

Le Borgne, Siblini, Lebichot, Bontempi: "Reproducible Machine Learning for Credit Card Fraud
Detection - Practical Handbook" (2022), chapters 5 to 7: means over four test folds, standard
deviations in brackets there. The rows are comparable only with a run on the very same folds, so
they are shown only when a run's folds are recognised by their size and fraud count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.fraud.report.rows import FoldRow, Metric

PUBLIC_FOLDS = ((57_604, 422), (58_337, 408), (57_937, 387), (58_264, 385))
"""Judged transactions and frauds of the four public test folds, newest first."""


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One published model.

    Attributes:
        model: As the source names it.
        auc: Area under the ROC curve.
        ap: Average precision.
        cp: Card precision at 100.
        source: Chapter.
        best: Names of the metrics in which it is the best published row.
    """

    model: str
    auc: Metric
    ap: Metric
    cp: Metric
    source: str
    best: tuple[str, ...] = ()


def _row(
    model: str,
    auc: tuple[float, float],
    ap: tuple[float, float],
    cp: tuple[float, float],
    source: str,
    *best: str,
) -> PublishedRow:
    return PublishedRow(model, Metric(*auc), Metric(*ap), Metric(*cp), source, best)


PUBLISHED = (
    _row("Decision tree", (0.797, 0.01), (0.579, 0.01), (0.284, 0.00), "ch. 5"),
    _row("Logistic regression", (0.868, 0.02), (0.623, 0.02), (0.297, 0.01), "ch. 5"),
    _row("Random forest", (0.870, 0.02), (0.678, 0.01), (0.299, 0.01), "ch. 5"),
    _row("XGBoost", (0.869, 0.01), (0.687, 0.01), (0.303, 0.01), "ch. 5", "ap"),
    _row("Balanced bagging", (0.879, 0.01), (0.680, 0.01), (0.305, 0.01), "ch. 6", "auc", "cp"),
    _row("Feed-forward network", (0.876, 0.01), (0.675, 0.01), (0.303, 0.02), "ch. 7"),
    _row("LSTM", (0.876, 0.02), (0.665, 0.02), (0.297, 0.01), "ch. 7"),
)


def comparable_rows(folds: Sequence[FoldRow]) -> tuple[PublishedRow, ...]:
    """Return the published rows when ``folds`` are the four public test folds, else nothing."""
    return PUBLISHED if tuple((f.rows, f.frauds) for f in folds) == PUBLIC_FOLDS else ()
