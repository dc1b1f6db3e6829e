"""The Kafka broker: one KRaft node on loopback, formatted once, surviving SIGKILL."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

from infra.errors import ServiceError
from infra.jars import broker_jars
from infra.services.class_archive import KAFKA_CLASSES
from infra.services.java import (
    QUICK_START,
    TEMPLATES,
    class_path,
    java_program,
    last_words,
    logging_options,
    render,
)
from infra.services.ports import any_free_port
from infra.services.process import is_running
from infra.services.service import Service, ServiceDefinition
from infra.services.state import ServiceState, load_state
from infra.settings import HOST, Settings

MESSAGE_MAX_BYTES = 2 * 2**20
PROBE_SECONDS = 2.0
FORMAT_SECONDS = 60.0


def data_folder(settings: Settings) -> Path:
    """Folder of the broker's log, which is all it knows."""
    return settings.home / "kafka" / "data"


def configuration_file(settings: Settings) -> Path:
    """The file the broker reads, written at every start."""
    return settings.home / "kafka" / "server.properties"


def java_command(settings: Settings, *options: str) -> list[str]:
    """The beginning of a command of Kafka's: Java, its options, its class path."""
    given = (*options, *KAFKA_CLASSES.options(), *logging_options(settings, "kafka"))
    return [java_program(), *given, "-cp", class_path(broker_jars())]


def build(settings: Settings, port: int) -> Service:
    """The service on a given port; writes its configuration file.

    Raises:
        MissingToolError: no Java, or no jars of Kafka.
    """
    memory = f"-Xmx{settings.kafka_heap_mb}m"
    command = java_command(settings, memory, f"-Xms{settings.kafka_heap_mb // 2}m", "-XX:+UseG1GC")
    render(
        TEMPLATES / "kafka" / "server.properties",
        configuration_file(settings),
        {
            "port": port,
            "controller_port": any_free_port(),
            "data": data_folder(settings),
            "message_max_bytes": MESSAGE_MAX_BYTES,
            "retention_hours": settings.kafka_retention_hours,
            "retention_bytes": settings.kafka_retention_mb * 2**20,
        },
    )
    return Service(
        name="kafka",
        command=(*command, "kafka.Kafka", str(configuration_file(settings))),
        port=port,
    )


def format_once(settings: Settings, _: Service) -> None:
    """Give a new data folder its identity; a formatted one is left alone.

    Raises:
        ServiceError: the storage tool failed; quotes it.
    """
    if (data_folder(settings) / "meta.properties").is_file():
        return
    data_folder(settings).mkdir(parents=True, exist_ok=True)
    settings.logs.mkdir(parents=True, exist_ok=True)
    command = java_command(settings, "-Xmx128m", *QUICK_START)
    tool = [*command, "kafka.tools.StorageTool"]
    # In one word: an id may begin with a dash, which the tool would take for another option.
    named = [f"--cluster-id={cluster_id()}", "--config", str(configuration_file(settings))]
    try:
        done = subprocess.run(
            [*tool, "format", "--ignore-formatted", *named],
            capture_output=True,
            text=True,
            timeout=FORMAT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServiceError(
            f"kafka: {data_folder(settings)} was not formatted in {FORMAT_SECONDS:.0f} s",
            "Wait until the machine is less busy, then repeat",
        ) from error
    if done.returncode:
        raise ServiceError(
            f"kafka: {data_folder(settings)} could not be formatted: {last_words(done)}",
            "Is the disk full, or the folder not writable?",
        )


def cluster_id() -> str:
    """A new identity as Kafka writes it: 16 random bytes in URL-safe base64."""
    import base64
    import uuid

    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")


def answers_metadata(_: Settings, state: ServiceState) -> bool:
    """Whether the broker tells of its topics, which it does some time after it listens."""
    return metadata_answer(f"{HOST}:{state.port}")


def metadata_answer(servers: str, timeout: float = PROBE_SECONDS) -> bool:
    """Whether some broker answers a request for metadata and knows its controller."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    # Its own complaints about a broker that is not there yet would go to stderr.
    quiet = logging.Logger("kafka-probe", logging.CRITICAL + 1)
    client = AdminClient({"bootstrap.servers": servers}, logger=quiet)
    try:
        found = client.list_topics(timeout=timeout)
    except KafkaException:
        return False
    return bool(found.brokers) and found.controller_id >= 0


def kafka_servers(settings: Settings) -> str:
    """Bootstrap address for clients: the configured one, else that of our running broker.

    Raises:
        ServiceError: neither is there.
    """
    if settings.kafka_servers:
        return settings.kafka_servers
    state = load_state(settings, "kafka")
    if state is None or not is_running(state):
        raise ServiceError(
            "no Kafka broker runs", "Run: penstock up --stream (or set PENSTOCK_KAFKA_SERVERS)"
        )
    return f"{HOST}:{state.port}"


DEFINITION = ServiceDefinition(
    name="kafka",
    title="Kafka broker",
    usual_port=9092,
    configured_port=lambda settings: settings.kafka_port,
    build=build,
    ready=answers_metadata,
    prepare=format_once,
    group="stream",
    address=f"{HOST}:{{port}}",
    stop_seconds=20.0,
)
