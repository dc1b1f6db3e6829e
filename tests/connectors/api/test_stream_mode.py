"""Mode stream: read what a writer wrote, see own events meanwhile, lose none on the way."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer

from connectors.api.entity_states import EmbeddedState, StreamState, Touched
from connectors.api.journal import JournalFullError
from connectors.api.metrics import Metrics
from connectors.api.outbox import Outbox, kafka_producer
from connectors.online_store import open_store
from kernels.entity_state.keys import entity_key
from tasks.fraud.dataset import find_config
from tests.connectors.api.conftest import SECRETS

TOPIC = "penstock.demo.transactions"
WORDS = 4


@pytest.fixture(scope="module")
def broker():
    """Address of a broker inside this process, as librdkafka simulates it over real sockets."""
    cluster = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1})
    deadline = time.monotonic() + 20
    while True:
        brokers = cluster.list_topics(timeout=5).brokers
        if brokers:
            break
        assert time.monotonic() < deadline
    found = next(iter(brokers.values()))
    yield f"{found.host}:{found.port}"
    cluster.flush(1)


def received(broker, topic, at_least, seconds=30.0):
    """Return the (key, value) pairs of a topic, from its beginning."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": f"{time.time_ns()}",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    found, deadline = [], time.monotonic() + seconds
    while len(found) < at_least and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            found.append((message.key(), message.value()))
    consumer.close()
    return found


def deliver(outbox, seconds=20.0):
    deadline = time.monotonic() + seconds
    while outbox.undelivered and time.monotonic() < deadline:
        outbox.tick()
        time.sleep(0.01)
    assert outbox.undelivered == 0


def outbox_of(folder, broker, max_bytes=1 << 20):
    return Outbox(folder, kafka_producer(broker), Metrics(), max_bytes=max_bytes)


def test_events_are_delivered_and_their_files_go(tmp_path, broker):
    outbox = outbox_of(tmp_path, broker)
    outbox.append("delivered", [b'{"a":1}', b'{"a":"\xc3\xa9"}'], ["c1", "c\u00e9"])
    deliver(outbox)
    outbox.close()
    assert list(tmp_path.iterdir()) == []
    assert sorted(received(broker, "delivered", 2)) == [
        (b"c1", b'{"a":1}'),
        ("c\u00e9".encode(), b'{"a":"\xc3\xa9"}'),
    ]


def test_what_a_killed_process_left_is_sent_by_the_next(tmp_path, broker):
    lost = outbox_of(tmp_path, "127.0.0.1:1")  # nobody answers there
    lost.append("left", [b"1", b"2"], ["a", "b"])
    lost.append("left", [b"3"], ["c"])
    del lost
    [file] = tmp_path.iterdir()
    with file.open("ab") as handle:
        handle.write(b'["left","d","half of a li')
    outbox = outbox_of(tmp_path, broker)
    assert outbox.undelivered == 3
    deliver(outbox)
    outbox.close()
    assert list(tmp_path.iterdir()) == []
    assert sorted(received(broker, "left", 3)) == [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]


def test_what_was_delivered_before_a_kill_is_not_sent_again(tmp_path, broker):
    killed = outbox_of(tmp_path, broker)
    killed.append("once", [b"1", b"2"], ["a", "b"])
    deliver(killed)
    killed.tick()
    killed._producer.flush(5)
    [file] = tmp_path.glob("*.outbox")
    with file.open("ab") as handle:  # accepted, but never handed to the client
        handle.write(b'["once","c","3"]\n')
    del killed
    outbox = outbox_of(tmp_path, broker)
    assert outbox.undelivered == 1
    deliver(outbox)
    outbox.close()
    assert list(tmp_path.iterdir()) == []
    found = received(broker, "once", 4, seconds=5.0)
    assert sorted(found) == [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]


def test_a_mark_of_another_file_hides_no_event(tmp_path, broker):
    """Left by a removal that was cut short; the number is used again."""
    (tmp_path / "000000000001.delivered").write_bytes((4_000_000).to_bytes(8, "little"))
    killed = outbox_of(tmp_path, "127.0.0.1:1")
    killed.append("marked", [b"1"], ["a"])
    del killed
    [file] = tmp_path.glob("*.outbox")
    for wrong in (4_000_000, 3):  # beyond the file, and inside a line
        file.with_suffix(".delivered").write_bytes(wrong.to_bytes(8, "little"))
        again = outbox_of(tmp_path, "127.0.0.1:1")
        assert again.undelivered == 1
        del again
    outbox = outbox_of(tmp_path, broker)
    deliver(outbox)
    outbox.close()
    assert list(tmp_path.iterdir()) == []


def test_a_broker_that_stays_away_stops_the_intake_at_a_limit(tmp_path):
    outbox = outbox_of(tmp_path, "127.0.0.1:1", max_bytes=1_000)
    for _ in range(8):
        outbox.append("away", [b"x" * 90], ["k"])
    with pytest.raises(JournalFullError, match="wait for Kafka"):
        outbox.append("away", [b"x" * 90] * 8, ["k"] * 8)
    assert outbox.undelivered == 8
    outbox.close(0.1)


@pytest.fixture
def stores(tmp_path):
    """The state as a stream writes it, and as an API beside it sees it."""
    config = find_config("demo")
    writing = open_store(f"lmdb://{tmp_path / 'store'}?sync=second")
    stream = EmbeddedState(config, writing, cache_bytes=0, answer_ms=1_000)
    kept = open_store(f"lmdb://{tmp_path / 'kept'}?sync=second")
    api = StreamState(config, writing, kept, overlay_seconds=60.0, answer_ms=60_000)
    yield stream, api
    for store in (kept, writing):
        store.close()


