"""A fraud bundle as a subject: values of the head that serves, rows that pages need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.explain.drift import DriftConfig
from tasks.explain.errors import ExplanationError
from tasks.explain.record import ModelName
from tasks.explain_report.case import collect_case
from tasks.explain_report.model import ModelConfig, collect_model
from tasks.explain_report.render import case_page, model_page
from tasks.fraud import stages
from tasks.fraud.bundle import write_bundle
from tasks.fraud.dataset import DatasetConfig, Split
from tasks.fraud.evaluation.plan import make_plan
from tasks.fraud.explained import (
    fraud_subject,
    recent_rows,
    rows_around,
    rows_of_keys,
    segments_of,
)
from tasks.fraud.features import build_features
from tasks.fraud.heads import MlpConfig, TreeConfig
from tasks.fraud.ingest.checks import check
from tasks.fraud.report.inputs import last_day
from tasks.fraud.score import score_transactions
from tasks.fraud.simulate import TransfersConfig, simulate_transfers
from tasks.fraud.training import TrainingConfig, bundle_parts, calibrate, fit_fold

DATASETS = Path(__file__).resolve().parents[3] / "tasks" / "fraud" / "datasets"
SETTINGS = TrainingConfig(
    trees=TreeConfig(rounds=15, seeds=2, min_rows=10),
    mlp=MlpConfig(hidden=(8, 4), epochs=1, batch=256),
    background_rows=24,
)
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    shipped = DatasetConfig.from_toml(DATASETS / "transfers.toml")
    split = Split(train_days=20, test_days=7, folds=2, validation_folds=1, warmup_days=5,
                  test_start="2018-05-20")  # fmt: skip
    config = replace(shipped, split=split)
    network = TransfersConfig(accounts=120, days=70, rings=12, seed=2)
    tx = check(pa.Table.from_batches(simulate_transfers(network)), config, "x").transactions
    features = build_features(tx, config)
    fold = make_plan(tx, config).test[0]
    fitted = calibrate(tx, features, fit_fold(tx, features, fold, SETTINGS, None))
    parts = bundle_parts(
        tx, features, config, fitted,
        active="tabular", settings=SETTINGS, metrics={"test": {}}, data_digest="0" * 64,
        thresholds=stages.thresholds_of(tx, features, fitted, config, "tabular"), git_commit="x",
    )  # fmt: skip
    return write_bundle(tmp_path_factory.mktemp("bundle") / "b", parts), tx, features


def subject_of(bank, rows, **thresholds):
    bundle, tx, features = bank
    return fraud_subject(bundle, tx, features, rows, model=ModelName("fraud-x", "1", bundle.digest),
                         thresholds=thresholds)  # fmt: skip


def test_values_are_those_of_the_head_that_serves(bank):
    bundle, tx, features = bank
    rows = recent_rows(tx, 14, 300)
    subject = subject_of(bank, rows)
    found = subject.explain(np.arange(len(rows))).found
    assert np.array_equal(
        found.decided, score_transactions(bundle, tx, rows=rows, features=features)
    )
    assert np.allclose(subject.score(subject.rows), found.decided, atol=1e-4)
    total = found.contract.base + found.values.sum(axis=1)
    assert np.abs(total - found.scores).max() <= 1e-5
    assert found.contract.unit == "log-odds"
    raised = np.argsort(found.scores)
    assert (np.diff(found.decided[raised]) >= -1e-6).all()  # calibration keeps the order


def test_pages_of_a_champion_are_whole(bank):
    bundle, tx, features = bank
    day, scores = last_day(bundle, tx, features)
    worst = day[[int(np.argmax(scores))]]
    rows = rows_around(tx, worst, known=200)
    subject = subject_of(bank, rows, review=float(scores.max()) * 0.9)
    case = collect_case(subject, int(np.searchsorted(rows, worst[0])))
    html = case_page(case, bad="fraud", good="genuine")
    assert case.reasons
    assert case.reasons[0].text in html.replace("&#39;", "'")
    assert all(
        player not in subject.fixed for player in (case.change.players if case.change else ())
    )
    assert all(e.time <= tx.time[worst[0]] for e in case.history)
    rows = recent_rows(tx, 28, 400)
    quick = ModelConfig(redraws=1, drift=DriftConfig(draws=100, least_rows=20))
    page = collect_model(subject_of(bank, rows, review=0.5), np.arange(len(rows)), quick)
    assert page.drifted is not None
    assert "amount band" in page.divisions
    assert "Drift over weeks" in model_page(page)


def test_rows_around_a_case_hold_its_history_and_known_outcomes(bank):
    _, tx, _ = bank
    case = np.array([len(tx) - 1])
    rows = rows_around(tx, case, history=5, known=50)
    first = next(iter(tx.entities.values()))
    same = np.flatnonzero(first[: case[0] + 1] == first[case[0]])[-6:]
    assert set(same) <= set(rows)
    known = (tx.label[rows] >= 0) & (tx.label_time[rows] <= tx.time[-1])
    assert known.sum() >= 40
    assert (np.diff(rows) > 0).all()


def test_recent_rows_are_of_the_last_days_and_the_same_for_a_seed(bank):
    _, tx, _ = bank
    rows = recent_rows(tx, 3, 10**9)
    days = np.unique(tx.time[rows] // DAY_MS)
    assert len(days) == 3
    assert days[-1] == tx.time[-1] // DAY_MS
    few = recent_rows(tx, 3, 20, seed=1)
    assert np.array_equal(few, recent_rows(tx, 3, 20, seed=1))
    assert len(few) == 20
    assert set(few) <= set(rows)
    assert len(recent_rows(tx, 0, 10**9)) == len(tx)


def test_keys_are_found_or_told(bank):
    _, tx, _ = bank
    ids = [str(i) for i in tx.original_ids[[7, 3]]]
    assert rows_of_keys(tx, ids).tolist() == [7, 3]
    with pytest.raises(ExplanationError, match="no event 'nobody'"):
        rows_of_keys(tx, ["nobody"])


def test_bands_of_amounts_divide_the_rows_in_quarters(bank):
    _, tx, _ = bank
    rows = np.arange(len(tx))
    bands = segments_of(tx, rows, 2)["amount band"]
    names, counts = np.unique(bands, return_counts=True)
    assert len(names) == 4
    assert counts.max() < 1.2 * len(tx) / 4
    assert len(segments_of(tx, rows[:1], 2)["amount band"]) == 1
