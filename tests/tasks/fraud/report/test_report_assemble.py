"""From results of the fraud job to the rows of a report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.cleaning.quarantine import QUARANTINE_SCHEMA
from tasks.explain.reasons import Reason
from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.evaluation.paired import PairedResult
from tasks.fraud.evaluation.protocol import FoldResult
from tasks.fraud.ingest.checks import check
from tasks.fraud.report import ReportInputs, assemble, build_report

CONFIG = DatasetConfig(
    name="tiny", time="when", amount="paid", event_id="id", label="bad", label_delay_days=7,
    max_quarantine_share=0.5,
    entities=(EntityColumn("payer", "party"), EntityColumn("payee", "party")),
)  # fmt: skip


@pytest.fixture
def checked():
    table = pa.table(
        {
            "id": [3, 1, 2, 2, 5],
            "when": ["2024-01-05T10:00:00", "2024-01-01T10:00:00", "2024-01-02T10:00:00",
                     "2024-01-02T10:00:00", "2024-01-09T10:00:00"],
            "paid": [10.0, 20.0, 30.0, 30.0, -4.0],
            "payer": ["ann", "<b>bob</b>", "ann", "ann", "ann"],
            "payee": ["cat", "dan", "ann", "ann", "cat"],
            "bad": [None, 1, 0, 0, 0],
        }
    )  # fmt: skip
    return check(table, CONFIG, "/data/of/a/bank/tiny.parquet")


def fold(i=0, ap=0.7, cp=0.3, days=(0.3, 0.3, 0.3), test="2024-01-01..2024-01-03"):
    return FoldResult(i, test, 100, 5, ap, 0.9, cp, 0.6, tuple(days))


def test_data_and_checks_are_described(checked):
    data = assemble.dataset_summary(
        checked.transactions, CONFIG, source=checked.report.source, digest="abc"
    )
    assert (data.rows, data.frauds, data.unlabelled, data.days) == (3, 1, 1, 5)
    assert data.source == "tiny.parquet"
    assert data.first == "2024-01-01T10:00:00+00:00"
    assert data.amount_median == 20.0
    assert [(e.column, e.kind, e.distinct) for e in data.entities] == [
        ("payer", "party", 2), ("payee", "party", 3),
    ]  # fmt: skip
    checks = assemble.check_summary(checked.report, checked.quarantine, limit=0.5)
    assert (checks.rows_in, checks.rows_used, checks.quarantined) == (5, 3, 2)
    assert [(r.rule, r.rows, r.severity) for r in checks.by_rule] == [
        ("duplicate-of", 1, "warning"), ("negative-amount", 1, "error"),
    ]  # fmt: skip
    assert checks.by_rule[1].example.startswith("-4")
    assert checks.notes[0] == "2 rows came out of time order and were sorted"
    assert checks.notes[1] == "4 of 5 days hold no known fraud"


def test_checks_without_records_still_count(checked):
    bare = assemble.check_summary(checked.report)
    assert [(r.rule, r.column, r.example) for r in bare.by_rule] == [
        ("duplicate-of", "", ""), ("negative-amount", "", ""),
    ]  # fmt: skip
    missing = {name: [None] for name in QUARANTINE_SCHEMA.names} | {
        "payload": [b"{}"], "source": ["x"], "row": [0], "rule": ["negative-amount"],
        "column": ["paid"], "expected": ["zero or more"], "severity": ["error"],
        "detector_version": ["1"], "confidence": [1.0], "time": [0],
    }  # fmt: skip
    table = pa.table(missing, schema=QUARANTINE_SCHEMA)
    assert assemble.check_summary(checked.report, table).by_rule[1].example == "(missing)"


def test_no_transactions_make_an_empty_summary(checked):
    nothing = assemble.dataset_summary(checked.transactions.take(slice(0, 0)), CONFIG, source="x")
    assert (nothing.rows, nothing.days, nothing.first, nothing.amount_median) == (0, 0, "", None)


def test_folds_and_heads_become_rows():
    results = {"tabular": [fold(0, 0.7), fold(1, 0.6)], "both": [fold(0, 0.8), fold(1, 0.7)]}
    pair = PairedResult(0.75, 0.65, 0.1, 0.05, 0.15, 200, 10)
    tabular, both = assemble.head_rows(results, active="both", gains={"both": pair})
    assert (tabular.active, tabular.gain) == (False, None)
    assert (both.active, both.gain, both.gain_low, both.gain_high) == (True, 0.1, 0.05, 0.15)
    assert both.scores.ap is not None
    assert both.scores.ap.mean == pytest.approx(0.75)
    assert both.scores.ap.std == pytest.approx(0.05)
    no_entity = [fold(0, cp=float("nan"), days=())]
    assert assemble.fold_rows(no_entity)[0].cp is None
    assert assemble.scores_of(no_entity).cp is None
    assert assemble.scores_of(no_entity).ap == assemble.Metric(0.7, None)


def test_days_are_dated_only_where_it_is_certain():
    perfect = fold(days=(0.5, 0.5, 0.5))
    days = assemble.precision_days(fold(days=(0.1, 0.2, 0.3)), perfect)
    assert [(d.day, d.precision, d.best) for d in days][1] == ("2024-01-02", 0.2, 0.5)
    assert assemble.precision_days(fold(days=(0.1, 0.2)))[1].day == "day 2"
    assert assemble.precision_days(fold(test="spring"))[0].day == "day 1"
    with pytest.raises(ValueError, match="judge the same fold"):
        assemble.precision_days(fold(days=(0.1,)), perfect)


def test_alerts_are_ranked_and_hide_truth_not_known_yet(checked):
    tx = checked.transactions
    reasons = [[], [Reason("amount is odd", "transaction/amount", 1.5, tie=True)], []]
    score = np.array([0.2, 0.9, 0.5])
    rows = np.array([0, 1, 2])
    now = int(tx.time[0]) + 7 * assemble.DAY_MS
    alerts = assemble.alert_rows(tx, rows, score, reasons, decimals=2, now=now)
    assert [a.event_id for a in alerts] == ["2", "3", "1"]
    assert [a.truth for a in alerts] == [None, None, 1]
    assert alerts[0].amount == 30.0
    assert alerts[0].entities == {"payer": "ann", "payee": "ann"}
    assert alerts[0].reasons[0].tie
    texts = replace(tx, event_names=np.array(["a", "b", "c"], dtype=object))
    named = assemble.alert_rows(texts, rows, score, reasons, decimals=2)
    assert [(a.event_id, a.truth) for a in named] == [("b", None), ("c", None), ("a", None)]
    with pytest.raises(ValueError, match="3 alerts, 2 scores"):
        assemble.alert_rows(tx, rows, score[:2], reasons, decimals=2)


def test_promotion_carries_its_interval():
    pair = PairedResult(0.7, 0.65, 0.05, 0.01, 0.09, 200, 10)
    row = assemble.promotion_row(promoted=True, reason="better", challenger="2", comparison=pair)
    assert (row.verdict, row.gain, row.gain_low, row.gain_high) == ("promoted", 0.05, 0.01, 0.09)
    assert assemble.promotion_row(promoted=False, reason="worse").gain is None
    assert assemble.promotion_row(promoted=None, reason="not asked").verdict == "none"


def test_environment_names_machine_and_versions(monkeypatch):
    found = assemble.describe_environment(
        created="2026-01-01T00:00:00+00:00", commit="abc", durations={"check": 1.0},
        libraries=("numpy", "no-such-library"),
    )  # fmt: skip
    assert found.versions["numpy"] == np.__version__
    assert set(found.versions) == {"python", "numpy"}
    assert "GiB memory" in found.machine

    def unreadable(*_args, **_kwargs):
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", unreadable)
    assert "core" in assemble.describe_machine()


def test_assembled_rows_make_a_report_that_survives_json(checked):
    tx = checked.transactions
    results = [fold(0), fold(1)]
    inputs = ReportInputs(
        title="Tiny", model="tiny 1",
        dataset=assemble.dataset_summary(tx, CONFIG, source="tiny.csv"),
        checks=assemble.check_summary(checked.report, checked.quarantine),
        scores=assemble.scores_of(results), folds=assemble.fold_rows(results),
        environment=assemble.describe_environment(created="now", commit="x", durations={}),
        alerts=assemble.alert_rows(tx, np.array([0]), np.array([0.5]), [[]], decimals=2),
    )  # fmt: skip
    again = ReportInputs.from_dict(json.loads(json.dumps(inputs.to_dict(), allow_nan=False)))
    assert build_report(again) == build_report(inputs)
    assert "&lt;b&gt;bob&lt;/b&gt;" in build_report(inputs)
