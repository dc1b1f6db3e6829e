"""The topics of a stream: their names, partitions and clean-up, made where they are missing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from infra.errors import ConfigurationError, ServiceError

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Topic:
    """One topic.

    Args:
        name: full name.
        partitions: how many; the parallelism of a source cannot usefully be higher.
        compacted: keep the last record of every key for ever, instead of all for a while.
        retention_hours: age at which records go, 0 for the broker's own limit.
    """

    name: str
    partitions: int
    compacted: bool = False
    retention_hours: int = 0

    @property
    def config(self) -> dict[str, str]:
        """Settings of the topic that differ from the broker's."""
        if self.compacted:
            # A store that starts anew reads it whole: keep it small, and compact it soon.
            return {
                "cleanup.policy": "compact",
                "min.cleanable.dirty.ratio": "0.3",
                "segment.ms": "600000",
                "segment.bytes": str(64 * 2**20),
                "delete.retention.ms": "86400000",
            }
        if self.retention_hours:
            return {"retention.ms": str(self.retention_hours * 3_600_000)}
        return {}


@dataclass(frozen=True)
class StreamTopics:
    """The topics of one stream by their part in it.

    Args:
        stream: name of the stream: lower-case letters, digits, dashes.
        partitions: of transactions, labels, scores, alerts and state.

    Raises:
        ConfigurationError: a name or a number that Kafka would refuse.
    """

    stream: str
    partitions: int = 4

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.stream):
            raise ConfigurationError(
                f"{self.stream!r} is no name of a stream",
                "Use lower-case letters, digits and dashes, e.g. payments",
            )
        if not 1 <= self.partitions <= 720:
            raise ConfigurationError(
                f"{self.partitions} partitions", "Give 1 to 720 (720 is the maximal parallelism)"
            )

    def name(self, part: str) -> str:
        """Full name, for example ``penstock.payments.scores``."""
        return f"penstock.{self.stream}.{part}"

    @property
    def all(self) -> tuple[Topic, ...]:
        """Every topic of the stream."""
        spread = tuple(
            Topic(self.name(part), self.partitions)
            for part in ("transactions", "labels", "scores", "alerts")
        )
        return (
            *spread,
            Topic(self.name("dead-letters"), 1, retention_hours=24 * 30),
            Topic(self.name("late"), 1),
            Topic(self.name("state"), self.partitions, compacted=True),
            # Read whole by every job that starts: the newest models and rules must not age away.
            Topic(self.name("control"), 1, compacted=True),
        )


def ensure_topics(servers: str, topics: Iterable[Topic]) -> list[str]:
    """Make the topics that are missing; returns their names.

    A topic that is there is left as it is, even with other partitions: changing them would part
    keys from their history.

    Raises:
        ServiceError: the broker does not answer or refuses.
    """
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    client = AdminClient({"bootstrap.servers": servers})
    wanted = [
        NewTopic(topic.name, topic.partitions, replication_factor=1, config=topic.config)
        for topic in topics
    ]
    made = []
    futures = client.create_topics(wanted, operation_timeout=TIMEOUT_SECONDS)
    for name, future in futures.items():
        try:
            future.result(timeout=TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ServiceError(
                    f"topic {name} could not be made at {servers}: {error.args[0].str()}",
                    "Look at penstock status, and at the broker's log",
                ) from error
        else:
            made.append(name)
    return made


def delete_topics(servers: str, names: Iterable[str]) -> None:
    """Remove topics with all their records; those that are not there are left out.

    Raises:
        ServiceError: the broker does not answer or refuses.
    """
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": servers})
    futures = client.delete_topics(list(names), operation_timeout=TIMEOUT_SECONDS)
    for name, future in futures.items():
        try:
            future.result(timeout=TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise ServiceError(
                    f"topic {name} could not be removed at {servers}: {error.args[0].str()}",
                    "Look at penstock status, and at the broker's log",
                ) from error
