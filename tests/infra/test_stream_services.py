"""Kafka, Flink, Redis and Prometheus as real processes: ready, killed, back with their data."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from infra.errors import MissingToolError, ServiceError
from infra.jars import flink_home
from infra.services import flink_cluster as flink
from infra.services.class_archive import FLINK_CLASSES, KAFKA_CLASSES, ClassArchive
from infra.services.java import class_path, java_program, render
from infra.services.kafka_broker import data_folder, kafka_servers, metadata_answer
from infra.services.process import group_members
from infra.services.redis_server import redis_url
from infra.services.registry import (
    SERVICES,
    end_service,
    replace_service,
    revive_service,
    service_status,
    start_service,
    stop_order,
    with_needs,
)
from infra.services.state import load_state
from infra.settings import Settings, get_settings


def kill(settings: Settings, name: str) -> int:
    """SIGKILL the leader of a service; returns its process id."""
    pid = load_state(settings, name).pid
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while service_status(settings, name).state != "crashed":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return pid


def taken(port: int) -> socket.socket:
    """Listen on a port; a killed process with threads gives it up a moment after its end."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def listeners(pid: int) -> set[str]:
    """Addresses a process listens on."""
    links = psutil.Process(pid).net_connections(kind="tcp")
    return {link.laddr.ip.removeprefix("::ffff:") for link in links if link.status == "LISTEN"}


def maps(pid: int, archive: ClassArchive) -> bool:
    """Whether a JVM took the archive: one that does not fit is not mapped."""
    return str(archive.file()) in Path(f"/proc/{pid}/maps").read_text()


def produce(servers: str, topic: str, value: bytes) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers})
    producer.produce(topic, value)
    assert producer.flush(20) == 0


def consume_one(servers: str, topic: str) -> bytes:
    from confluent_kafka import Consumer

    options = {"group.id": "test", "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": servers, **options})
    try:
        consumer.subscribe([topic])
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        return message.value()
    finally:
        consumer.close()


@pytest.mark.cluster
def test_kafka_survives_sigkill_at_its_port_and_with_its_records(kafka_servers):
    from connectors.kafka.topics import Topic, ensure_topics

    settings = get_settings()
    assert metadata_answer(kafka_servers)
    assert ensure_topics(kafka_servers, [Topic("kept", 1)]) == ["kept"]
    produce(kafka_servers, "kept", b"before")
    identity = (data_folder(settings) / "meta.properties").read_text()

    dead = kill(settings, "kafka")
    assert not metadata_answer(kafka_servers, timeout=0.5)
    status = revive_service(settings, "kafka")
    assert (status.state, status.url) == ("running", kafka_servers)
    assert status.pid != dead
    assert maps(status.pid, KAFKA_CLASSES)
    assert consume_one(kafka_servers, "kept") == b"before"
    assert (data_folder(settings) / "meta.properties").read_text() == identity
    assert listeners(status.pid) == {"127.0.0.1"}
    assert revive_service(settings, "kafka") is None, "it lives"


@pytest.mark.cluster
def test_flink_registers_its_taskmanager_and_brings_back_a_dead_one(flink_cluster):
    settings = get_settings()
    status = service_status(settings, "flink-taskmanager")
    assert status.state == "running"
    with urllib.request.urlopen(f"{flink_cluster}/overview", timeout=10) as answer:
        assert b'"slots-available":4' in answer.read()
    for name in with_needs(["flink-taskmanager"]):
        pid = load_state(settings, name).pid
        assert listeners(pid) == {"127.0.0.1"}
        assert maps(pid, FLINK_CLASSES)

    kill(settings, "flink-taskmanager")
    assert revive_service(settings, "flink-taskmanager").state == "running"
    hung = load_state(settings, "flink-taskmanager").pid
    os.kill(hung, signal.SIGSTOP)
    assert replace_service(settings, "flink-taskmanager").state == "running"
    assert not psutil.pid_exists(hung) or psutil.Process(hung).status() == "zombie"


def test_the_list_of_opened_modules_is_kept_whole():
    text = (flink_home() / "conf" / "config.yaml").read_text()
    assert len(flink.java_options()) == text.count("--add-") >= 18


@pytest.mark.parametrize("state", ["heap", "rocksdb"])
def test_the_memory_of_the_taskmanager_adds_up(settings, state):
    shared = flink.memory(settings.model_copy(update={"flink_state": state}))
    parts = 2 * shared.framework + shared.task_heap + shared.task_off_heap + shared.managed
    assert parts + shared.network + shared.metaspace + shared.overhead == shared.total
    assert shared.task_heap >= 256


