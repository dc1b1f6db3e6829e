"""The graph part on small generated data: fit, signals, embeddings, export, resume, bad rows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kernels.runtime.callbacks import History
from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.derive import event_names
from tasks.fraud.evaluation.protocol import DAY_MS, Fold
from tasks.fraud.features import FeatureSet, build_features
from tasks.fraud.graph import (
    GraphError,
    GraphSettings,
    embed_entities,
    fit_graph,
    fit_graph_rows,
)
from tasks.fraud.graph.entity_training import EntitySettings
from tasks.fraud.graph.mail import Mailboxes, MailError, mail_layout
from tasks.fraud.graph.snapshots import EntityGraph, SnapshotConfig
from tasks.fraud.ingest.checks import check
from tasks.fraud.simulate import TransfersConfig, simulate_transfers

DATASETS = Path(__file__).resolve().parents[4] / "tasks" / "fraud" / "datasets"
SMALL = GraphSettings(
    steps=40,
    batch=64,
    negatives=7,
    hidden=8,
    folds=2,
    entities=EntitySettings(steps=4, events=64, hidden=8, embedding=4),
)


@pytest.fixture(scope="module")
def data():
    config = DatasetConfig.from_toml(DATASETS / "transfers.toml")
    network = TransfersConfig(accounts=120, days=60, rings=10, seed=2)
    tx = check(pa.Table.from_batches(simulate_transfers(network)), config, "x").transactions
    return tx, build_features(tx, config), config


@pytest.fixture(scope="module")
def fold(data):
    tx, _, _ = data
    start = int(tx.time[0] // DAY_MS * DAY_MS)
    ends = {name: start + d * DAY_MS for name, d in (("train_end", 45), ("test_start", 52))}
    return Fold(0, start + 20 * DAY_MS, **ends, test_end=start + 60 * DAY_MS, known_start=start,
                delay=7 * DAY_MS)  # fmt: skip


@pytest.fixture(scope="module")
def fitted(data, fold):
    tx, features, config = data
    heard = defaultdict(History)
    part = fit_graph(tx, features, fold, config, settings=SMALL, listen=lambda loop: [heard[loop]])
    return part, heard


def test_every_loop_reports_and_the_net_learns(fitted, fold, data):
    part, heard = fitted
    names = {"graph.net", "block0.net", "block1.net", "alone.net"}
    encoders = {"graph.encoder", "block0.encoder", "block1.encoder"}
    assert set(heard) == names | encoders
    assert {len(heard[name].steps) for name in names} == {SMALL.steps}
    assert {len(heard[name].steps) for name in encoders} == {SMALL.entities.steps}
    losses = [m.loss for m in heard["graph.net"].steps]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert np.array_equal(part.train_rows, fold.train_rows(data[0]))


def test_the_graph_part_alone_knows_mail_and_embeddings_but_no_entity_state(fitted, data):
    part, _ = fitted
    tx, features, _ = data
    rows = np.arange(len(tx) - 400, len(tx))
    probability = part.predict(rows)
    assert ((probability > 0) & (probability < 1)).all()
    assert part.alone.net.config.features == len(event_names())
    mixed = FeatureSet(features.names, features.values.copy())
    mixed.values[:, len(event_names()) :] += 1.0
    history, signals = part._history, part.hidden(rows)
    part._history = replace(history, features=mixed)
    assert np.array_equal(part.predict(rows), probability)
    assert not np.allclose(part.hidden(rows), signals)
    part._history = history
    with pytest.raises(GraphError, match=r"network\.alone"):
        fit_graph_rows(
            *data, part.train_rows, settings=replace(SMALL, alone=False, steps=1)
        ).predict(rows)


def test_training_rows_get_out_of_fold_signals_and_others_those_of_the_net(fitted, data):
    part, _ = fitted
    tx, features, _ = data
    rows = np.concatenate([part.train_rows[5:8], np.arange(len(tx) - 4, len(tx))])
    signals = part.hidden(rows)
    assert np.array_equal(signals[:3], part.out_of_fold[5:8])
    own = part.represent(tx, features, rows)
    np.testing.assert_allclose(signals[3:], own[3:], atol=1e-5)
    assert not np.allclose(signals[:3], own[:3])
    knee = float(part.net.get_buffer("knee"))
    np.testing.assert_allclose(signals[:, 1], np.maximum(signals[:, 0] - knee, 0), atol=1e-5)
    above = (part.out_of_fold[:, 1] > 0).mean()
    assert above == pytest.approx(0.02, abs=0.005)


def test_inputs_have_the_shapes_of_the_contract(fitted, data):
    part, _ = fitted
    rows = np.arange(500, 530)
    given = part.inputs(rows)
    assert given["mail"].shape == (30, 4 * 8, 3 + 8)
    assert given["mask"].shape == (30, 32)
    assert given["mask"].dtype == np.bool_
    assert given["embeddings"].shape == (30, 2, 4)
    mail, mask = Mailboxes(data[0], data[1], mail_layout(data[2]))(rows)
    assert np.array_equal(mail, given["mail"])
    assert np.array_equal(mask, given["mask"])


def test_onnx_scores_equal_torch_scores(fitted, data):
    import onnxruntime

    part, _ = fitted
    rows = np.arange(len(data[0]) - 50, len(data[0]))
    session = onnxruntime.InferenceSession(part.to_onnx())
    feed = {"features": data[1].values[rows], **part.inputs(rows)}
    found = session.run(None, feed)[0]
    np.testing.assert_allclose(found, part.hidden(rows), atol=1e-5)


def test_embeddings_cover_the_seen(fitted, data):
    part, _ = fitted
    tx, _, config = data
    shipped = part.embeddings().kinds["account"]
    assert shipped.vectors.shape == (len(shipped.ids), 4)
    early = embed_entities(part.model.encoder, tx, EntityGraph(tx, config), int(tx.time[30]))
    assert 0 < len(early.kinds["account"].ids) < len(shipped.ids)


def test_weights_are_kept_whole(fitted):
    from safetensors.torch import load

    part, _ = fitted
    kept = load(part.to_safetensors())
    parts = {"net": part.net, "encoder": part.model.encoder}
    wanted = {f"{p}.{k}": v for p, module in parts.items() for k, v in module.state_dict().items()}
    assert set(kept) == set(wanted)
    assert all((kept[name] == value).all() for name, value in wanted.items())


def test_a_killed_fit_continues_to_the_same_signals(data, fitted, tmp_path):
    tx, features, config = data
    part, _ = fitted

    class Stop:
        def on_step(self, metrics):
            if metrics.step == 25:
                raise KeyboardInterrupt

    arguments = (tx, features, config, part.train_rows)

    def stopping(loop):
        return [Stop()] if loop == "graph.net" else []

    with pytest.raises(KeyboardInterrupt):
        fit_graph_rows(*arguments, settings=SMALL, listen=stopping, checkpoint_dir=tmp_path)
    heard = defaultdict(History)
    again = fit_graph_rows(
        *arguments, settings=SMALL, listen=lambda loop: [heard[loop]], checkpoint_dir=tmp_path
    )
    assert not heard["block0.net"].steps
    assert heard["graph.net"].steps[0].step == 21
    assert np.array_equal(again.out_of_fold, part.out_of_fold)
    rows = np.arange(len(tx) - 40, len(tx))
    assert np.array_equal(again.hidden(rows), part.hidden(rows))
    assert again.as_of == tx.time[part.train_rows[-1]]


def test_rows_that_cannot_be_cross_fitted_are_refused(data):
    tx, features, config = data
    order = np.argsort(tx.label[:4_000], kind="stable")  # the frauds at the end, one after another
    bunched = replace(tx.take(slice(0, 4_000)), label=tx.label[:4_000][order])
    with pytest.raises(GraphError, match="follow each other"):
        fit_graph_rows(bunched, features, config, np.arange(4_000, dtype=np.intp), settings=SMALL)
    clean = np.flatnonzero(tx.label == 0)[:500]
    one = np.sort(np.append(clean, np.flatnonzero(tx.label == 1)[0]))
    for rows in (clean, one):
        with pytest.raises(GraphError, match="at least 2 frauds"):
            fit_graph_rows(tx, features, config, rows, settings=SMALL)
    hidden = replace(tx, label=np.full_like(tx.label, -1))
    with pytest.raises(GraphError, match="unlabelled"):
        fit_graph_rows(hidden, features, config, clean, settings=SMALL)
    for wrong in ({"folds": 1}, {"negatives": 0}, {"batch": 1}):
        with pytest.raises(GraphError, match="at least 2"):
            GraphSettings(**wrong)


@pytest.mark.parametrize(
    "columns", [("sender",), ("sender", "receiver"), ("sender", "receiver", "x")]
)
def test_one_two_or_three_entity_columns_fit(data, columns):
    tx, _, config = data
    rng = np.random.default_rng(0)
    entities = dict(tx.entities) | {"x": rng.integers(0, 9, len(tx)).astype(np.int32)}
    kinds = dict(tx.kinds) | {"x": "device"}
    index = dict(tx.index) | {"device": np.array([f"d{i}" for i in range(9)])}
    tx = replace(
        tx,
        entities={c: entities[c] for c in columns},
        kinds={c: kinds[c] for c in columns},
        index={k: index[k] for k in {kinds[c] for c in columns}},
    )
    config = replace(config, entities=tuple(EntityColumn(c, kinds[c]) for c in columns))
    features = build_features(tx, config)
    few = replace(SMALL, steps=2, entities=replace(SMALL.entities, steps=2))
    rows = np.arange(1000, 4000)
    part = fit_graph_rows(tx, features, config, rows, settings=few)
    assert np.isfinite(part.hidden(np.arange(len(tx) - 9, len(tx)))).all()
    layout = mail_layout(config)
    groups = {1: 1, 2: 4, 3: 5}[len(columns)]
    assert layout.groups == groups
    assert part.inputs(rows[:2])["mail"].shape[1] == groups * 8
    assert set(part.embeddings().kinds) == {kinds[c] for c in columns}


def test_without_embeddings_the_net_reads_mail_alone(data):
    tx, features, config = data
    plain = replace(SMALL, steps=2, entities=replace(SMALL.entities, embedding=0))
    part = fit_graph_rows(tx, features, config, np.arange(1000, 4000), settings=plain)
    assert part.model.encoder is None
    assert part.inputs(np.arange(3))["embeddings"].shape == (3, 2, 0)
    assert part.embeddings().kinds["account"].vectors.shape[1] == 0


def test_mail_matches_say_who_met_before(data):
    """A transfer back to an account that has just paid sees its mail as a match."""
    tx, features, config = data
    boxes = Mailboxes(tx, features, mail_layout(config))
    rows = np.arange(2000, len(tx))
    mail, mask = boxes(rows)
    matched = (mail[..., 2] > 0) & mask
    sent = matched[:, :8]  # section 0: what the sender sent before
    index = boxes.index(rows)[:, 0]
    same = tx.entities["receiver"][index] == tx.entities["receiver"][rows][:, None]
    assert np.array_equal(sent, same & (index >= 0))
    assert sent.any()


def test_mail_needs_the_features_it_carries(data):
    tx, features, config = data
    poor = replace(features, names=tuple(f"_{n}" for n in features.names))
    with pytest.raises(MailError, match="build_features"):
        Mailboxes(tx, poor, mail_layout(config))


def test_snapshots_hold_what_is_known_then(data):
    tx, _, config = data
    graph = EntityGraph(tx, config, SnapshotConfig(fan_out=3))
    instant = int(graph.instant(tx.time[-1:])[0])
    assert instant % (7 * DAY_MS) == 0
    assert instant <= tx.time[-1]
    snapshot = graph.snapshot(instant)
    assert snapshot["account"].x.shape == (len(tx.index["account"]), 14)
    edges = snapshot["account", "receiver_to_sender", "account"]
    assert np.bincount(edges.edge_index[1].numpy()).max() == 3
    assert (edges.edge_attr[:, 0] >= 0).all()
    empty = graph.snapshot(int(tx.time[0]))
    assert empty["account", "receiver_to_sender", "account"].edge_index.shape == (2, 0)
    frauds = np.expm1(snapshot["account"].x[:, 4].numpy())
    usable = (tx.label == 1) & (tx.label_time <= instant) & (tx.time >= instant - 37 * DAY_MS)
    expected = np.bincount(tx.entities["sender"][usable], minlength=len(frauds))
    np.testing.assert_allclose(frauds, expected, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SnapshotConfig(every=0),
        lambda: EntitySettings(steps=0),
        lambda: EntitySettings(fraud_share=1.0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError, match="must"):
        make()
