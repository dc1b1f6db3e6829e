"""Partitions of a real broker under the stream: silent ones, and producers whose clocks differ."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace

import pytest

from connectors.kafka.topics import Topic, ensure_topics
from tests.kernels.stream_config import stream_config
from tests.kernels.stream_job import read_lines, read_results, running_job
from tests.kernels.test_stream_jobs import CARDS, DAY

MINUTE = 60_000
OPTIONS = {"execution.checkpointing.interval": "300 ms"}


@pytest.fixture
def idle_ms():
    """How long a partition says nothing before nobody waits for it."""
    return 1_500


@pytest.fixture
def partitioned(kafka_servers, flink_gateway, tmp_path, idle_ms):
    """Starts a job over a topic of two partitions; returns what sends to one of them."""
    from confluent_kafka import Producer

    topic = f"skew-{time.time_ns()}"
    ensure_topics(kafka_servers, [Topic(topic, partitions=2)])
    producer = Producer({"bootstrap.servers": kafka_servers})
    source = {
        "type": "kafka",
        "bootstrap": kafka_servers,
        "group": topic,
        "start": "earliest",
        "transactions": topic,
    }
    names = {"dead_letters": "dead", "late": "late"}
    sinks = {"type": "files"} | {name: str(tmp_path / place) for name, place in names.items()}
    config = stream_config(
        replace(CARDS, label="", label_time=""),
        mode="event-time",
        source=source,
        sinks=sinks,
        out_of_order_ms=MINUTE,
        idle_ms=idle_ms,
    )
    number = iter(range(10**6))

    def send(partition: int, at: int) -> str:
        name = f"tx-{next(number)}"
        row = {"id": name, "t": at, "cents": 100, "card": f"C{partition}", "shop": "S"}
        row |= {"lat": 0.0, "channel": "web"}
        producer.produce(topic, json.dumps(row).encode(), partition=partition)
        producer.flush(10)
        return name

    with running_job(flink_gateway, config, tmp_path / "results", OPTIONS):
        yield send


def results(folder, names, seconds=40.0):
    """Return the result rows by name once all of these are there."""
    deadline = time.monotonic() + seconds
    while True:
        found = {row["event_name"]: row for row in read_results(folder / "results")}
        if names <= found.keys():
            return found
        assert time.monotonic() < deadline, (sorted(names - found.keys()), len(found))
        time.sleep(0.2)


def test_a_silent_partition_holds_nothing_up_and_its_return_is_late_not_lost(partitioned, tmp_path):
    now = round(time.time() * 1_000) - 10 * DAY
    first = {partitioned(partition, now) for partition in (0, 1)}
    # From now on partition 1 is silent; the watermark follows partition 0 all the same.
    rows = [partitioned(0, now + step * MINUTE) for step in range(1, 20)]
    results(tmp_path, first | set(rows[:-2]))
    back = partitioned(1, now + 5 * MINUTE)
    partitioned(0, now + 60 * MINUTE)
    partitioned(1, now + 60 * MINUTE)
    found = results(tmp_path, {back, *rows})
    assert found[back]["late"]
    assert not any(found[name]["late"] for name in rows)
    # The first row of partition 1 may be late as well, where the broker hands it out too late.
    late = sorted(name for name, row in found.items() if row["late"])
    deadline = time.monotonic() + 20
    while (told := late_names(tmp_path / "late")) != late and time.monotonic() < deadline:
        time.sleep(0.2)
    assert told == late
    assert set(late) - first == {back}


def late_names(folder):
    """Return the rows told as late, ascending."""
    records = list(read_lines(folder))
    assert {record["rule"] for record in records} <= {"late"}
    return sorted(json.loads(base64.b64decode(r["payload"]))["id"] for r in records)


# A broker of a busy machine hands out the second partition seconds after the first, at times.
@pytest.mark.parametrize("idle_ms", [60_000])
def test_a_producer_whose_clock_is_ahead_is_waited_for_or_refused(partitioned, tmp_path):
    """Within the limit its rows are right for all we know; a clock days ahead is a fault."""
    now = round(time.time() * 1_000)
    ahead = {partitioned(0, now + step * MINUTE) for step in range(1, 6)}
    behind = {partitioned(1, now - step * MINUTE) for step in range(5, 0, -1)}
    absurd = partitioned(0, now + 400 * DAY)
    # Both partitions speak: the slower clock decides, so that nobody is late.
    for step in range(6, 10):
        partitioned(1, now + step * MINUTE)
        ahead.add(partitioned(0, now + step * MINUTE))
    found = results(tmp_path, behind)
    assert not any(found[name]["late"] for name in behind)
    deadline = time.monotonic() + 20
    while not (dead := list(read_lines(tmp_path / "dead"))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [row["rule"] for row in dead] == ["impossible-time"]
    assert absurd not in found
