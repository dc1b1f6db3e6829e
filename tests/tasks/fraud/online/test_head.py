"""Fast heads: they score as the bundle's ONNX graphs and give the reasons of the explanations."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from kernels.bundle.folder import BundleError
from tasks.explain.background import Background
from tasks.explain.catalogue.files import from_toml, house_catalogue, to_toml
from tasks.explain.errors import AdditivityError, CatalogueError
from tasks.explain.groups import FeatureGroups
from tasks.explain.reasons import ReasonRanker, rank_reasons
from tasks.explain.wording import Wording
from tasks.fraud.bundle import BundleParts, write_bundle
from tasks.fraud.bundle.heads import OnnxHead, compose, split
from tasks.fraud.catalogue import CATALOGUE_FILE, bundle_catalogue, find_catalogue
from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.graph import SIGNALS
from tasks.fraud.heads import (
    HeadError,
    LogisticConfig,
    TreeConfig,
    fit_logistic,
    fit_trees,
)
from tasks.fraud.heads.calibration import Calibration
from tasks.fraud.heads.explain import explain_head
from tasks.fraud.heads.files import head_to_dict
from tasks.fraud.heads.head import Blend, Head
from tasks.fraud.online.head import FastHead
from tasks.fraud.online.head_parts import LinearPart, RowExplanation, forest_part
from tasks.fraud.online.model import OnlineModel

NAMES = ("amount", "night", "payer.ratio_30d", "payer.n_1d", "payer.gap", "payee.risk_7d",
         "payee.frauds_30d", "payee.ratio_7d", "channel")  # fmt: skip
ENTITIES = ("payer", "payee")
TREES = TreeConfig(rounds=20, seeds=3, min_rows=20, bins=255, floor=0.3)
WIDTH = len(NAMES)


def network() -> bytes:
    """Signals from features, mail and embeddings: an ONNX graph with the inputs of the real one."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    weights = {"a": (WIDTH, 2), "b": (5, 2), "c": (3, 2)}
    shapes = {"features": (None, WIDTH), "mail": (None, 4, 5), "embeddings": (None, 2, 3)}
    nodes = [
        helper.make_node("ReduceMean", ["mail"], ["mails"], axes=[1], keepdims=0),
        helper.make_node("ReduceMean", ["embeddings"], ["places"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["features", "a"], ["x"]),
        helper.make_node("MatMul", ["mails", "b"], ["y"]),
        helper.make_node("MatMul", ["places", "c"], ["z"]),
        helper.make_node("Sum", ["x", "y", "z"], ["total"]),
        helper.make_node("Tanh", ["total"], ["hidden"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (shapes | {"hidden": (None, 2)}).items()
    ]
    values.insert(2, helper.make_tensor_value_info("mask", TensorProto.BOOL, (None, 4)))
    constants = [
        numpy_helper.from_array(rng.normal(size=s).astype(np.float32) / 4, n)
        for n, s in weights.items()
    ]
    graph = helper.make_graph(nodes, "network", values[:-1], values[-1:], constants)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def sample(seed, n=3000):
    rng = np.random.default_rng(seed)
    x = rng.gamma(2.0, 2.0, size=(n, WIDTH)).astype(np.float32)
    x[:, 1] = rng.random(n) < 0.3
    x[:, 4] = np.where(rng.random(n) < 0.3, 1e9, x[:, 4] * 900)
    x[:, 8] = rng.integers(-1, 3, n)
    mail = {
        "mail": rng.normal(size=(n, 4, 5)).astype(np.float32),
        "mask": rng.random((n, 4)) < 0.7,
        "embeddings": rng.normal(size=(n, 2, 3)).astype(np.float32),
    }
    logit = x[:, 2] + 2 * x[:, 5] + 4 * mail["mail"].mean(axis=(1, 2)) + rng.normal(size=n) - 16
    return x, mail, (logit > 0).astype(np.int8)


def wide(x, mail):
    signals = OnnxHead("net", network()).run({"features": x, **mail}, "hidden")
    return np.concatenate([x, signals], axis=1)


@pytest.fixture(scope="module")
def heads():
    x, mail, y = sample(1)
    later, later_mail, later_y = sample(2)
    trees = fit_trees(x, y, TREES)
    logistic = fit_logistic(x, y, LogisticConfig(knots=3))
    heads = {
        "tabular": trees.calibrated(later, later_y),
        "logistic": logistic.calibrated(later, later_y),
        "mlp": Head(Blend((trees.scorer, logistic.scorer), (0.7, 0.3))),
    }
    both = fit_trees(wide(x, mail), y, TREES)
    return heads | {"both": both.calibrated(wide(later, later_mail), later_y)}


def write(folder, heads, active="both", stored=None, background=None, extras=(), **changes):
    x, mail, _ = sample(4, 16)
    graphs = {name: head.to_onnx() for name, head in heads.items()}
    graphs["both"] = compose(network(), graphs["both"])
    stored = {n: head_to_dict(h) for n, h in heads.items()} if stored is None else stored
    own, background_mail, _ = sample(5, 40)
    background = own if background is None else background
    entities = tuple(EntityColumn(e) for e in ENTITIES)
    return write_bundle(
        folder,
        BundleParts(
            config=DatasetConfig("tiny", "time", "amount", entities, categorical=("channel",)),
            feature_names=NAMES, features_version=1, heads=graphs, active=active, thresholds={},
            metrics={}, background=background, example={"features": x, **mail}, trained_until=0,
            data_digest="0" * 64, categories={"channel": ["web", "shop", "phone"]},
            background_signals=wide(background, background_mail)[:, WIDTH:],
            extras={"heads.json": json.dumps(stored).encode(), **dict(extras)}, **changes,
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle(heads, tmp_path_factory):
    return write(tmp_path_factory.mktemp("bundles") / "b", heads)


ENGINES = {"tabular": "forest", "logistic": "linear", "both": "forest", "mlp": "onnx"}


@pytest.mark.parametrize("name", ENGINES)
def test_scores_are_those_of_the_head_and_of_its_onnx_graph(bundle, heads, name):
    fast = FastHead.load(bundle, name)
    assert (fast.name, fast.engine, fast.explains) == (name, ENGINES[name], name != "mlp")
    assert fast.has_network == (name == "both")
    x, mail, _ = sample(6, 400)
    feed = mail if name == "both" else {}
    inputs = fast.inputs(x, **feed)
    assert inputs.dtype == np.float32
    found = fast.score(inputs)
    assert np.abs(found - bundle.score(x, **feed, head=name)).max() <= 1e-6
    if name != "mlp":
        np.testing.assert_allclose(found, heads[name].predict(inputs), rtol=1e-12)
    np.testing.assert_allclose([fast.score_row(row) for row in inputs], found, rtol=1e-12)
    assert fast.score(inputs[:0]).shape == (0,)


def test_the_active_head_is_the_default(bundle):
    assert FastHead.load(bundle).name == "both"
    with pytest.raises(BundleError, match="no head 'graph'"):
        FastHead.load(bundle, "graph")


@pytest.mark.parametrize("name", ["tabular", "both", "logistic"])
def test_reasons_are_those_of_the_whole_explanation(bundle, heads, name):
    fast = FastHead.load(bundle, name)
    x, mail, _ = sample(7, 150)
    inputs = fast.inputs(x, **(mail if name == "both" else {}))
    names = NAMES if name != "both" else (*NAMES, *SIGNALS)
    background = Background(names, bundle.background(signals=name == "both"))
    explanation = explain_head(heads[name], names, inputs, background)
    wording = Wording(categories={"channel": ("web", "shop", "phone")})
    wanted = rank_reasons(explanation, inputs, FeatureGroups.of(names, ENTITIES), wording=wording)
    found = [fast.reasons(row) for row in inputs]
    assert len({r.text for row in found for r in row}) > 30
    assert explanation.method == "interventional"
    for ours, theirs in zip(found, wanted, strict=True):
        assert [(r.text, r.group) for r in ours] == [(r.text, r.group) for r in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert a.contribution == pytest.approx(b.contribution, abs=1e-9)
            assert a.error > b.error  # the models' spread, and the background's
    for row, reasons, n in zip(inputs, found, range(len(found)), strict=True):
        told = fast.explain(row)
        assert list(told.reasons) == reasons
        assert told.base + sum(g.contribution for g in told.groups) == pytest.approx(told.log_odds)
        assert told.additivity_gap <= 1e-6 * (1 + abs(told.log_odds))
        sizes = [g.contribution for g in told.groups]
        assert sizes == sorted(sizes, reverse=True)
        assert told.log_odds == pytest.approx(explanation.raw_score[n], abs=1e-9)
    assert (told.method, told.background_sha256) == ("interventional", background.sha256)
    assert (told.background_rows, told.models) == (40, 1 if name == "logistic" else 3)


@pytest.mark.parametrize("name", ["tabular", "logistic"])
def test_errors_cover_what_another_background_gives(heads, name):
    """Over many backgrounds the variance of a contribution is its squared error."""
    rows, draws = sample(13, 25)[0], 60
    groups = FeatureGroups.of(NAMES, ENTITIES)
    values, squares = [], []
    for draw in range(draws):
        background = Background(NAMES, sample(100 + draw, 40)[0])
        if name == "logistic":
            part = LinearPart(heads[name].scorer, background)
        else:
            part = forest_part(head_to_dict(heads[name])["scorer"], WIDTH, background)
        fast = FastHead(name, NAMES, part, Calibration(), None, ReasonRanker(groups))
        told = [{g.group: g for g in fast.explain(row).groups} for row in rows]
        values.append([[t[key].contribution for key in groups.keys] for t in told])
        squares.append([[t[key].error ** 2 for key in groups.keys] for t in told])
    found, claimed = np.var(values, axis=0, ddof=1), np.mean(squares, axis=0)
    ratio = claimed.sum(axis=0) / found.sum(axis=0)
    # A variance of 60 draws is itself uncertain: chi square, 59 degrees of freedom, one in 10,000.
    assert (ratio > 59 / 108.0).all()
    assert claimed.sum() / found.sum() > 0.85
    if name == "logistic":  # the models' spread of trees stays where only the background changes
        assert (ratio < 59 / 26.0).all()
        assert claimed.sum() / found.sum() < 1.2


def test_an_old_bundle_without_a_background_says_how_it_explains(heads, tmp_path, caplog):
    bundle = write(tmp_path / "b", heads, active="tabular")
    files = {n: d for n, d in bundle.manifest.files.items() if n != "background.npz"}
    old = copy(bundle)
    old.manifest = replace(bundle.manifest, files=files)
    fast = FastHead.load(old)
    told = fast.explain(sample(14, 1)[0][0])
    assert (told.method, told.background_sha256, told.background_rows) == ("path", "", 0)
    assert "has no background" in caplog.text
    linear = FastHead.load(old, "logistic")
    assert (linear.engine, linear.explains) == ("onnx", False)


def test_trees_that_cannot_be_explained_against_a_background_say_so(bundle, monkeypatch, caplog):
    monkeypatch.setattr("kernels.forest.interventional.InterventionalForest._most_states", 0)
    monkeypatch.setattr("kernels.forest.backgrounds.WORD_FEATURES", 0)
    fast = FastHead.load(bundle, "tabular")
    assert fast.explain(sample(14, 1)[0][0]).method == "path"
    assert "not with the background: a path tests" in caplog.text


def test_errors_of_large_trees_take_few_rows_and_hardly_differ(heads, monkeypatch):
    stored = head_to_dict(heads["tabular"])["scorer"]
    background = Background(NAMES, sample(15, 64)[0])
    whole = forest_part(stored, WIDTH, background).covariance
    monkeypatch.setattr("kernels.forest.interventional.InterventionalForest._most_states", 0)
    few = forest_part(stored, WIDTH, background).covariance
    assert not np.array_equal(few, whole)
    assert np.trace(few) == pytest.approx(np.trace(whole), rel=0.3)


def test_errors_without_room_leave_the_background_out_and_say_so(bundle, monkeypatch, caplog):
    monkeypatch.setattr("kernels.forest.interventional.InterventionalForest._most_states", 0)
    monkeypatch.setattr("tasks.fraud.online.head_parts._ROOM", 64)
    fast = FastHead.load(bundle, "tabular")
    told = fast.explain(sample(14, 1)[0][0])
    assert told.method == "interventional"
    assert "leave out what another background would do" in caplog.text


def test_reasons_have_the_codes_of_the_catalogue_and_its_words_in_either_language(bundle):
    english, chinese = (FastHead.load(bundle, "tabular", language=lang) for lang in ("en", "zh"))
    for row in sample(7, 40)[0]:
        pairs = list(zip(english.reasons(row), chinese.reasons(row), strict=True))
        assert [a.code for a, _ in pairs] == [b.code for _, b in pairs]
        assert all(a.code in english.catalogue.codes for a, _ in pairs)
        assert all(a.text.isascii() and not b.text.isascii() for a, b in pairs)


OWN = """
format = 1
name = "bank"
extends = "house"
[[entry]]
code = "P1"
groups = ["payee/labels"]
[entry.customer]
en = "History of the {who}"
zh = "{who}的历史"
[entry.analyst]
en = "history of the {who}: {value}"
zh = "{who}的历史：{value}"
[[entry]]
code = "C1"
groups = ["transaction/channel"]
[entry.customer]
en = "Way of paying"
zh = "支付渠道"
[entry.analyst]
en = "paid by {value}"
zh = "支付渠道为{value}"
"""


def test_the_catalogue_in_a_bundle_words_its_reasons(heads, tmp_path):
    catalogue = from_toml(OWN)
    extras = {CATALOGUE_FILE: to_toml(catalogue).encode()}
    bundle = write(tmp_path / "b", heads, active="tabular", extras=extras)
    assert bundle_catalogue(bundle) == catalogue
    fast = FastHead.load(bundle)
    assert fast.catalogue.catalogue == catalogue
    assert fast.catalogue.without_entry == ()
    found = [r for row in sample(7, 60)[0] for r in fast.reasons(row) if r.group == "payee/labels"]
    assert {r.code for r in found} == {"P1"}
    assert all(r.text.startswith("history of the payee: ") for r in found)
    house = FastHead.load(bundle, catalogue=house_catalogue())
    assert house.catalogue.without_entry == ("transaction/channel",)


def test_a_head_that_scores_what_the_catalogue_prohibits_does_not_load(bundle):
    before, _, entry = OWN.partition('code = "C1"')
    text = before + 'code = "C1"' + entry.partition("[entry.customer]")[0] + "prohibited = true"
    with pytest.raises(CatalogueError, match="the model scores channel"):
        FastHead.load(bundle, "tabular", catalogue=from_toml(text))


def test_a_catalogue_stands_beside_the_dataset_config(tmp_path):
    config = tmp_path / "bank.toml"
    assert find_catalogue(str(config)) is find_catalogue("handbook") is None
    (tmp_path / "bank.catalogue.toml").write_text(OWN, encoding="utf-8")
    assert find_catalogue(str(config)) == from_toml(OWN)


def test_a_head_without_exact_contributions_gives_no_reasons(bundle):
    fast = FastHead.load(bundle, "mlp")
    assert not fast.explains
    with pytest.raises(HeadError, match="no exact contributions"):
        fast.reasons(sample(8, 1)[0][0])


def test_reasons_that_miss_the_score_are_an_error(bundle, monkeypatch):
    fast = FastHead.load(bundle, "tabular")
    row = sample(8, 1)[0][0]
    logit, base, values = fast._part.explain_row(row)
    monkeypatch.setattr(
        type(fast._part),
        "explain_row",
        lambda *_: RowExplanation(logit + 0.1, base, values),
    )
    with pytest.raises(AdditivityError, match=r"misses the score by 0\.1"):
        fast.reasons(row)
    with pytest.raises(BundleError, match="head 'tabular': the explanation misses the score"):
        FastHead.load(bundle, "tabular")  # such a model is not served


@pytest.mark.parametrize("name", ENGINES)
def test_rows_that_do_not_fit_are_refused(bundle, name):
    fast = FastHead.load(bundle, name)
    row = np.ones(len(fast.names), np.float32)
    calls = [fast.score_row] + [fast.reasons] * fast.explains
    calls += [lambda r: fast.score(np.tile(r, (20, 1)))]
    for call in calls:
        with pytest.raises(HeadError, match="features have shape"):
            call(row[1:])
        bad = row.copy()
        bad[2] = np.nan
        with pytest.raises(HeadError, match="feature 2 holds NaN"):
            call(bad)


def test_the_network_asks_for_its_inputs(bundle):
    fast = FastHead.load(bundle)
    x, mail, _ = sample(9, 5)
    with pytest.raises(BundleError, match="needs input 'mail'"):
        fast.inputs(x)
    with pytest.raises(BundleError, match="'embeddings' has shape"):
        fast.inputs(x, **(mail | {"embeddings": mail["embeddings"][:, :1]}))


def test_a_head_with_a_network_is_checked_where_the_example_has_no_mail(heads, tmp_path):
    bundle = write(tmp_path / "b", heads, active="tabular")
    assert set(bundle.example()[0]) == {"features"}
    x, mail, _ = sample(10, 50)
    fast = FastHead.load(bundle, "both")
    found = fast.score(fast.inputs(x, **mail))
    assert np.abs(found - bundle.score(x, **mail, head="both")).max() <= 1e-6


def test_a_blend_on_a_network_is_parted_too(heads, tmp_path):
    """Kinds that are unknown here are scored by ONNX Runtime behind the network."""
    stored = {"both": head_to_dict(heads["both"])}
    stored["both"]["scorer"] = {"kind": "blend", "parts": [], "weights": []}
    bundle = write(tmp_path / "b", heads, stored=stored)
    x, mail, _ = sample(11, 50)
    for name in ("both", "tabular"):
        fast = FastHead.load(bundle, name)
        assert fast.engine == "onnx"
        feed = mail if name == "both" else {}
        found = fast.score(fast.inputs(x, **feed))
        assert np.abs(found - bundle.score(x, **feed, head=name)).max() <= 1e-6


def test_bundles_without_json_heads_are_scored_by_onnx(small_bundle, tmp_path):
    bundle = small_bundle(tmp_path / "b")
    fast = FastHead.load(bundle)
    rows = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    assert fast.engine == "onnx"
    np.testing.assert_allclose(fast.score(rows), bundle.score(rows), atol=1e-7)


def other_calibration(stored):
    stored["tabular"]["calibration"]["c"] += 0.01


def other_trees(stored):
    stored["tabular"]["scorer"]["models"] = stored["both"]["scorer"]["models"]


def no_scorer(stored):
    del stored["tabular"]["scorer"]


def no_models(stored):
    del stored["tabular"]["scorer"]["models"]


def strange_calibration(stored):
    stored["tabular"]["calibration"]["d"] = 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (other_calibration, "away from its ONNX graph"),
        (other_trees, "a tree model reads 11 inputs, the bundle gives 9"),
        (no_scorer, "'scorer'"),
        (no_models, "'models'"),
        (strange_calibration, "'d'"),
    ],
)
def test_a_stored_head_that_is_not_the_onnx_graph_is_refused(heads, tmp_path, damage, reason):
    stored = {name: head_to_dict(head) for name, head in heads.items()}
    damage(stored)
    bundle = write(tmp_path / "b", heads, stored=stored)
    assert FastHead.load(bundle, "both").engine == "forest"
    with pytest.raises(BundleError, match=reason):
        FastHead.load(bundle, "tabular")


def test_heads_json_without_heads_is_refused(heads, tmp_path):
    with pytest.raises(BundleError, match="holds no heads"):
        FastHead.load(write(tmp_path / "b", heads, stored=[]))


def test_a_composed_graph_is_parted_into_what_it_was_made_of(heads):
    parts = split(compose(network(), heads["both"].to_onnx()))
    net, last = (OnnxHead("part", part) for part in parts)
    assert set(net.inputs) == {"features", "mail", "embeddings"}
    assert tuple(last.inputs) == ("features",)
    x, mail, _ = sample(12, 30)
    signals = net.run({"features": x, **mail}, "signals")
    np.testing.assert_array_equal(signals, wide(x, mail)[:, WIDTH:])
    with pytest.raises(BundleError, match="cannot be parted"):
        split(network())


def test_a_model_that_only_scores_makes_no_explanation_ready(bundle):
    model = OnlineModel(bundle)
    head = model.head("tabular")
    head.score(sample(14, 3)[0])
    assert "_against" not in vars(head._part)
    row = sample(14, 1)[0][0]
    assert head.explain(row) == FastHead.load(bundle, "tabular").explain(row)