def touched(i, customer="c", terminal="t"):
    keys = (entity_key("customer", customer), entity_key("terminal", terminal))
    vector = np.arange(WORDS, dtype=np.int64) + i
    return Touched(i, 1_700_000_000_000 + i * 1000, 100 + i, (customer, terminal), keys, vector)


def accept(state, event):
    """Count an event as the engine does."""
    entities = [(c.kind, e) for c, e in zip(state.columns, event.entities, strict=True)]
    slots = state.fetch(entities)
    for place, column in enumerate(state.columns):
        slot, other = slots[entities[place]], (place + 1) % 2
        column.blocks.apply(slot, column.role, event.event_id, event.time, event.amount)
        column.blocks.deposit(
            slot, column.role, event.time, event.amount, event.keys[other], other, event.vector
        )
    state.finish([event], {event.event_id: b"answer"})


def block(state, kind="customer", entity="c"):
    slot = state.fetch([(kind, entity)])[kind, entity]
    blocks = next(c.blocks for c in state.columns if c.kind == kind)
    raw = blocks.block(slot).copy()
    raw[16:24] = 0  # the version of the block is not of the state
    return raw


def same(stream, api):
    for kind, entity in (("customer", "c"), ("terminal", "t")):
        np.testing.assert_array_equal(block(stream, kind, entity), block(api, kind, entity))


def test_own_events_are_seen_at_once_and_counted_once(stores):
    stream, api = stores
    accept(stream, touched(1))
    same(stream, api)
    accept(api, touched(2))
    assert len(api.overlay) == 2
    ahead = block(api)
    accept(stream, touched(2))  # the stream brings the same event
    np.testing.assert_array_equal(block(stream), ahead)
    same(stream, api)
    assert len(api.overlay) == 0, "it is covered now"
    assert api.answers([2]) == [b"answer"]


def test_an_event_pushed_out_of_the_ring_counts_as_covered(stores):
    stream, api = stores
    accept(api, touched(1))
    for i in (1, *range(100, 130)):
        accept(stream, touched(i))
    same(stream, api)
    assert len(api.overlay) == 0


def test_events_the_stream_never_brings_are_given_up(stores):
    stream, api = stores
    accept(api, touched(1))
    assert not np.array_equal(block(stream), block(api))
    api.overlay._clock = lambda: time.monotonic() + 61
    api.overlay.expire()
    same(stream, api)
    assert api.overlay.expired == 2


def test_mail_that_came_before_the_tiles_is_not_doubled(stores):
    stream, api = stores
    accept(api, touched(1))
    event = touched(1)
    slots = stream.fetch([("customer", "c"), ("terminal", "t")])
    column = stream.columns[0]
    column.blocks.deposit(
        slots["customer", "c"], 0, event.time, event.amount, event.keys[1], 1, event.vector
    )
    stream.finish([event], {})  # publishes the mailbox, the tiles stay as they were
    from kernels.entity_state import read_mail

    blocks = api.columns[0].blocks
    slot = api.fetch([("customer", "c")])["customer", "c"]
    assert read_mail(blocks.block(slot), spec=blocks.spec).present.sum() == 1
    assert blocks.events(slot, 0) == 1


def test_an_api_beside_a_stream(start, bundle, events, broker, tmp_path):
    store = f"lmdb://{tmp_path / 'store'}"
    writing = open_store(f"{store}?sync=second")
    stream = EmbeddedState(bundle.config, writing, cache_bytes=0, answer_ms=1_000)
    settings = {
        "model": bundle.folder,
        "mode": "stream",
        "store": store,
        "kafka": broker,
        "ui": "false",
    }
    api = start(settings)
    sent = [events(customer="own", terminal="here") for _ in range(3)]
    bodies = [api.call("POST", "/v1/score", e, token=SECRETS["scorer"]).body for e in sent]
    again = api.call("POST", "/v1/score", sent[0], token=SECRETS["scorer"])
    assert again.body == bodies[0]
    label = {"tx_id": sent[0]["tx_id"], "fraud": 1}
    assert api.call("POST", "/v1/labels", label, token=SECRETS["labeller"]).status == 200

    def role():
        told = api.call("GET", "/v1/entities/customer/own", token=SECRETS["reader"])
        return told.data["roles"][0]

    assert role()["transactions_ever"] == 3
    found = received(broker, TOPIC, 3)
    assert [json.loads(value) for _, value in found] == sent
    assert {key for key, _ in found} == {b"own"}
    [(key, value)] = received(broker, "penstock.demo.labels", 1)
    assert key == b"own"
    assert json.loads(value)["customer"] == "own"
    for event in sent:  # the stream brings them
        keys = (entity_key("customer", "own"), entity_key("terminal", "here"))
        time_ms = event["t"] * 1000 + bundle.config.origin_ms
        accept(
            stream,
            Touched(
                event["tx_id"],
                time_ms,
                event["amount_cents"],
                ("own", "here"),
                keys,
                np.zeros(WORDS, np.int64),
            ),
        )
    assert role()["transactions_ever"] == 3
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        metrics = api.call("GET", "/metrics").body.decode()
        if "penstock_api_undelivered 0" in metrics and "penstock_api_overlaid 3" in metrics:
            break
        time.sleep(0.1)
    assert "penstock_api_undelivered 0" in metrics
    assert "penstock_api_overlaid 3" in metrics, "the terminal has not been read since"
    api.kill()
    later = start(settings, home=api.home)
    assert later.call("POST", "/v1/score", sent[0], token=SECRETS["scorer"]).body == bodies[0]
    assert later.stop() == 0
    assert list((api.home / "outbox").iterdir()) == []
    writing.close()
