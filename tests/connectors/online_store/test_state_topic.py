"""The writer on Kafka: a real broker, and the client library's mock cluster where there is none."""

from __future__ import annotations

import json
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from connectors.online_store import StoreError, open_store
from connectors.online_store.state_topic import StateTopic, TopicSettings
from connectors.online_store.writer import StoreWriter
from connectors.online_store.writer_status import WriterStatus


@pytest.fixture(scope="module", params=["mock", "broker"])
def cluster(request):
    """A producer, the address of its brokers, and a function that makes topics there."""
    if request.param == "broker":
        try:
            servers = request.getfixturevalue("kafka_servers")
        except pytest.FixtureLookupError:
            pytest.skip("no Kafka broker: the services of the stream are not in this checkout")
        producer = Producer({"bootstrap.servers": servers})
    else:
        producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "x", "log_level": 2})
        brokers = producer.list_topics(timeout=10).brokers.values()
        servers = ",".join(f"{b.host}:{b.port}" for b in brokers)

    def make(*names):
        if request.param == "broker":  # the mock makes them by itself
            admin = AdminClient({"bootstrap.servers": servers})
            for done in admin.create_topics([NewTopic(name, 4, 1) for name in names]).values():
                done.result(20)

    yield producer, servers, make
    producer.flush(5)


def send(producer, topic, messages):
    for key, value in messages:
        producer.produce(topic, value, key)
    assert producer.flush(10) == 0


def turn_until(writer, condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        writer.turn()
        assert time.monotonic() < deadline


def committed(servers, group, topic):
    """Sum of the committed offsets of a group."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group, "log_level": 2})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        asked = [TopicPartition(topic, p) for p in partitions]
        return sum(max(p.offset, 0) for p in consumer.committed(asked, timeout=10))
    finally:
        consumer.close()


def letters_in(servers, topic, count):
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "log_level": 2,
        }
    )
    consumer.subscribe([topic])
    found, deadline = [], time.monotonic() + 30
    try:
        while len(found) < count and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                found.append(json.loads(message.value()))
    finally:
        consumer.close()
    return found


def test_upserts_reach_the_store_and_bad_ones_the_dead_letters(cluster, store, record):
    producer, servers, make = cluster
    name = f"one{time.time_ns()}"
    topic = f"penstock.{name}.state"
    make(topic, f"penstock.{name}.dead-letters")
    send(producer, topic, [record(f"e{n}", 1) for n in range(300)])
    send(producer, topic, [(b"bad", b"worse"), (record("e1", 1).key, None), record("e1", 5)])
    settings = TopicSettings(servers, dataset=name, group=name)
    source = StateTopic(settings)
    status = WriterStatus()
    writer = StoreWriter(store, source, status)
    assert not source.ready
    try:
        turn_until(writer, lambda: store.counts() == {"card": 300} and source.lag() == 0)
        turn_until(writer, lambda: store.read([record("e1", 1).key])[0].version == 5)
        assert source.ready
        writer.stop()
        writer.run()
    finally:
        source.close()
    assert committed(servers, name, topic) == 303
    (letter,) = letters_in(servers, f"penstock.{name}.dead-letters", 1)
    assert letter["rule"] == "broken-record"
    assert letter["source"].startswith(f"{topic}/")

    # Another start goes on behind what was committed, or from the beginning when asked.
    send(producer, topic, [record("new", 1)])
    for options, applied, older in (({}, 1, 0), ({"from_beginning": True}, 0, 302)):
        source, status = StateTopic(TopicSettings(servers, name, name, **options)), WriterStatus()
        writer = StoreWriter(store, source, status)
        results = status.records.labels
        try:
            turn_until(
                writer,
                lambda results=results, wanted=applied + older: (
                    results("applied")._value.get() + results("older")._value.get() >= wanted
                ),
            )
            writer._commit()
        finally:
            source.close()
        assert results("applied")._value.get() == applied
        assert results("older")._value.get() == older
    assert store.counts() == {"card": 301}


def test_what_was_not_written_is_not_committed(cluster, store, record):
    producer, servers, make = cluster
    name = f"two{time.time_ns()}"
    topic = f"penstock.{name}.state"
    make(topic, f"penstock.{name}.dead-letters")
    send(producer, topic, [record("a", 1)])
    source = StateTopic(TopicSettings(servers, name, name))
    writer = StoreWriter(store, source, WriterStatus())
    try:
        deadline = time.monotonic() + 30
        while not source.take():  # taken, and never written
            assert time.monotonic() < deadline
    finally:
        source.close()
    assert committed(servers, name, topic) == 0
    source = StateTopic(TopicSettings(servers, name, name))
    writer = StoreWriter(store, source, WriterStatus())
    try:
        turn_until(writer, lambda: store.counts() == {"card": 1})
    finally:
        source.close()


def test_two_datasets_do_not_share_a_store(cluster, store, record):
    producer, servers, make = cluster
    names = [f"{side}{time.time_ns()}" for side in ("left", "right")]
    make(*(f"penstock.{name}.state" for name in names))
    for name in names:
        send(producer, f"penstock.{name}.state", [record("a", 1)])
    source = StateTopic(TopicSettings(servers, group=f"g{time.time_ns()}"))
    writer = StoreWriter(store, source, WriterStatus())
    try:
        with pytest.raises(StoreError, match="--dataset"):
            turn_until(writer, lambda: False)
    finally:
        source.close()


def test_brokers_that_are_away_are_waited_for():
    source = StateTopic(TopicSettings("127.0.0.1:1", "x"))
    try:
        assert not source.ready
        assert source.take() == []
        source.wait(0.01)
        source.commit()
        assert source.lag() == 0
    finally:
        source.close()


def test_the_process_reads_kafka(cluster, tmp_path, record, start):
    producer, servers, make = cluster
    name = f"three{time.time_ns()}"
    now = int(time.time() * 1000)
    make(f"penstock.{name}.state")
    send(producer, f"penstock.{name}.state", [record("a", 3, emitted_at=now)])
    url = f"lmdb://{tmp_path}/store"
    with start("--store", url, "--kafka", servers, "--dataset", name) as writer:
        with open_store(url, read_only=True) as reader:
            writer.until(lambda: reader.counts() == {"card": 1}, 40)
        writer.until(lambda: writer.figure("penstock_store_lag") == 0)
        assert writer.end()[0] == 0
