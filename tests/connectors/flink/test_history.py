"""A table as the messages of a stream: order, labels when they are known, files and topics."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.files import InputFileError
from connectors.flink.history import LABELS, TRANSACTIONS, read_history, send_history, write_history
from tasks.fraud.dataset import find_config
from tasks.fraud.ingest.parsing import DataError

DAY_S = 86_400
CONFIG = find_config("demo")
ROWS = [
    {"tx_id": 3, "t": 9 * DAY_S, "customer": "b", "terminal": "y", "amount_cents": 30, "fraud": 0},
    {"tx_id": 1, "t": 0, "customer": "a", "terminal": "x", "amount_cents": 10, "fraud": 1},
    {"tx_id": 2, "t": 1, "customer": "a", "terminal": "y", "amount_cents": 20, "fraud": None},
]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "history.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def test_labels_go_when_they_are_known(table):
    messages = list(read_history(table, CONFIG).messages())
    found = [(m.stream, json.loads(m.content)["tx_id"]) for m in messages]
    assert found == [
        (TRANSACTIONS, 1),
        (TRANSACTIONS, 2),
        (LABELS, 1),  # known after seven days, before what happens on the ninth
        (TRANSACTIONS, 3),
        (LABELS, 3),
    ]
    assert [m.key for m in messages] == ["a", "a", "a", "b", "b"]
    first, label = json.loads(messages[0].content), json.loads(messages[2].content)
    assert "fraud" not in first
    assert label == {"tx_id": 1, "t": 0, "customer": "a", "terminal": "x", "fraud": 1}


def test_a_label_with_a_time_of_its_own_waits_for_both(table):
    rows = [row | {"told": 20 * DAY_S, "scenario": 3} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), table)
    history = read_history(table, replace(CONFIG, label_time="told"))
    assert (history.known - CONFIG.origin_ms).tolist() == [20 * DAY_S * 1_000] * 2
    assert [m.stream for m in history.messages()] == [TRANSACTIONS] * 3 + [LABELS] * 2
    assert not any(b"scenario" in m.content for m in history.messages()), "the config has none"


def test_faulty_rows_go_on_to_the_stream(table):
    rows = [*ROWS, {"tx_id": 9, "t": None, "customer": None, "terminal": "x", "amount_cents": 1}]
    pq.write_table(pa.Table.from_pylist(rows), table)
    first = next(read_history(table, CONFIG).messages())
    assert json.loads(first.content)["tx_id"] == 9


def test_files_are_those_of_a_replay(table, tmp_path):
    history = read_history(table, CONFIG)
    assert write_history(history, tmp_path / "replay", lambda _: None) == (3, 2)
    lines = (tmp_path / "replay" / "transactions" / "history.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["tx_id"] for line in lines] == [1, 2, 3]
    assert len((tmp_path / "replay" / "labels" / "history.jsonl").read_bytes().splitlines()) == 2


def test_what_cannot_be_read_is_told(table, tmp_path):
    with pytest.raises(InputFileError):
        read_history(tmp_path / "nothing.parquet", CONFIG)
    pq.write_table(pa.table({"t": [1]}), table)
    with pytest.raises(DataError, match="lacks column 'amount_cents'"):
        read_history(table, CONFIG)


def test_topics_get_all_of_it_in_order(table, kafka_servers):
    from confluent_kafka import Consumer

    from connectors.kafka.topics import StreamTopics, ensure_topics

    name = f"history{time.time_ns()}"
    ensure_topics(kafka_servers, StreamTopics(name, partitions=1).all)
    sent = send_history(read_history(table, CONFIG), kafka_servers, f"penstock.{name}", 0, print)
    assert sent == 5
    consumer = Consumer(
        {"bootstrap.servers": kafka_servers, "group.id": name, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([f"penstock.{name}.{stream}" for stream in (TRANSACTIONS, LABELS)])
    found, deadline = [], time.monotonic() + 30
    while len(found) < 5 and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            found.append((message.topic().rsplit(".", 1)[1], json.loads(message.value())["tx_id"]))
    consumer.close()
    assert [tx for stream, tx in found if stream == TRANSACTIONS] == [1, 2, 3]
    assert [tx for stream, tx in found if stream == LABELS] == [1, 3]
