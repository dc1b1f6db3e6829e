"""Explanations in MLflow, shap's plots, rules of a subject."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from connectors.explain.plots import KINDS, write_plots
from connectors.explain.rule_files import mine_subject, write_rules
from connectors.explain.set_files import ARRAYS, read_set, write_set
from connectors.explain.tracking import log_explanations, rel_l2
from tasks.explain.background import Background
from tasks.explain.engine import ExplainOptions, PlayerExplainer
from tasks.explain.errors import ExplanationError
from tasks.explain.joined import joined
from tasks.explain.neighbours import nearest
from tasks.explain.players import Players
from tasks.explain.record import ModelName, RecordError, RowFacts, of_players
from tasks.explain.rules.mine import MineConfig
from tasks.explain.rules.model import RuleSetError
from tasks.explain.subject import Subject

NAMES = ("a", "b", "c", "d")
RNG = np.random.default_rng(0)
BACKGROUND = Background(NAMES, RNG.normal(size=(10, 4)).astype(np.float32))
ROWS = RNG.normal(size=(60, 4)).astype(np.float32)


def score(rows):
    return rows[:, 0] * rows[:, 1] + rows[:, 2]


def record(rows=ROWS, options=None, groups=None):
    players = Players.grouped(NAMES, groups or {})
    found = PlayerExplainer(score, BACKGROUND, players, options).explain(rows)
    keys = tuple(f"k{i}" for i in range(len(rows)))
    return of_players(found, players, rows, RowFacts(keys), model=ModelName("m.pt"))


def test_a_record_is_logged_with_its_figures(mlflow_uri, tmp_path):
    from mlflow import MlflowClient

    sampled = record(options=ExplainOptions(method="sampled", evaluations=2_000, seed=3))
    exact = record()
    digest = write_set(tmp_path / "set", sampled)
    page = tmp_path / "page.html"
    page.write_text("<p>")
    made = log_explanations("tiny", "explain", tmp_path / "set", digest, exact=exact, pages=[page],
                            metrics={"shap/rows_per_s": 7.0}, uri=mlflow_uri)  # fmt: skip
    client = MlflowClient(tracking_uri=mlflow_uri)
    run = client.get_run(made.run_id)
    figures = run.data.metrics
    assert figures["shap/rows_per_s"] == 7
    assert figures["shap/additivity_max"] == sampled.contract.gap
    norms = np.linalg.norm(exact.values, axis=1)
    expected = np.mean(np.linalg.norm(sampled.values - exact.values, axis=1) / norms)
    assert figures["shap/rel_l2_vs_exact"] == pytest.approx(expected)
    assert run.data.tags["explanation_sha256"] == digest
    assert run.data.tags["background_sha256"] == BACKGROUND.sha256
    assert run.data.params["seed"] == "3"
    client.download_artifacts(run.info.run_id, "explanation", str(tmp_path))
    again = read_set(tmp_path / "explanation", expected=digest)
    assert np.array_equal(again.values, sampled.values)
    names = {f.path for f in client.list_artifacts(run.info.run_id, "plots")}
    assert names == {f"plots/{kind}.png" for kind in KINDS}


def test_a_record_that_was_changed_is_not_logged(mlflow_uri, tmp_path):
    digest = write_set(tmp_path, record())
    content = bytearray((tmp_path / ARRAYS).read_bytes())
    content[-30] ^= 1
    (tmp_path / ARRAYS).write_bytes(content)
    with pytest.raises(RecordError, match="was changed"):
        log_explanations("tiny", "explain", tmp_path, digest, uri=mlflow_uri)


def test_exact_values_of_other_rows_are_refused():
    with pytest.raises(RecordError, match="other rows"):
        rel_l2(record(), record(ROWS[:5]))
    assert rel_l2(record(), record()) == 0


def picture(path):
    from matplotlib.image import imread

    return imread(path)


@pytest.mark.parametrize(
    "groups",
    [pytest.param(None, marks=pytest.mark.long), {"cd": ["c", "d"]}, {"all": list(NAMES)}],
)
def test_every_plot_of_shap_draws_something(tmp_path, groups):
    import matplotlib as mpl

    before = mpl.get_backend()
    files = write_plots(record(groups=groups), tmp_path)
    kinds = {f.stem for f in files}
    assert kinds == set(KINDS) - ({"scatter"} if groups and "all" in groups else set())
    for file in files:
        pixels = picture(file)
        assert min(pixels.shape[:2]) > 100
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 10
    assert mpl.get_backend() == before


def test_one_row_has_a_waterfall_and_a_bar(tmp_path):
    assert {f.stem for f in write_plots(record(ROWS[:1]), tmp_path)} == {"waterfall", "bar"}


def test_records_of_weeks_are_joined():
    one, two = record(ROWS[:30]), record(ROWS[30:])
    both = joined([one, two])
    assert np.array_equal(both.values, record().values)
    assert both.keys[0] == "0/k0"
    assert both.keys[-1] == "1/k29"
    other = replace(two, contract=replace(two.contract, model=ModelName("other")))
    with pytest.raises(RecordError, match="differ in model"):
        joined([one, other])
    for change, says in (
        ({"thresholds": {"block": 0.5}}, r"thresholds \(\{\} and \{'block': 0.5\}\)"),
        ({"seed": 3, "labels": tuple("wxyz")}, r"labels, seed \(None and 3\)"),
    ):
        other = replace(two, contract=replace(two.contract, **change))
        with pytest.raises(RecordError, match=f"differ in {says}: compare"):
            joined([one, other])
    with pytest.raises(RecordError, match="only some records have instants"):
        joined([one, replace(two, times=np.arange(30))])
    with pytest.raises(RecordError, match="no record"):
        joined([])


def test_like_cases_are_of_one_model_and_have_outcomes():
    case, known = record(ROWS[:1]), record(ROWS[1:9])
    known = replace(known, keys=tuple(f"n{i}" for i in range(8)))
    outcomes = np.arange(8, dtype=np.int8) % 2
    found = nearest(case, known, outcomes, count=3)
    far = np.linalg.norm(known.values - case.values[0], axis=1)
    assert [one.key for one in found] == [f"n{i}" for i in np.argsort(far)[:3]]
    other = replace(known, contract=replace(known.contract, model=ModelName("other", "2")))
    with pytest.raises(ExplanationError, match=r"differ in model \(m.pt and other version 2\)"):
        nearest(case, other, outcomes)
    with pytest.raises(ExplanationError, match=r"8 known rows are needed, got 1 cases and .*\(3,"):
        nearest(case, known, outcomes[:3])


def subject(rows, thresholds, decided=None):
    decided = score(rows) if decided is None else decided
    facts = RowFacts(tuple(map(str, range(len(rows)))), decided)
    return Subject("m", ModelName("m"), rows, facts, BACKGROUND, score, lambda *_: None, thresholds,
                   np.full(len(rows), -1, np.int8))  # fmt: skip


def test_rules_are_measured_on_the_newest_rows_alone(tmp_path):
    rows = RNG.normal(size=(4_000, 4)).astype(np.float32)
    decided = (rows[:, 2] * 3).astype(float)
    made = mine_subject(subject(rows, {"review": 3.0}, decided), np.arange(4_000), MineConfig())
    assert (made.mined, made.measured) == (2_800, 1_200)
    assert made.metrics["rules/fidelity"] > 0.98
    assert made.figures.fidelity.rows == 1_200
    files = write_rules(made, tmp_path, table="t")
    assert all(f.stat().st_size > 50 for f in files)


def test_probabilities_are_mined_as_log_odds():
    rows = RNG.normal(size=(3_000, 4)).astype(np.float32)
    decided = 1 / (1 + np.exp(-(rows[:, 2] * 4 - 6).astype(float)))
    made = mine_subject(
        subject(rows, {"review": 0.05, "block": 0.5}, decided), np.arange(3_000), MineConfig()
    )
    assert made.metrics["rules/f1"] > 0.9
    assert {r.decision for r in made.rules.rules} == {"review", "block"}


def test_one_class_and_no_threshold_are_told():
    with pytest.raises(RuleSetError, match="flags 0 of"):
        mine_subject(subject(ROWS, {"review": 99.0}), np.arange(60), MineConfig())
    with pytest.raises(ExplanationError, match="--review-at"):
        mine_subject(subject(ROWS, {}), np.arange(60), MineConfig())
