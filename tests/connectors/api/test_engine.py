"""The engine against the batch definition: same state, mail and scores; all kept or nothing."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from connectors.api.engine import SLICE, Asked, Engine, Row
from connectors.api.entity_states import EmbeddedState
from connectors.api.kept_answers import label_key, pack_label, unpack_answer
from connectors.api.live import LiveDecisions
from connectors.api.load_control import Level
from connectors.api.metrics import Metrics
from connectors.api.problem import Problem
from connectors.api.rules import Rules, default_rules
from connectors.api.served_model import ModelOrigin, ServedModel
from connectors.online_store import open_store, read_views
from connectors.online_store.errors import ConflictError, StoreFullError
from tasks.fraud.features import build_features, state_specs
from tasks.fraud.online.parse import OnlineLabel, parse_transaction

NOW = 1_900_000_000_000
ROWS = 1_500


class Watched:
    """An engine, and what the challenger would have seen of every answer."""

    def __init__(self, folder, bundle, *, cache_bytes=64 << 20):
        self.store = open_store(f"lmdb://{folder}?sync=second")
        self.config = bundle.config
        self.model = ServedModel(bundle, ModelOrigin("here", "fraud-demo", "7"))
        self.handed: list[bytes] = []
        self.rows: list = []
        self.metrics = Metrics()
        self.live = LiveDecisions()
        self.refuse: Exception | None = None
        self.state = EmbeddedState(
            bundle.config, self.store, cache_bytes=cache_bytes, answer_ms=86_400_000
        )
        self.engine = Engine(
            self.state,
            self.model,
            default_rules(bundle.thresholds, bundle.digest),
            hand_on=self._hand_on,
            metrics=self.metrics,
            live=self.live,
            shadow=lambda rows, scores, decisions: self.rows.append((rows, scores, decisions)),
        )

    def _hand_on(self, lines, keys):
        if self.refuse is not None:
            raise self.refuse
        self.handed += lines

    def score(self, *data, **asked):
        rows = [Row(parse_transaction(d, self.config, NOW), d, "r1") for d in data]
        return self.engine.score(rows, Asked(**asked))

    def answer(self, data, **asked):
        return json.loads(self.score(data, **asked)[0])


@pytest.fixture
def watched(bundle, tmp_path):
    made = Watched(tmp_path / "store", bundle)
    made.engine._budget.seconds = 5.0  # the machine may be busy; what is late has a file of its own
    yield made
    made.store.close()


def history(bank, rows=ROWS):
    """The bank's payments in event order, as requests, and the labels that came meanwhile."""
    config, _, tx = bank
    tx = tx.take(slice(0, rows))
    ids = {column: tx.index[tx.kinds[column]][tx.entities[column]] for column in tx.entities}
    data = [
        {
            "tx_id": int(tx.event_id[i]),
            "t": (int(tx.time[i]) - config.origin_ms) // 1000,
            "customer": str(ids["customer"][i]),
            "terminal": str(ids["terminal"][i]),
            "amount_cents": int(tx.amount[i]),
        }
        for i in range(len(tx))
    ]
    labels = [
        OnlineLabel(
            int(tx.event_id[i]),
            str(tx.event_id[i]),
            int(tx.time[i]),
            (str(ids["customer"][i]), str(ids["terminal"][i])),
            int(tx.label[i]),
            int(tx.label_time[i]),
        )
        for i in range(len(tx))
        if tx.label[i] >= 0
    ]
    return config, tx, data, labels


def replay(watched, data, labels, *, size):
    """Send a history in slices; each label comes right after its event, in no order."""
    by_event = {label.event_id: label for label in labels}
    for start in range(0, len(data), size):
        part = data[start : start + size]
        for made in watched.score(*part, explain=False):
            assert isinstance(made, bytes), made.what
        for sent in reversed(part):
            label = by_event.get(sent["tx_id"])
            if label is not None:
                key = label_key(label.event_id)
                watched.state.keep_label(label, {key: pack_label(label.label, label.label_time)})


@pytest.mark.parametrize("size", [1, SLICE])
def test_api_features_equal_batch_features(watched, bank, size):
    config, tx, data, labels = history(bank)
    replay(watched, data, labels, size=size)
    from kernels.entity_state import entity_features

    raw = np.concatenate([rows.state for rows, *_ in watched.rows])
    for place, (column, kind) in enumerate(tx.kinds.items()):
        expected, _ = entity_features(
            tx.time,
            tx.event_id,
            tx.amount,
            tx.label,
            tx.label_time,
            tx.entities[column][:, None],
            spec=state_specs(config)[kind],
            n_entities=len(tx.index[kind]),
        )
        assert np.abs(raw[:, place] - expected[:, 0]).max() <= 1e-9 * np.abs(expected).max()
        np.testing.assert_allclose(raw[:, place], expected[:, 0], rtol=1e-9)
    batch = build_features(tx, config)
    online = np.concatenate([watched.model.online.features(rows) for rows, *_ in watched.rows])
    np.testing.assert_array_equal(online, batch.values)
    scores = np.concatenate([scores for _, scores, _ in watched.rows])
    np.testing.assert_allclose(scores, watched.model.bundle.score(batch.values), atol=1e-5)
    assert raw[:, :, -5:].max() > 0, "labels must have come to count"


