"""Judged folds of a run become the sections of a report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tasks.fraud.evaluation.figures import StoredFold
from tasks.fraud.evaluation.plan import Plan
from tasks.fraud.evaluation.protocol import DAY_MS, Protocol, evaluate_fold, folds, judged_rows
from tasks.fraud.evaluation.thresholds import fit_thresholds
from tasks.fraud.report import build_report
from tasks.fraud.report.judged import judged_sections, threshold_rows
from tasks.fraud.transactions import Transactions


@pytest.fixture(scope="module")
def run():
    rng = np.random.default_rng(0)
    n = 30_000
    time = np.sort(rng.integers(0, 42 * DAY_MS, n))
    label = (rng.random(n) < 0.03).astype(np.int8)
    tx = Transactions(
        event_id=np.arange(n), time=time, amount=rng.integers(100, 9_000, n), label=label,
        label_time=time + 7 * DAY_MS, entities={"payer": rng.integers(0, 2_000, n, dtype=np.int32)},
        kinds={"payer": "payer"}, index={"payer": np.arange(2_000).astype(str)},
    )  # fmt: skip
    protocol = Protocol(entity="payer")
    cuts = folds(35 * DAY_MS, 2, protocol)
    stored = []
    for fold in cuts:
        rows = judged_rows(tx, fold, "payer")
        noise = rng.random(len(rows))
        scores = {
            "logistic": np.clip(0.1 * tx.label[rows] + 0.9 * noise, 0, 1),
            "tabular": np.clip(0.25 * tx.label[rows] + 0.75 * noise, 0, 1),
            "odd": noise,
            "both": np.clip(0.4 * tx.label[rows] + 0.6 * noise, 0, 1),
        }
        results = {n: evaluate_fold(tx, fold, s, protocol, rows=rows) for n, s in scores.items()}
        stored.append(StoredFold("test", rows, scores, results))
    return tx, stored, Plan(protocol, cuts, ())


def test_sections_follow_the_run(run, example_inputs):
    tx, stored, plan = run
    parts = judged_sections(tx, stored, plan, active="both")
    assert [h.name for h in parts["heads"]] == ["both", "tabular", "logistic", "odd"]
    assert [h.active for h in parts["heads"]] == [True, False, False, False]
    both, tabular, logistic, _ = parts["heads"]
    assert tabular.gain is None
    assert both.gain_low > 0 > logistic.gain_high
    assert [f.rows for f in parts["folds"]] == [len(s.rows) for s in stored]
    assert parts["folds"][0].ap == stored[0].results["both"].ap
    assert len(parts["precision_by_day"]) == 7
    assert all(d.precision <= d.best for d in parts["precision_by_day"])
    assert parts["precision_by_day"][0].day == "1970-02-05"
    base = example_inputs(0).to_dict()
    inputs = type(example_inputs(0)).from_dict(base)
    page = build_report(type(inputs)(**{**{f: getattr(inputs, f) for f in base}, **parts}))
    assert "both (ships)" in page


def test_calibrated_scores_replace_the_judged_ones(run):
    tx, stored, plan = run
    honest = np.full(len(stored[0].rows), 0.03)
    parts = judged_sections(tx, stored, plan, active="both", calibrated=honest, compared={})
    (only,) = parts["calibration"]
    assert only.predicted == pytest.approx(0.03)
    assert only.low < 0.03 < only.high
    assert all(h.gain is None for h in parts["heads"])


def test_no_entity_means_no_daily_precision(run):
    tx, stored, plan = run
    plain = Plan(Protocol(), plan.test, ())
    assert judged_sections(tx, stored, plain, active="tabular")["precision_by_day"] == ()


def test_what_was_not_judged_is_refused(run):
    tx, stored, plan = run
    with pytest.raises(ValueError, match="'graph' was not judged on every test fold"):
        judged_sections(tx, stored, plan, active="graph")
    with pytest.raises(ValueError, match="no test fold"):
        judged_sections(tx, [], plan, active="both")


def test_thresholds_keep_their_promises(run):
    tx, stored, _ = run
    rows, score = stored[0].rows, stored[0].scores["both"]
    label, amount = tx.label[rows], tx.amount[rows] / 100
    fitted = fit_thresholds(
        score, label, amount, tx.time[rows] // DAY_MS, tx.entities["payer"][rows]
    )
    table = threshold_rows(json.loads(json.dumps(fitted.to_dict())), label, score, amount, 7.0)
    by_name = {row.policy: row for row in table}
    assert next(iter(by_name)) == "50 alerts a day"
    assert by_name["1 % false alarms"].fpr == pytest.approx(0.01, abs=0.002)
    assert by_name["lowest cost"].cost == min(row.cost for row in table)
    never = threshold_rows({"cost": None}, label, score, amount, 0.0)[0]
    assert (never.threshold, never.alerts_per_day, never.recall, never.cost) == (
        None,
        None,
        0,
        None,
    )
