"""Figures over all folds: what is stored, compared and shown of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.fraud.evaluation.bootstrap import JudgedScores
from tasks.fraud.evaluation.paired import PairedResult, PairedRules, compare_folds, interval_of_ap
from tasks.fraud.evaluation.protocol import FoldResult, summarise
from tasks.fraud.transactions import Transactions

REFERENCE = "tabular"
"""Head every other head is compared with."""


@dataclass(frozen=True, slots=True)
class StoredFold:
    """A judged fold as it is kept between steps.

    Attributes:
        kind: ``"test"`` or ``"validation"``.
        rows: Judged rows of the data set.
        scores: Head -> score of each.
        results: Head -> figures.
    """

    kind: str
    rows: NDArray[np.intp]
    scores: Mapping[str, NDArray[np.float64]]
    results: Mapping[str, FoldResult]


def result_to_json(result: FoldResult) -> dict[str, Any]:
    """Return plain data; metrics that do not exist become None."""
    data = result.to_dict()
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in data.items()}


def result_from_json(data: Mapping[str, Any]) -> FoldResult:
    """Read what ``result_to_json`` wrote."""
    values: dict[str, Any] = {k: math.nan if v is None else v for k, v in data.items()}
    values["cp_days"] = tuple(values["cp_days"])
    return FoldResult(**values)


def by_head(folds: Sequence[StoredFold]) -> dict[str, list[FoldResult]]:
    """Return head -> its results over folds, for heads present in every fold."""
    if not folds:
        return {}
    names = [n for n in folds[0].results if all(n in f.results for f in folds)]
    return {n: [f.results[n] for f in folds] for n in names}


def judged(
    tx: Transactions, folds: Sequence[StoredFold], first: str, second: str = REFERENCE
) -> list[JudgedScores]:
    """Return two heads' scores fold by fold, with labels and first entities."""
    entity = next(iter(tx.entities.values()))
    return [
        JudgedScores(tx.label[f.rows], entity[f.rows], f.scores[first], f.scores[second])
        for f in folds
    ]


def gains(
    tx: Transactions, folds: Sequence[StoredFold], rules: PairedRules | None = None
) -> dict[str, PairedResult]:
    """Compare every head with the tabular one on the same rows, entities drawn whole."""
    if not folds or any(REFERENCE not in f.scores for f in folds):
        return {}
    return {
        head: compare_folds(judged(tx, folds, head), rules)
        for head in by_head(folds)
        if head != REFERENCE
    }


def figures(
    tx: Transactions,
    test: Sequence[StoredFold],
    validation: Sequence[StoredFold],
    *,
    active: str,
    reason: str,
    rules: PairedRules | None = None,
) -> dict[str, Any]:
    """Return everything ``metrics.json`` holds."""
    heads = {}
    for name, results in by_head(test).items():
        low, high = interval_of_ap(judged(tx, test, name, name), rules)
        heads[name] = {**_numbers(summarise(results)), "ap_interval": [low, high]}
    return {
        "active": active,
        "choice": reason,
        "test": heads,
        "test_folds": {
            n: [result_to_json(r) for r in results] for n, results in by_head(test).items()
        },
        "validation": {n: _numbers(summarise(r)) for n, r in by_head(validation).items()},
        "gain_over_tabular": {n: g.to_dict() for n, g in gains(tx, test, rules).items()},
    }


def _numbers(summary: Mapping[str, float]) -> dict[str, float]:
    return {k: v for k, v in summary.items() if math.isfinite(v)}


def tracked_metrics(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers a tracker shows: ``test.tabular.ap`` and so on."""
    flat: dict[str, float] = {}
    for part in ("test", "validation"):
        for head, values in figures[part].items():
            for name, value in values.items():
                if isinstance(value, float):
                    flat[f"{part}.{head}.{name}"] = value
    for head, gain in figures["gain_over_tabular"].items():
        for name in ("difference", "low", "high"):
            flat[f"gain.{head}.{name}"] = gain[name]
    for name in ("ap", "auc", "cp", "r1"):
        if name in figures["test"].get(figures["active"], {}):
            flat[name] = figures["test"][figures["active"]][name]
    return flat
