"""A job with Python workers on the real cluster, under the real watchdog, through real deaths."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from connectors.flink.remote import MODE, JobOptions, prepare_client
from connectors.kafka.topics import Topic, ensure_topics
from infra.errors import ConfigurationError
from infra.flink_rest import FlinkRest
from infra.jars import cluster_jars
from infra.services.class_archive import FLINK_CLASSES
from infra.services.process import group_members
from infra.services.state import load_state
from infra.settings import get_settings
from infra.watchdog.actions import WORKER, ServiceActions
from infra.watchdog.config import WatchdogConfig, config_path, save_config
from infra.watchdog.loop import Watchdog

SCRIPT = Path(__file__).with_name("flink_smoke_job.py")
PATIENCE = 150.0
CONFIG = WatchdogConfig(job="smoke", checkpoint_age_s=4.0, start_grace_s=40.0)


class Stream:
    """Feeds numbers into the job's source and reads what it has committed."""

    def __init__(self, servers: str) -> None:
        from confluent_kafka import Producer

        self.servers = servers
        self.sent = 0
        self._producer = Producer({"bootstrap.servers": servers, "log_level": 0})

    def feed(self, count: int = 500) -> None:
        for number in range(self.sent, self.sent + count):
            self._producer.produce("smoke-in", json.dumps({"id": number}).encode())
        assert self._producer.flush(60) == 0
        self.sent += count

    def committed(self) -> Counter[int]:
        """How often each number was committed, once as many are there as were sent."""
        from confluent_kafka import Consumer

        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": f"check-{self.sent}",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )
        found: Counter[int] = Counter()
        deadline = time.monotonic() + PATIENCE
        try:
            consumer.subscribe(["smoke-out"])
            while len(found) < self.sent and time.monotonic() < deadline:
                for message in consumer.consume(1000, timeout=1):
                    assert message.error() is None
                    row = json.loads(message.value())
                    assert row["score"] == row["id"] * 2
                    found[row["id"]] += 1
            for message in consumer.consume(1000, timeout=2):
                found[json.loads(message.value())["id"]] += 1
            return found
        finally:
            consumer.close()


@pytest.fixture
def stream(kafka_servers) -> Stream:
    ensure_topics(kafka_servers, [Topic("smoke-in", 2), Topic("smoke-out", 2)])
    return Stream(kafka_servers)


@pytest.fixture
def command(kafka_servers) -> tuple[str, ...]:
    return (sys.executable, str(SCRIPT), "smoke", kafka_servers, "smoke-in", "smoke-out")


@pytest.fixture
def watchdog():
    save_config(get_settings(), CONFIG)  # it reads the file again when somebody holds the job
    found = Watchdog(get_settings(), CONFIG, ServiceActions(get_settings()))
    stop = threading.Event()
    watching = threading.Thread(target=found.run, args=(stop,))
    watching.start()
    yield found
    stop.set()
    watching.join(timeout=60)
    config_path(get_settings()).unlink()


def wait_until_healthy(watchdog: Watchdog, since: float) -> float:
    """Wait for a checkpoint begun after a moment; returns how long after."""
    deadline = time.monotonic() + PATIENCE
    while True:
        report, seen = watchdog.report, watchdog.report.observation
        begun = seen.get("checkpoint_at", 0.0) - seen.get("checkpoint_s", 0.0)
        if report.state == "healthy" and begun > since:
            return seen["checkpoint_at"] - since
        assert time.monotonic() < deadline, (report.state, report.reason, report.actions)
        time.sleep(0.2)


def workers() -> list[int]:
    members = group_members(load_state(get_settings(), "flink-taskmanager"))
    return [each.pid for each in members if any(WORKER in word for word in each.cmdline())]


@pytest.mark.cluster
def test_nothing_is_lost_or_doubled_through_deaths(
    flink_cluster, stream, command, watchdog, end_with_run
):
    host, port = flink_cluster.removeprefix("http://").split(":")
    rest = FlinkRest(host, int(port))
    submitted = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert submitted.returncode == 0, submitted.stderr[-2000:]
    job = submitted.stdout.split()[-1]
    stream.feed()
    wait_until_healthy(watchdog, time.time())
    assert rest.find("smoke").id == job
    assert watchdog.report.observation["path"].startswith("file:")

    # A worker that hangs: the job stays RUNNING, its checkpoints do not come.
    for pid in workers():
        os.kill(pid, signal.SIGSTOP)
    moment = time.time()
    stream.feed()
    wait_until_healthy(watchdog, moment + 0.5)
    assert watchdog.report.counts["end-workers"] >= 1

    # Both JVMs at once: they come back, and the JobManager goes on with the same job.
    for name in ("flink-jobmanager", "flink-taskmanager"):
        os.kill(load_state(get_settings(), name).pid, signal.SIGKILL)
    moment = time.time()
    stream.feed()
    wait_until_healthy(watchdog, moment + 0.5)
    assert rest.find("smoke").id == job
    assert watchdog.report.counts["revive"] >= 2

    # Submitted again from its newest checkpoint, under another id.
    path = ServiceActions(get_settings()).resubmit(command, job, "")
    moment = time.time()
    assert f"{job}/chk-" in path
    stream.feed()
    wait_until_healthy(watchdog, moment)
    assert rest.find("smoke").id != job
    assert stream.committed() == Counter(dict.fromkeys(range(stream.sent), 1))

    target = (get_settings().home / "flink" / "savepoints").as_uri()
    job = rest.find("smoke").id
    assert "/flink/savepoints/savepoint-" in rest.savepoint(job, target)
    assert "/flink/savepoints/savepoint-" in rest.savepoint(job, target, stop=True)
    assert rest.wait_for_end(job, 30)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": ""}, "without a name"),
        ({"name": "a", "parallelism": 0}, "parallelism is 0"),
        ({"name": "a", "checkpoint_ms": -1}, "checkpoint_ms is -1"),
    ],
)
def test_impossible_options_are_refused(fields, told):
    with pytest.raises(ConfigurationError, match=told):
        JobOptions(**fields)


def test_a_client_knows_every_jar_and_runs_workers_as_processes(monkeypatch, tmp_path):
    java_gateway = pytest.importorskip("pyflink.java_gateway")
    from pyflink.pyflink_gateway_server import construct_flink_classpath, construct_hadoop_classpath

    monkeypatch.setattr(java_gateway, "_gateway", None)  # whatever ran before in this process
    before = dict(os.environ)
    settings = get_settings().model_copy(update={"home": tmp_path})
    extra = tmp_path / "extra.jar"
    extra.touch()
    try:
        prepare_client(settings, [extra])
        path = [
            *construct_flink_classpath(os.environ).split(os.pathsep),
            *construct_hadoop_classpath(os.environ).split(os.pathsep),
        ]
        # It begins with that of the cluster: so the archive of classes fits both.
        assert path[: len(cluster_jars()) + 1] == [*map(str, cluster_jars()), str(extra)]
        archive = f"-XX:SharedArchiveFile={FLINK_CLASSES.file()}"
        assert (archive in os.environ["JVM_ARGS"].split()) == FLINK_CLASSES.file().is_file()
        assert os.environ[MODE] == "process"
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
