"""A stream on the real broker and cluster: started, told of news, upgraded, stopped, gone on."""

from __future__ import annotations

import time

import pytest

from connectors.flink import operate
from connectors.flink.announce import announce
from connectors.flink.start import described
from flows.stream import check_stream
from infra.errors import ServiceError
from infra.settings import get_settings
from tests.benchmarks._kafka import committed_messages
from tests.integrity.stream_banks import cards_bank

pytestmark = pytest.mark.cluster
RULES = {"version": "first", "review_at": 0.0, "block_at": 2.0}
STOP = {"version": "second", "review_at": 0.0, "block_at": 0.0}


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return cards_bank(tmp_path_factory.mktemp("operate"))


def send(servers, name, rows):
    import orjson
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers})
    for row in rows:
        sent = {k: v for k, v in row.items() if k != "fraud"}
        producer.produce(f"penstock.{name}.transactions", orjson.dumps(sent))
    assert producer.flush(30) == 0


def wait_for(servers, name, count):
    """Return the committed scores by event id once there are ``count`` of them."""
    deadline = time.monotonic() + 90
    while True:
        rows = list(committed_messages(servers, f"penstock.{name}.scores", idle_s=2.0))
        if len(rows) >= count or time.monotonic() > deadline:
            break
    scores = {row["event_id"]: row for row in rows}
    assert len(rows) == len(scores) == count
    return scores


def test_the_life_of_a_stream(bank, kafka_servers, flink_cluster, prefect_server):
    settings, name = get_settings(), f"life{time.time_ns()}"
    model = str(bank.bundle.folder)
    spec = described(settings, name, model, kafka=kafka_servers, rules=RULES)
    seen = operate.start(settings, spec)
    try:
        assert seen.healthy
        assert seen.model == bank.bundle.digest[:16]
        with pytest.raises(ServiceError, match="runs already"):
            operate.start(settings, spec)
        send(kafka_servers, name, bank.rows[:200])
        first = wait_for(kafka_servers, name, 200)
        assert {row["decision"] for row in first.values()} == {"review"}
        assert {row["rules"] for row in first.values()} == {"first"}

        message = announce(settings, name, rules=STOP)
        assert message["rules"]["version"] == "second"
        time.sleep(3)
        send(kafka_servers, name, bank.rows[200:300])
        second = wait_for(kafka_servers, name, 300)
        later = [second[str(row["tx_id"])] for row in bank.rows[200:300]]
        assert {(row["decision"], row["rules"]) for row in later} == {("block", "second")}

        upgraded = operate.upgrade(settings, name, {"preset": "throughput"})
        assert upgraded.healthy
        assert upgraded.job != seen.job
        record = check_stream(name)
        assert record["healthy"]
        assert not record["repaired"]
        assert operate.stop(settings, name)
        assert operate.status(settings, name).state in {"FINISHED", "CANCELED", "ABSENT"}

        # What came meanwhile is scored by the next start, and nothing twice.
        send(kafka_servers, name, bank.rows[300:320])
        again = described(settings, name, model, kafka=kafka_servers, rules=STOP)
        assert again.restore
        assert operate.start(settings, again).healthy
        wait_for(kafka_servers, name, 320)
    finally:
        operate.stop(settings, name, forget=True)


def test_a_stream_nobody_started(flink_cluster, prefect_server):
    record = check_stream("never")
    assert not record["healthy"]
    assert "no stream is described" in record["error"]
