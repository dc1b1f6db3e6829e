"""A realistic report's data, made of generated scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tasks.fraud.evaluation.metrics import average_precision, recall_at_fpr, roc_auc
from tasks.fraud.report import ReportInputs
from tasks.fraud.report.curves import pr_curve, reliability, score_bins, threshold_row
from tasks.fraud.report.model import (
    CheckSummary,
    DatasetSummary,
    EntityCount,
    Environment,
    Promotion,
    RuleCount,
)
from tasks.fraud.report.rows import (
    AlertRow,
    DayPrecision,
    FoldRow,
    HeadRow,
    Importance,
    Metric,
    ReasonRow,
    Scores,
)

REASONS = (
    "100 % of the terminal's transactions in the 7 days known so far were frauds",
    "amount is 4.2 x the customer's 30-day mean",
    "the terminal's last 6 known transactions were all frauds",
    "only 48 seconds since the customer's previous transaction",
    "largest amount of the customer in 30 days",
    "amount of 243.10",
    "the customer's activity in 1 day is 3.4 x its 30-day average",
)


def _bank(rng: np.random.Generator, n: int, frauds: int) -> tuple[Any, Any]:
    """Labels, and evidence no head can see fully: a quarter of the frauds leave none."""
    label = np.zeros(n, dtype=np.int8)
    label[rng.choice(n, frauds, replace=False)] = 1
    evidence = (label == 1) * (rng.random(n) < 0.78) * rng.gamma(2.6, 2.1, n)
    return label, evidence + rng.exponential(0.55, n)


def _judge(evidence: Any, power: float, rng: np.random.Generator) -> Any:
    odds = -7.0 + power * evidence + rng.normal(0.0, 1.25 - 0.3 * power, len(evidence))
    return np.round(1 / (1 + np.exp(-odds)), 6)


def _metrics(label: Any, score: Any, rng: np.random.Generator) -> dict[str, float]:
    return {
        "ap": average_precision(label, score),
        "auc": roc_auc(label, score),
        "cp": 0.3 + 0.02 * rng.standard_normal(),
        "r1": recall_at_fpr(label, score),
    }


def _summary(rows: list[dict[str, float]]) -> Scores:
    keys = ("ap", "auc", "cp", "r1")
    return Scores(
        **{
            k: Metric(float(np.mean([r[k] for r in rows])), float(np.std([r[k] for r in rows])))
            for k in keys
        }
    )


def _alerts(rng: np.random.Generator, count: int) -> tuple[AlertRow, ...]:
    alerts = []
    for i in range(count):
        texts = rng.permutation(REASONS)[: int(rng.integers(2, 5))]
        weights = np.sort(rng.gamma(2.0, 0.9, len(texts)))[::-1]
        alerts.append(
            AlertRow(
                event_id=str(1_494_000 + int(rng.integers(0, 9_000))),
                time=f"2018-09-04T{rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}:07+00:00",
                amount=float(np.round(rng.gamma(2.0, 60.0), 2)),
                entities={
                    "customer": str(int(rng.integers(0, 5000))),
                    "terminal": str(int(rng.integers(0, 10000))),
                },
                score=float(0.995 - 0.012 * i - 0.004 * rng.random()),
                truth=None if i % 5 else int(i % 2 == 0),
                reasons=tuple(
                    ReasonRow(str(t), float(w), tie=bool(j == 1 and i % 3 == 0))
                    for j, (t, w) in enumerate(zip(texts, weights, strict=True))
                ),
            )
        )
    return tuple(alerts)


def make_inputs(seed: int = 0, *, public: bool = False) -> ReportInputs:
    """A report of four folds and four heads; ``public`` gives folds the public folds' sizes."""
    rng = np.random.default_rng(seed)
    sizes = ((57_604, 422), (58_337, 408), (57_937, 387), (58_264, 385))
    if not public:
        sizes = tuple((n // 5, f // 5) for n, f in sizes)
    power = {"tabular": 1.50, "graph": 1.05, "both": 1.62, "logistic": 1.25}
    folds: dict[str, list[dict[str, float]]] = {name: [] for name in power}
    pooled: dict[str, list[tuple[Any, Any]]] = {name: [] for name in power}
    for n, f in sizes:
        label, evidence = _bank(rng, n, f)
        for name, p in power.items():
            score = _judge(evidence, p, rng)
            folds[name].append(_metrics(label, score, rng))
            pooled[name].append((label, score))
    joined = {
        name: tuple(np.concatenate(part) for part in zip(*parts, strict=True))
        for name, parts in pooled.items()
    }
    label, score = joined["both"]
    tests = ("2018-08-29..2018-09-04", "2018-08-22..2018-08-28", "2018-08-15..2018-08-21",
             "2018-08-08..2018-08-14")  # fmt: skip
    base = np.mean([r["ap"] for r in folds["tabular"]])
    gains = {n: float(np.mean([r["ap"] for r in rows]) - base) for n, rows in folds.items()}
    return ReportInputs(
        title="Handbook folds" if public else "Small bank",
        model="penstock-handbook, version 3",
        dataset=DatasetSummary(
            name="handbook", source="bank.parquet", rows=301_204, frauds=2_488, unlabelled=1_120,
            first="2018-04-01T00:00:31+00:00", last="2018-09-04T23:59:12+00:00", days=157,
            entities=(
                EntityCount("customer", "customer", 998), EntityCount("terminal", "terminal", 2_000)
            ),
            label_delay_days=7, amount_median=44.65, digest="9f2c" * 16,
        ),
        checks=CheckSummary(
            rows_in=301_221, rows_used=301_204, quarantined=17,
            by_rule=(
                RuleCount("amount-negative", "amount_cents", 9, "error", "-1250"),
                RuleCount("duplicate-id", "tx_id", 6, "warning", "204113"),
                RuleCount("time-missing", "t", 2, "error", "null"),
            ),
            limit=0.05, notes=("31 rows came out of order and were sorted",),
        ),
        scores=_summary(folds["both"]),
        folds=tuple(
            FoldRow(i, tests[i], n, f, **folds["both"][i]) for i, (n, f) in enumerate(sizes)
        ),
        heads=tuple(
            HeadRow(
                name, _summary(folds[name]), active=name == "both",
                gain=None if name == "tabular" else gains[name],
                gain_low=None if name == "tabular" else gains[name] - 0.009,
                gain_high=None if name == "tabular" else gains[name] + 0.010,
            )
            for name in power
        ),
        pr=tuple(pr_curve(name, *joined[name]) for name in power),
        precision_by_day=tuple(
            DayPrecision(f"2018-{8 + (29 + i) // 32:02d}-{(28 + i) % 31 + 1:02d}",
                         float(0.3 + 0.03 * rng.standard_normal()), 0.45)
            for i in range(7)
        ),
        top_entity="customer",
        calibration=reliability(label, score),
        score_bins=score_bins(label, score),
        importance=tuple(
            Importance(name, float(s)) for name, s in zip(
                ("terminal, known frauds", "customer, 30 days", "amount", "customer, 7 days",
                 "terminal, 7 days", "customer, 1 day", "customer, known frauds", "hour",
                 "graph network"),
                (1.21, 0.84, 0.66, 0.31, 0.22, 0.17, 0.11, 0.05, 0.03), strict=True)
        ),
        thresholds=tuple(
            threshold_row(name, t, label, score, 28.0, cost=c)
            for name, t, c in (
                ("100 alerts a day", 0.08, 4120.0), ("0.1 % false alarms", 0.11, 4485.0),
                ("0.5 % false alarms", 0.03, 5230.0), ("1 % false alarms", 0.018, 6912.0),
                ("lowest cost", 0.21, 3898.0))
        ),
        alert_day="2018-09-04",
        alerts=_alerts(rng, 18),
        alerts_total=23,
        promotion=Promotion(
            "promoted", "AP on the newest labelled week is 0.021 above the champion's and the "
            "whole interval lies above zero.", challenger="3", champion="2",
            week="2018-08-29..2018-09-04", gain=0.021, gain_low=0.006, gain_high=0.037,
        ),
        environment=Environment(
            created="2026-11-23T08:31:10+00:00", commit="5ce59ed", machine="2 cores, 8 GiB",
            versions={"python": "3.11.2", "torch": "2.14.1", "lightgbm": "4.7.0"},
            durations={"check": 1.9, "state": 4.4, "graph": 48.0, "heads": 21.5, "judge": 2.2},
            run_url="http://127.0.0.1:5000/#/experiments/1/runs/4f1c",
        ),
        explained_by="Exact path-dependent SHAP values of 3 tree models, log-odds, 400 rows.",
    )  # fmt: skip


@pytest.fixture
def example_inputs() -> Callable[..., ReportInputs]:
    """Factory of report data: ``example_inputs(seed, public=False)``."""
    return make_inputs