def test_state_survives_eviction_and_restart(bundle, bank, tmp_path):
    config, tx, data, labels = history(bank, 600)
    first = Watched(tmp_path / "store", bundle)
    replay(first, data[:300], labels, size=SLICE)
    first.store.close()
    second = Watched(tmp_path / "store", bundle)
    replay(second, data[300:], labels, size=SLICE)
    batch = build_features(tx, config).values[300:]
    online = np.concatenate([second.model.online.features(rows) for rows, *_ in second.rows])
    np.testing.assert_array_equal(online, batch)
    second.store.close()


def test_mail_and_embeddings_equal_the_batch(graph_bundle, bank, tmp_path):
    from tasks.fraud.score import GraphInputs, score_transactions

    _, tx, data, labels = history(bank, 800)
    watched = Watched(tmp_path / "store", graph_bundle)
    replay(watched, data, labels, size=1)
    features = build_features(tx, watched.config)
    expected = GraphInputs(graph_bundle, tx, features).of(np.arange(len(tx)))
    online = watched.model.online
    fed = [online.inputs(rows, online.features(rows)) for rows, *_ in watched.rows]
    for name in ("mail", "mask", "embeddings"):
        found = np.concatenate([f[name] for f in fed])
        np.testing.assert_allclose(found, expected[name], rtol=1e-6, atol=1e-6)
    assert expected["mask"].any()
    scores = np.concatenate([scores for _, scores, _ in watched.rows])
    np.testing.assert_allclose(scores, score_transactions(graph_bundle, tx), atol=1e-5)
    watched.store.close()


def test_batches_see_their_own_earlier_mail(graph_bundle, bank, tmp_path):
    _, _, data, _ = history(bank, 400)
    scores = []
    for size in (1, SLICE):
        watched = Watched(tmp_path / f"store-{size}", graph_bundle)
        replay(watched, data, [], size=size)
        scores.append(np.concatenate([s for _, s, _ in watched.rows]))
        watched.store.close()
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)


def test_an_event_is_answered_once_and_counted_once(watched, events):
    event = events()
    first = watched.score(event)[0]
    assert watched.score(event)[0] == first
    assert watched.score(event, event) == [first, first]
    one, two = watched.score(*[events(customer=event["customer"])] * 2)
    assert one == two
    views = read_views(
        watched.store, [("customer", event["customer"])], state_specs(watched.config)
    )
    from kernels.entity_state.layout import view

    section = view(views[0].block, views[0].spec)["roles"][0]
    assert int(section["events"]) == 2
    assert watched.metrics.repeated.value() == 4
    assert len(watched.handed) == 2


def test_the_same_id_for_another_event_is_a_conflict(watched, events):
    event = events()
    watched.score(event)
    problem = watched.score(event | {"amount_cents": 5})[0]
    assert isinstance(problem, Problem)
    assert (problem.status, problem.code) == (409, "id-in-use")
    other = events()
    first, second = watched.score(other, other | {"customer": "else"})
    assert isinstance(first, bytes)
    assert second.code == "id-in-use"


@pytest.mark.parametrize("where", ["hand-on", "store"])
def test_what_cannot_be_kept_is_not_counted(watched, events, monkeypatch, where):
    event = events()
    kept = watched.answer(event)
    failing = events(customer=event["customer"], terminal=event["terminal"])
    before = watched.store.read([*keys(watched, event)])
    if where == "hand-on":
        watched.refuse = StoreFullError("no room", "Free some")
    else:

        def full(*_):
            raise StoreFullError("no room", "Free some")

        monkeypatch.setattr(watched.store, "commit", full)
    with pytest.raises(Problem) as caught:
        watched.score(failing)
    assert (caught.value.status, caught.value.code) == (503, "not-kept")
    assert "retry-after" in caught.value.headers
    watched.refuse = None
    monkeypatch.undo()
    assert watched.store.read([*keys(watched, event)]) == before
    assert watched.answer(event) == kept
    fresh = watched.answer(failing)
    assert fresh["event_id"] == str(failing["tx_id"])
    raw = watched.rows[-1][0].state
    assert raw[0, 0, 0] == 2, "the failed attempt must not have counted"


def keys(watched, event):
    from connectors.online_store.view import part_keys

    for kind, spec in state_specs(watched.config).items():
        yield from part_keys(kind, event[kind], spec)


def test_a_conflict_of_commits_is_resolved_by_reading_again(watched, events, monkeypatch):
    event, real, calls = events(), watched.store.commit, []

    def once(records, answers):
        calls.append(len(records))
        if len(calls) == 1:
            raise ConflictError("changed meanwhile", "Repeat")
        real(records, answers)

    monkeypatch.setattr(watched.store, "commit", once)
    assert watched.answer(event)["decision"]
    assert len(calls) == 2
    assert watched.rows[-1][0].state[0, 0, 0] == 1


