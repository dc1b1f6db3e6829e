"""SQL of the result tables: scores and alerts, into Kafka or files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

COLUMNS: dict[str, str] = {
    "event_id": "STRING",
    "time": "BIGINT",
    "score": "DOUBLE",
    "decision": "STRING",
    "listed": "BOOLEAN",
    "late": "BOOLEAN",
    "model": "STRING",
    "features_version": "INT",
    "rules": "STRING",
}
"""Columns of a score message; an alert has the same."""

DECISION = """CASE
    WHEN listed THEN 'block'
    WHEN score IS NULL THEN 'review'
    WHEN score >= block_at THEN 'block'
    WHEN score >= review_at THEN 'review'
    ELSE 'approve' END"""
"""Lists come before scores; without a score a person looks at it."""


@dataclass(frozen=True, slots=True)
class KafkaTables:
    """Result tables in Kafka, exactly once for readers of committed messages.

    Attributes:
        bootstrap: Brokers, ``host:port``.
        prefix: Topic prefix, ``penstock.NAME``; also names the job's transactions.
        producer: Options of the producers.
        transaction_ms: How long a transaction may stay open: longer than a checkpoint and a
            restart together, or committed data is lost.
    """

    bootstrap: str
    prefix: str
    producer: Mapping[str, str] = field(default_factory=dict)
    transaction_ms: int = 600_000

    def options(self, name: str) -> dict[str, str]:
        """Return the connector options of table ``name``."""
        producer = {
            "transaction.timeout.ms": str(self.transaction_ms),
            "bootstrap.servers": self.bootstrap,
            **self.producer,
        }
        return {
            "connector": "kafka",
            "topic": f"{self.prefix}.{name}",
            "format": "json",
            "sink.delivery-guarantee": "exactly-once",
            "sink.transactional-id-prefix": f"{self.prefix}.{name}",
            **{f"properties.{key}": value for key, value in producer.items()},
        }


@dataclass(frozen=True, slots=True)
class FileTables:
    """Result tables as JSON lines; a file appears when the checkpoint that closes it completes.

    Attributes:
        folder: Folder of the tables' folders.
    """

    folder: Path

    def options(self, name: str) -> dict[str, str]:
        """Return the connector options of table ``name``."""
        return {
            "connector": "filesystem",
            "path": (self.folder / name).absolute().as_uri(),
            "format": "json",
            "sink.rolling-policy.rollover-interval": "1 s",
            "sink.rolling-policy.check-interval": "500 ms",
        }


@dataclass(frozen=True, slots=True)
class NoTables:
    """Results that go nowhere, for measuring what lies before them."""

    def options(self, name: str) -> dict[str, str]:
        """Return the connector options of table ``name``."""
        del name
        return {"connector": "blackhole"}


ResultTables = KafkaTables | FileTables | NoTables


def create_table(name: Literal["scores", "alerts"], tables: ResultTables) -> str:
    """Return the DDL of a result table."""
    columns = ", ".join(f"`{column}` {kind}" for column, kind in COLUMNS.items())
    options = ", ".join(
        f"'{key}' = '{_quoted(value)}'" for key, value in tables.options(name).items()
    )
    return f"CREATE TEMPORARY TABLE `{name}` ({columns}) WITH ({options})"


def scored_view(given: str, features_version: int) -> str:
    """Return the SQL of the results over view ``rows``.

    Args:
        given: Arguments of the scoring function, as SQL.
        features_version: Version of the feature definition the job computes.
    """
    # NaN, a model that could not be loaded, is no score.
    return f"""
        SELECT event_name AS event_id, `time`, score, {DECISION} AS decision, listed, late, `model`,
            CAST({features_version} AS INT) AS features_version, rules
        FROM (
            SELECT *, CASE WHEN p = p THEN p END AS score
            FROM (SELECT *, score({given}) AS p FROM `rows`)
        )"""  # noqa: S608 - made of our own names


def _quoted(text: str) -> str:
    return text.replace("'", "''")