def test_redis_keeps_its_data_through_sigkill(settings):
    if shutil.which("redis-server") is None:
        pytest.skip("Redis absent: sudo apt-get install -y redis-server")
    try:
        start_service(settings, "redis")
        port = load_state(settings, "redis").port
        assert redis_url(settings) == f"redis://127.0.0.1:{port}/0"
        assert ask(port, b"SET a 1\r\n") == b"+OK\r\n"
        time.sleep(1.1)  # its log reaches the disk every second
        status = service_status(settings, "redis")
        assert listeners(status.pid) == {"127.0.0.1"}
        kill(settings, "redis")
        revive_service(settings, "redis")
        assert ask(port, b"GET a\r\n") == b"$1\r\n1\r\n"
    finally:
        end_service(settings, "redis")


def ask(port: int, command: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
        link.sendall(command)
        return link.recv(100)


def test_prometheus_starts_on_loopback(settings):
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus absent: sudo apt-get install -y prometheus")
    try:
        status = start_service(settings, "prometheus")
        assert listeners(status.pid) == {"127.0.0.1"}
    finally:
        end_service(settings, "prometheus")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("redis", "redis-server is missing. Run: sudo apt-get install -y redis-server"),
        ("prometheus", "the program is missing. Run: sudo apt-get install -y prometheus"),
        ("kafka", "Java is missing. Run: sudo apt-get install -y openjdk-17-jdk-headless"),
    ],
)
def test_a_missing_program_is_named_with_its_command(settings, monkeypatch, tmp_path, name, told):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(MissingToolError) as refused:
        SERVICES[name].build(settings, 1)
    assert told in str(refused.value)


def test_clients_without_a_service_are_told_what_to_start(settings):
    for find in (kafka_servers, redis_url, flink.flink_address):
        with pytest.raises(ServiceError, match="Run: penstock up"):
            find(settings)
    assert kafka_servers(settings.model_copy(update={"kafka_servers": "a:1,b:2"})) == "a:1,b:2"


def test_needs_come_first_and_stop_last():
    order = with_needs(["flink-taskmanager"])
    assert order == ["flink-zookeeper", "flink-jobmanager", "flink-taskmanager"]
    assert stop_order(["kafka", "watchdog", *order]) == ["watchdog", *reversed(order), "kafka"]


def test_a_folder_that_java_would_split_is_refused(tmp_path):
    with pytest.raises(ServiceError, match="Move the checkout"):
        class_path([tmp_path / "a:b.jar"])
    with pytest.raises(ServiceError, match="without jars"):
        class_path([])


def test_a_template_without_a_value_is_a_mistake(tmp_path):
    (tmp_path / "t").write_text("a=${b}")
    with pytest.raises(KeyError):
        render(tmp_path / "t", tmp_path / "out", {})
    assert render(tmp_path / "t", tmp_path / "out", {"b": 1}).read_text() == "a=1"


def test_java_home_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MissingToolError):
        java_program()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch()
    assert java_program() == f"{tmp_path}/bin/java"


def test_a_crashed_service_does_not_move_to_another_port(settings, registered, http_service):
    registered("web", lambda _, port: http_service(port))
    try:
        start_service(settings, "web")
        port = load_state(settings, "web").port
        kill(settings, "web")
        with taken(port):
            with pytest.raises(ServiceError, match=f"its port {port} was taken"):
                revive_service(settings, "web")
            assert service_status(settings, "web").state == "crashed"
        assert revive_service(settings, "web").url.endswith(str(port))
        assert len(group_members(load_state(settings, "web"))) == 1
    finally:
        end_service(settings, "web")


def test_what_was_stopped_on_purpose_stays_stopped(settings, registered, http_service):
    registered("web", lambda _, port: http_service(port))
    start_service(settings, "web")
    end_service(settings, "web")
    assert revive_service(settings, "web") is None
    assert replace_service(settings, "web") is None
    assert service_status(settings, "web").state == "stopped"


@pytest.mark.cluster
def test_a_cluster_id_may_begin_with_a_dash(settings, monkeypatch):
    monkeypatch.setattr("infra.services.kafka_broker.cluster_id", lambda: "-bcdefghijklmnopqrstuv")
    beside = settings.model_copy(update={"kafka_port": 0})  # not at the port of the run's broker
    try:
        assert start_service(beside, "kafka").state == "running"
    finally:
        end_service(beside, "kafka")
