"""Where a stream reads and writes: Kafka topics, or folders of files with the same names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Start = Literal["committed", "earliest", "latest"]

STREAMS = (
    "transactions",
    "labels",
    "scores",
    "alerts",
    "dead-letters",
    "late",
    "state",
    "control",
)
"""Every stream of a job; a topic or a folder each."""

TRANSACTION_MS = 600_000
"""How long a transaction of Kafka may stay open: longer than a checkpoint and a restart together,
or committed data is lost."""


@dataclass(frozen=True, slots=True)
class KafkaEndpoint:
    """Topics ``PREFIX.transactions`` and so on.

    Attributes:
        bootstrap: Brokers, ``host:port``.
        prefix: Topic prefix, ``penstock.NAME``.
        bounded: Whether to read up to the present end and stop, for replays.
        start: Where a job without state begins.
        labels: Whether there is a topic of labels.
        producer: Options of the producers, see ``presets``.
        consumer: Options of the consumers.
    """

    bootstrap: str
    prefix: str
    bounded: bool = False
    start: Start = "committed"
    labels: bool = True
    producer: dict[str, str] = field(default_factory=dict)
    consumer: dict[str, str] = field(default_factory=dict)

    def topic(self, stream: str) -> str:
        """Return the topic of a stream."""
        return f"{self.prefix}.{stream}"

    def source(self) -> dict[str, Any]:
        """Return what the operators read."""
        streams = ["transactions", *(["labels"] if self.labels else [])]
        return {
            "type": "kafka",
            "bootstrap": self.bootstrap,
            "group": self.prefix,
            "start": self.start,
            "bounded": self.bounded,
            # Aborted messages of other producers are no transactions.
            "properties": {"isolation.level": "read_committed", **self.consumer},
            **{stream: self.topic(stream) for stream in streams},
        }

    def sinks(self) -> dict[str, Any]:
        """Return where the operators write."""
        timeout = {"transaction.timeout.ms": str(TRANSACTION_MS)}
        return {
            "type": "kafka",
            "bootstrap": self.bootstrap,
            "transactional_id": self.prefix,
            "properties": timeout | self.producer,
            "scores": self.topic("scores"),
            "alerts": self.topic("alerts"),
            "dead_letters": self.topic("dead-letters"),
            "late": self.topic("late"),
            "state": self.topic("state"),
        }

    def control(self) -> dict[str, Any]:
        """Return where models and rules are announced."""
        if self.bounded:
            return {}
        source = {"type": "kafka", "bootstrap": self.bootstrap, "control": self.topic("control")}
        return {"source": source}


@dataclass(frozen=True, slots=True)
class FileEndpoint:
    """Folders ``FOLDER/transactions`` and so on, JSON lines; no broker needed.

    Attributes:
        folder: Folder of the folders.
        bounded: Whether to read the files there are and stop, or to watch for more.
        labels: Whether there is a folder of labels.
        monitor_ms: Milliseconds between looks for new files.
    """

    folder: Path
    bounded: bool = False
    labels: bool = True
    monitor_ms: int = 500

    def path(self, stream: str) -> Path:
        """Return the folder of a stream."""
        return self.folder / stream

    def source(self) -> dict[str, Any]:
        """Return what the operators read; makes the folders, which Flink demands."""
        streams = ["transactions", *(["labels"] if self.labels else [])]
        for stream in streams:
            self.path(stream).mkdir(parents=True, exist_ok=True)
        return {
            "type": "files",
            "bounded": self.bounded,
            "monitor_ms": self.monitor_ms,
            **{stream: self._uri(stream) for stream in streams},
        }

    def sinks(self) -> dict[str, Any]:
        """Return where the operators write."""
        return {
            "type": "files",
            "scores": self._uri("scores"),
            "alerts": self._uri("alerts"),
            "dead_letters": self._uri("dead-letters"),
            "late": self._uri("late"),
            "state": self._uri("state"),
        }

    def control(self) -> dict[str, Any]:
        """Return where models and rules are announced."""
        if self.bounded:
            return {}
        self.path("control").mkdir(parents=True, exist_ok=True)
        source = {"type": "files", "control": self._uri("control"), "monitor_ms": self.monitor_ms}
        return {"source": source}

    def _uri(self, stream: str) -> str:
        return self.path(stream).absolute().as_uri()


Endpoint = KafkaEndpoint | FileEndpoint