def test_what_is_left_out_is_said(watched, events):
    full = watched.answer(events())
    assert full["degraded"] == []
    assert full["model"] == {
        "name": "fraud-demo",
        "version": "7",
        "digest": watched.model.bundle.digest[:16],
        "head": "tabular",
    }
    bare = watched.answer(events(), level=Level.NO_REASONS)
    assert (bare["degraded"], bare["reasons"]) == (["no-reasons"], None)
    assert bare["model"]["head"] == "tabular"
    features_alone = watched.answer(events(), level=Level.TABULAR)
    assert features_alone["degraded"] == ["no-reasons"]
    rules = watched.answer(events(), level=Level.RULES_ONLY)
    assert rules["degraded"] == ["no-model", "no-reasons"]
    assert (rules["score"], rules["decision"]) == (None, "review")
    assert rules["model"]["head"] == "rules"
    quiet = watched.answer(events(), explain=False)
    assert (quiet["degraded"], quiet["reasons"]) == ([], None)


def test_without_time_the_network_is_left_out(graph_bundle, events, tmp_path):
    watched = Watched(tmp_path / "store", graph_bundle)
    full = watched.answer(events())
    assert (full["model"]["head"], full["degraded"]) == ("both", [])
    fallback = watched.answer(events(), level=Level.TABULAR)
    assert fallback["degraded"] == ["fallback-head", "no-reasons"]
    assert fallback["model"]["head"] == "tabular"
    watched.store.close()


def test_a_head_that_fails_gives_way_to_the_next(watched, events, monkeypatch):
    def broken(*_):
        raise RuntimeError("no more")

    heads = watched.model._fast
    monkeypatch.setattr(heads["tabular"], "score_row", broken)
    answer = watched.answer(events())
    assert answer["degraded"] == ["fallback-head"]
    assert answer["model"]["head"] == "logistic"
    monkeypatch.setattr(heads["logistic"], "score_row", broken)
    assert watched.answer(events())["degraded"] == ["no-model", "no-reasons"]


def test_only_grave_decisions_are_explained_if_so_set(watched, events):
    watched.engine._reasons_from = "review"
    watched.engine.rules = Rules("mine", 1, 1)
    answer = watched.answer(events())
    assert (answer["reasons"], answer["degraded"]) == (None, [])
    watched.engine.rules = Rules("mine", 0, 1)
    assert watched.answer(events())["reasons"] is not None


def test_reasons_that_fail_do_not_stop_the_answer(watched, events, monkeypatch):
    def broken(*_):
        raise RuntimeError("no more")

    monkeypatch.setattr(watched.model._fast["tabular"], "reasons", broken)
    assert watched.answer(events())["degraded"] == ["no-reasons"]


def test_block_lists_decide_whatever_the_score(watched, events):
    event = events()
    watched.engine.rules = Rules("mine", 2, 2, {"terminal": frozenset({event["terminal"]})})
    answer = watched.answer(event)
    assert answer["decision"] == "block"
    assert answer["rules"] == "mine"
    assert answer["reasons"][0]["code"] == "block-list/terminal"
    assert len(answer["reasons"]) <= 4
    assert watched.answer(events(terminal="free"))["decision"] == "approve"


def test_reasons_have_shares_of_one(watched, bank):
    _, _, data, labels = history(bank, 900)
    replay(watched, data[:-1], labels, size=SLICE)
    answer = watched.answer(data[-1] | {"amount_cents": 90_000})
    shares = [reason["share"] for reason in answer["reasons"]]
    assert 1 <= len(shares) <= 4
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert all(reason["text"] and reason["code"] for reason in answer["reasons"])
    assert set(answer["latency_us"]) == {"wait", "parse", "state", "features", "head", "reasons"}


def test_decisions_reach_the_page(watched, events):
    event = events()
    watched.score(event)
    newest = watched.live.recent(1)[0]
    assert newest.event == str(event["tx_id"])
    assert newest.amount == event["amount_cents"] / 100
    assert newest.entities == (event["customer"], event["terminal"])


def test_answers_are_kept_with_what_they_are_about(watched, events):
    event = events()
    body = watched.score(event)[0]
    kept = unpack_answer(watched.state.answers([event["tx_id"]])[0])
    assert kept.body == body
    assert kept.entities == (event["customer"], event["terminal"])


def test_versions_rise_with_every_change(watched, events):
    event = events()
    versions = []
    for _ in range(3):
        watched.score(events(customer=event["customer"], terminal=event["terminal"]))
        versions.append([r.version for r in watched.store.read(list(keys(watched, event)))])
    assert all(later == [v + 1 for v in earlier] for earlier, later in pairwise(versions))


def test_more_than_a_slice_is_refused(watched, events):
    with pytest.raises(ValueError, match="slice them"):
        watched.score(*[events() for _ in range(SLICE + 1)])
