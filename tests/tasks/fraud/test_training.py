"""From transactions to a bundle: folds that fit, heads, choice, calibration, ONNX equality."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from kernels.bundle.folder import BundleError
from tasks.explain.catalogue.files import from_toml, to_toml
from tasks.fraud import stages
from tasks.fraud.bundle import Bundle
from tasks.fraud.evaluation.bootstrap import JudgedScores
from tasks.fraud.evaluation.choice import choose_head
from tasks.fraud.evaluation.figures import StoredFold, figures, result_from_json, tracked_metrics
from tasks.fraud.evaluation.judge_bundle import judge_bundle
from tasks.fraud.evaluation.paired import (
    PairedRules,
    compare_folds,
    compare_paired,
    interval_of_ap,
)
from tasks.fraud.evaluation.plan import make_plan
from tasks.fraud.evaluation.protocol import FoldResult, ProtocolError
from tasks.fraud.heads import HeadError
from tasks.fraud.heads.files import head_from_dict, head_to_dict
from tasks.fraud.heads.head import Blend, Head
from tasks.fraud.online.head import FastHead
from tasks.fraud.report.inputs import explain_alerts, last_day
from tasks.fraud.score import score_transactions
from tasks.fraud.training import (
    TrainingConfig,
    TrainingError,
    calibrate,
    calibration_rows,
    judge_fold,
    training_rows,
)

CATALOGUE = """
format = 1
name = "bank"
extends = "house"
[[entry]]
code = "A"
groups = ["transaction/{}"]
customer = {{en = "Amount", zh = "金额"}}
[[entry]]
code = "N"
groups = ["all/embedding"]
customer = {{en = "Links", zh = "关联"}}
"""


def test_folds_that_do_not_fit_are_dropped_and_named(data, plan):
    tx, _, config = data
    assert [f.index for f in plan.test] == [0, 1]
    assert len(plan.validation) == 1
    assert plan.validation[0].test_end <= plan.test[-1].train_end
    many = replace(config, split=replace(config.split, folds=9, validation_folds=9))
    cut = make_plan(tx, many)
    assert len(cut.test) < 9
    assert "of 9 test folds fit" in cut.notes[0]
    assert type(plan).from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    none = replace(config, split=replace(config.split, warmup_days=45))
    with pytest.raises(ProtocolError, match=r"lower split\.warmup_days"):
        make_plan(tx, none)


def test_a_misspelt_group_of_the_catalogue_is_told_and_none_of_the_house(data, settings, caplog):
    _, features, config = data
    stages.read_words("", features, config, settings)
    written = to_toml(from_toml(CATALOGUE.format("amount")))  # what the first step hands on
    stages.read_words(written, features, config, settings)
    assert caplog.messages == []
    written = to_toml(from_toml(CATALOGUE.format("amuont")))
    for run in (settings, replace(settings, graph=False)):
        caplog.clear()
        assert stages.read_words(written, features, config, run).name == "bank"
        told = sorted(caplog.messages)
        assert "entry 'A': the model has no group 'transaction/amuont'" in told[0]
        assert ["entry 'N'" in one for one in told[1:]] == [True] * (not run.graph)


def test_every_head_is_judged_on_the_same_rows(data, plan, fitted):
    tx, features, _ = data
    judged = judge_fold(tx, features, fitted, plan.protocol)
    assert set(judged.results) == {"tabular", "logistic", "mlp", "both", "graph"}
    assert len({r.rows for r in judged.results.values()}) == 1
    assert all(len(s) == len(judged.rows) for s in judged.scores.values())
    assert (tx.time[judged.rows] >= plan.test[0].test_start).all()


def test_nothing_learnt_lies_in_or_after_the_test_days(data, plan, fitted, bundle):
    tx, _, _ = data
    fold = plan.test[0]
    assert tx.time[training_rows(tx, fold)].max() < fold.train_end
    rows = calibration_rows(tx, fold)
    assert len(rows)
    assert fold.train_end <= tx.time[rows].min() <= tx.time[rows].max() < fold.test_start
    assert bundle.manifest.trained_until == fold.test_start


def test_calibration_needs_days_between_training_and_test(data, fitted):
    tx, features, _ = data
    fold = fitted.fold
    squeezed = replace(fitted, fold=replace(fold, train_end=fold.test_start))
    assert not len(calibration_rows(tx, squeezed.fold))
    assert calibrate(tx, features, squeezed) is squeezed


@pytest.mark.parametrize("head", ["both", "tabular", "logistic", "mlp"])
def test_fast_heads_score_as_the_bundle(data, plan, fitted, bundle, head):
    tx, features, _ = data
    rows = calibration_rows(tx, plan.test[0])[-60:]
    values = np.ascontiguousarray(features.values[rows])
    feed = fitted.graph.inputs(rows) if head == "both" else {}
    fast = FastHead.load(bundle, head)
    inputs = fast.inputs(values, **feed)
    given = bundle.score(values, head=head, **feed)
    assert np.abs(fast.score(inputs) - given).max() <= 1e-6
    if head == "both":
        found = [fast.reasons(row) for row in inputs[np.argsort(-given)[:30]]]
        assert any(r.group == "all/embedding" for reasons in found for r in reasons)


def test_torch_and_onnx_scores_are_equal(data, plan, fitted, bundle):
    """Network and trees in one ONNX file score as the torch network and the trees do."""
    tx, features, _ = data
    rows = calibration_rows(tx, plan.test[0])[-300:]
    values = np.ascontiguousarray(features.values[rows])
    inputs = fitted.graph.inputs(rows)
    ours = fitted.score(features.values, rows)
    for head in ("both", "tabular", "logistic", "mlp"):
        given = bundle.score(values, head=head, **(inputs if head == "both" else {}))
        assert np.abs(given - ours[head]).max() <= 1e-5, head
    signals = bundle.signals({"features": values, **inputs})
    np.testing.assert_allclose(signals, fitted.graph.hidden(rows), atol=1e-4)
    assert bundle.needs_graph()
    assert not bundle.needs_graph("tabular")
    assert not bundle.needs_graph("mlp")
    with pytest.raises(BundleError, match="needs input 'mail'"):
        bundle.score(values)


def test_a_bundle_scores_raw_transactions(data, plan, bundle, fitted):
    tx, features, _ = data
    rows = calibration_rows(tx, plan.test[0])[-200:]
    scores = score_transactions(bundle, tx, rows=rows)
    assert np.isfinite(scores).all()
    again = score_transactions(bundle, tx, rows=rows, features=features)
    np.testing.assert_array_equal(scores, again)
    tabular = score_transactions(bundle, tx, rows=rows, head="tabular")
    expected = fitted.heads["tabular"].predict(np.ascontiguousarray(features.values[rows]))
    np.testing.assert_allclose(tabular, expected, atol=1e-5)


def test_unseen_entities_score_by_the_default(data, bundle):
    tx, _, _ = data
    names = np.array([f"new-{i}" for i in range(len(tx.index["account"]))])
    strangers = replace(tx, index={"account": names})
    rows = np.arange(len(tx) - 50, len(tx))
    scores = score_transactions(bundle, strangers, rows=rows)
    assert np.isfinite(scores).all()
    vectors = bundle.embeddings.for_transactions(strangers.take(rows))
    default = bundle.embeddings.kinds["account"].default
    assert (vectors == default).all()


def test_data_of_other_columns_is_refused(data, bundle):
    tx, features, _ = data
    renamed = replace(tx, entities={"payer": tx.entities["sender"]}, kinds={"payer": "account"})
    with pytest.raises(BundleError, match="entity column 'receiver'"):
        score_transactions(bundle, renamed)
    fewer = type(features)(features.names[:-1], features.values[:, :-1], features.categories)
    with pytest.raises(BundleError, match="not those of the model"):
        score_transactions(bundle, tx, features=fewer)
    recoded = type(features)(features.names, features.values, {"channel": ("app", "web")})
    with pytest.raises(BundleError, match="codes of categories"):
        score_transactions(bundle, tx, features=recoded)


def test_alerts_are_explained_with_the_networks_signals(data, bundle):
    tx, features, _ = data
    rows, scores = last_day(bundle, tx, features)
    assert (tx.time[rows] // 86_400_000 == tx.time[-1] // 86_400_000).all()
    alerts, reasons, strengths = explain_alerts(bundle, tx, features, rows, scores)
    assert len(alerts) == len(reasons) >= 1
    assert strengths
    assert bundle.background(signals=True).shape[1] == len(bundle.feature_names) + 2


def test_a_bundle_is_judged_by_the_protocol(data, bundle):
    tx, _, config = data
    judged = judge_bundle(bundle, tx, config)
    assert next(iter(judged["heads"])) == "both"
    assert judged["seen"] is False
    old = replace(config, split=replace(config.split, test_start="2018-05-13"))
    assert judge_bundle(bundle, tx, old)["seen"] is True


def result(ap, fold=0):
    return FoldResult(fold, "x", 10, 2, ap, 0.9, float("nan"), 0.5, ())


def test_the_head_is_chosen_on_validation_folds_alone():
    better = [{"tabular": result(0.5), "both": result(0.6), "graph": result(0.9)}]
    assert choose_head(better)[0] == "both"
    assert choose_head([{"tabular": result(0.6), "both": result(0.6)}])[0] == "tabular"
    assert choose_head([])[0] == "tabular"
    assert choose_head([{"graph": result(0.9)}])[0] == "tabular"
    assert choose_head([{"tabular": result(0.5), "mlp": result(0.9)}])[0] == "tabular"


def test_figures_hold_intervals_gains_and_survive_json(data, plan, fitted):
    tx, features, _ = data
    judged = judge_fold(tx, features, fitted, plan.protocol)
    stored = [StoredFold("test", judged.rows, judged.scores, judged.results)]
    made = figures(tx, stored, [], active="both", reason="r", rules=PairedRules(resamples=30))
    again = json.loads(json.dumps(made, allow_nan=False))
    low, high = again["test"]["both"]["ap_interval"]
    assert 0 <= low <= high <= 1
    assert set(again["gain_over_tabular"]) == {"both", "graph", "logistic", "mlp"}
    back = result_from_json(again["test_folds"]["both"][0])
    assert back.ap == judged.results["both"].ap
    assert np.isnan(back.cp)
    flat = tracked_metrics(again)
    assert flat["ap"] == flat["test.both.ap"]
    assert "gain.both.low" in flat
    assert figures(tx, [], [], active="tabular", reason="")["test"] == {}


def test_scores_of_different_folds_are_not_ranked_together():
    """Two heads that rank every fold alike are equal, however their scores are shifted."""
    rng = np.random.default_rng(1)
    parts = []
    for shift in (0.0, 30.0):
        label = (rng.random(800) < 0.1).astype(np.int8)
        score = label + rng.normal(scale=1.0, size=800)
        parts.append(JudgedScores(label, rng.integers(0, 100, 800), score + shift, score))
    found = compare_folds(parts)
    assert found.difference == found.low == found.high == 0
    low, high = interval_of_ap(parts)
    assert low < found.first < high
    assert found.rows == 1_600


def test_paired_intervals_see_what_is_better_and_refuse_nonsense():
    rng = np.random.default_rng(0)
    label = (rng.random(2_000) < 0.1).astype(np.int8)
    good = label + rng.normal(scale=0.5, size=2_000)
    poor = label + rng.normal(scale=3, size=2_000)
    unit = rng.integers(0, 300, 2_000)
    found = compare_paired(label, good, poor, unit)
    assert found.low > 0
    assert found.difference == pytest.approx(found.first - found.second)
    same = compare_paired(label, good, good, unit)
    assert (same.low, same.high) == (0, 0)
    low, high = interval_of_ap([JudgedScores(label, unit, good, good)])
    assert low < found.first < high
    for bad, message in (
        ((label[:3], good, poor, unit), "must be equal"),
        ((label, good * np.nan, poor, unit), "NaN"),
        ((label * 0, good, poor, unit), "both classes"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_paired(*bad)
    with pytest.raises(ValueError, match="at least 20"):
        PairedRules(resamples=3)
    with pytest.raises(ValueError, match="level"):
        PairedRules(level=2)


def test_heads_survive_as_json(data, fitted, plan):
    tx, features, _ = data
    rows = training_rows(tx, plan.test[0])[:200]
    values = np.ascontiguousarray(features.values[rows])
    tabular, logistic, mlp = (fitted.heads[n] for n in ("tabular", "logistic", "mlp"))
    blend = Head(Blend((tabular.scorer, logistic.scorer), (1.0, 0.3)))
    for head in (tabular, logistic, mlp, blend):
        again = head_from_dict(json.loads(json.dumps(head_to_dict(head))))
        np.testing.assert_allclose(again.predict(values), head.predict(values), atol=1e-9)
    with pytest.raises(HeadError, match="unknown kind"):
        head_from_dict({"scorer": {"kind": "magic"}, "calibration": {}})
    with pytest.raises(HeadError, match="lacks"):
        head_from_dict({"scorer": {"kind": "trees"}})
    with pytest.raises(HeadError, match="object has no JSON form"):
        head_to_dict(Head(object()))


def test_settings_are_read_and_checked(settings):
    read = TrainingConfig.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert read == settings
    for wrong, message in (
        ({"treez": {}}, "unknown training setting"),
        ({"trees": {"roundz": 1}}, "training settings"),
        ({"mlp": {"epochz": 1}}, "training settings"),
        ({"background_rows": 1}, "at least 16"),
    ):
        with pytest.raises(TrainingError, match=message):
            TrainingConfig.from_dict(wrong)
    with pytest.raises(HeadError, match=r"mlp\.hidden must list"):
        TrainingConfig.from_dict({"mlp": {"hidden": 8}})


def test_wrong_network_settings_and_one_class_are_named(data, plan, settings):
    tx, features, config = data
    wrong = replace(settings, network={"stepz": 1})
    with pytest.raises(TrainingError, match="network settings"):
        stages.fit_graph_part(tx, features, plan.test[0], config, wrong)
    honest = replace(tx, label=np.where(tx.label == 1, 0, tx.label).astype(np.int8))
    with pytest.raises(TrainingError, match="both classes are needed"):
        training_rows(honest, plan.test[0])
    off = replace(settings, graph=False)
    assert stages.fit_graph_part(tx, features, plan.test[0], config, off) is None


def test_the_networks_run_on_their_threads_with_and_without_a_graph(settings):
    import torch

    before = torch.get_num_threads()
    for graph in (True, False):
        with stages.network_threads(replace(settings, graph=graph, threads=before + 1)):
            assert torch.get_num_threads() == before + 1
        assert torch.get_num_threads() == before


def test_a_bundle_written_by_another_hand_is_still_loaded(bundle):
    assert Bundle.load(bundle.folder, digest=bundle.digest).active == "both"
