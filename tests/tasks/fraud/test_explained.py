"""A fraud bundle as a subject: values of the head that serves, rows that pages need."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save

from kernels.bundle.folder import BundleError
from tasks.explain.catalogue.files import from_toml
from tasks.explain.drift import DriftConfig
from tasks.explain.errors import ExplanationError
from tasks.explain.record import ModelName
from tasks.explain_report.case import collect_case
from tasks.explain_report.model import ModelConfig, collect_model
from tasks.explain_report.render import case_page, model_page
from tasks.fraud.explained import (
    fraud_subject,
    recent_rows,
    rows_around,
    rows_of_keys,
    segments_of,
)
from tasks.fraud.graph import SIGNALS
from tasks.fraud.graph.served import WEIGHTS, read_net
from tasks.fraud.report.inputs import last_day
from tasks.fraud.score import score_transactions

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def bank(written, data):
    return written("tabular"), data[0], data[1]


@pytest.fixture(scope="module")
def linked(bundle, data):
    """A bank whose champion reads a graph network."""
    return bundle, data[0], data[1]


def subject_of(bank, rows, **thresholds):
    bundle, tx, features = bank
    return fraud_subject(bundle, tx, features, rows, model=ModelName("fraud-x", "1", bundle.digest),
                         thresholds=thresholds)  # fmt: skip


def test_a_misspelt_group_of_a_catalogue_is_told(bank, caplog):
    bundle, tx, features = bank
    text = 'format = 1\nname = "b"\nextends = "house"\n[[entry]]\ncode = "A"\n'
    text += 'groups = ["transaction/nihgt"]\nprohibited = true\n'
    fraud_subject(bundle, tx, features, recent_rows(tx, 1, 5), model=ModelName("x"), thresholds={},
                  words=(from_toml(text), "en"))  # fmt: skip
    (told,) = [message for message in caplog.messages if "catalogue" in message]
    assert "entry 'A' prohibits 'transaction/nihgt', which the model does not have" in told


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


def test_what_a_graph_network_says_is_explained_beneath(linked):
    bundle, tx, _ = linked
    rows = recent_rows(tx, 5, 40)
    subject = subject_of(linked, rows, review=0.5)
    read = subject.rows[:, len(bundle.feature_names) + SIGNALS.index("graph.logit")]
    for place in (0, 7, len(rows) - 1):
        one = subject.beneath(place)
        assert one.player == "graph network"
        assert one.player in subject.explain(np.array([place])).found.contract.labels
        assert one.found.base + one.found.values.sum() == pytest.approx(read[place], abs=1e-4)
        assert all(value > 0 for _, value in one.raising)
    case = collect_case(subject, 7)
    html = case_page(case)
    assert "Inside: graph network" in html
    assert any(" UTC)" in step.label for step in case.beneath_steps)
    total = case.beneath.found.base + sum(step.value for step in case.beneath_steps)
    assert total == pytest.approx(read[7], abs=1e-4)


def test_the_explanation_beneath_does_not_depend_on_the_rows_beside_it(linked):
    _, tx, _ = linked
    rows = recent_rows(tx, 5, 40)
    wide, narrow = subject_of(linked, rows), subject_of(linked, rows[7:9])
    assert np.array_equal(wide.beneath(7).found.values, narrow.beneath(0).found.values)


def test_trees_alone_have_nothing_beneath(bank):
    _, tx, _ = bank
    subject = subject_of(bank, recent_rows(tx, 3, 20))
    assert subject.beneath is None
    assert "Inside: " not in case_page(collect_case(subject, 0))


def test_a_network_that_contradicts_the_bundle_is_refused(linked, monkeypatch):
    bundle, tx, _ = linked
    subject = subject_of(linked, recent_rows(tx, 3, 20))
    other = read_net(bundle)
    other.set_knee(0.0)
    other.get_buffer("prior").add_(1.0)
    monkeypatch.setattr("tasks.fraud.graph.served.read_net", lambda _: other)
    with pytest.raises(ExplanationError, match="contradicts itself"):
        subject.beneath(0)


@pytest.mark.parametrize("content", [b"nothing of the kind", save({"net.odds": torch.zeros(2)})])
def test_weights_that_hold_no_net_are_told(tmp_path, content):
    (tmp_path / WEIGHTS).write_bytes(content)
    bundle = SimpleNamespace(folder=tmp_path, read_extra=lambda _: content)
    with pytest.raises(BundleError, match="holds no graph net"):
        read_net(bundle)
