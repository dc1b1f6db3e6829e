"""The judged part of a report: folds, heads, curves and thresholds of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.fraud.evaluation.figures import StoredFold, by_head, gains
from tasks.fraud.evaluation.protocol import evaluate_fold
from tasks.fraud.evaluation.thresholds import CostModel, total_cost
from tasks.fraud.report.assemble import fold_rows, head_rows, precision_days, scores_of
from tasks.fraud.report.curves import pr_curve, reliability, score_bins, threshold_row
from tasks.fraud.report.rows import DayPrecision, ThresholdRow

if TYPE_CHECKING:
    from tasks.fraud.evaluation.paired import PairedResult
    from tasks.fraud.evaluation.plan import Plan
    from tasks.fraud.transactions import Transactions

ORDER = ("both", "tabular", "graph", "mlp", "logistic")
"""Heads as they are listed; others follow."""


def judged_sections(
    tx: Transactions,
    test: Sequence[StoredFold],
    plan: Plan,
    *,
    active: str,
    calibrated: NDArray[np.float64] | None = None,
    compared: Mapping[str, PairedResult] | None = None,
) -> dict[str, Any]:
    """Return the judged fields of ``ReportInputs`` by name.

    Args:
        tx: All transactions.
        test: Judged test folds, newest first.
        plan: Folds and protocol of the run.
        active: Head that ships.
        calibrated: Its calibrated probabilities on the newest fold's rows; None: as judged.
        compared: Paired comparisons with the tabular head; None: computed here.
    """
    if not test:
        raise ValueError("no test fold to report; train on data that carries at least one")
    results = by_head(test)
    if active not in results:
        raise ValueError(f"head {active!r} was not judged on every test fold: {sorted(results)}")
    ordered = sorted(results, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))
    rows = np.concatenate([fold.rows for fold in test])
    label = tx.label[rows]
    newest = test[0]
    probability = newest.scores[active] if calibrated is None else calibrated
    pairs = gains(tx, test) if compared is None else compared
    return {
        "scores": scores_of(results[active]),
        "folds": fold_rows(results[active]),
        "heads": head_rows({n: results[n] for n in ordered}, active=active, gains=pairs),
        "pr": tuple(
            pr_curve(n, label, np.concatenate([_share_below(f.scores[n]) for f in test]))
            for n in ordered
        ),
        "precision_by_day": _days(tx, newest, plan, active),
        "top_k": plan.protocol.top_k,
        "top_entity": plan.protocol.entity,
        "calibration": reliability(tx.label[newest.rows], probability),
        "score_bins": score_bins(tx.label[newest.rows], probability),
    }


def _share_below(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks in (0, 1]: scores of different folds' models are not comparable as they are."""
    from scipy.stats import rankdata

    ranks: NDArray[np.float64] = rankdata(score) / len(score)
    return ranks


def _days(
    tx: Transactions, newest: StoredFold, plan: Plan, active: str
) -> tuple[DayPrecision, ...]:
    if not plan.protocol.entity:
        return ()
    truth = (tx.label[newest.rows] == 1).astype(np.float64)
    perfect = evaluate_fold(tx, plan.test[0], truth, plan.protocol, rows=newest.rows)
    return precision_days(newest.results[active], perfect)


def threshold_rows(
    thresholds: Mapping[str, Any],
    label: ArrayLike,
    score: ArrayLike,
    amount: ArrayLike,
    days: float,
    *,
    cost: CostModel | None = None,
) -> tuple[ThresholdRow, ...]:
    """Say what every threshold of a model would have meant on judged rows.

    Args:
        thresholds: As ``Thresholds.to_dict`` gives them (``null`` for a cost threshold that never
            pays).
        label: ``[n]`` 1 fraud, 0 legitimate.
        score: ``[n]`` calibrated probabilities of the head that ships.
        amount: ``[n]`` amounts in major units.
        days: Days the rows cover.
        cost: Costs; every policy's cost a day is computed with them.
    """
    policies = [(f"{k} alerts a day", v) for k, v in thresholds.get("alerts_per_day", {}).items()]
    policies += [
        (f"{float(rate) * 100:g} % false alarms", v)
        for rate, v in thresholds.get("fpr", {}).items()
    ]
    if "cost" in thresholds:
        policies.append(("lowest cost", thresholds["cost"]))
    rules = cost or CostModel()
    rows = []
    for name, value in policies:
        threshold = float("inf") if value is None else float(value)
        spent = total_cost(score, label, amount, threshold, rules) / days if days > 0 else None
        rows.append(threshold_row(name, threshold, label, score, days, cost=spent))
    return tuple(rows)
