"""What differs between the modes: where state lies, and where accepted events go."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.api.engine import HandOn
from connectors.api.entity_states import EmbeddedState, EntityState, StreamState
from connectors.api.journal import Journal
from connectors.api.metrics import Metrics
from connectors.api.outbox import Outbox, kafka_producer
from connectors.online_store.errors import StoreNotFoundError
from connectors.online_store.store import open_store
from infra.errors import ConfigurationError

if TYPE_CHECKING:
    from connectors.api.settings import ApiSettings
    from connectors.online_store.store import OnlineStore
    from tasks.fraud.dataset import DatasetConfig

STORE_SECONDS = 30.0
"""How long a store may take to appear."""

JOURNALS = ("transactions", "labels", "dead-letters")
MIB = 2**20
_HOUR_MS = 3_600_000


def now_ms() -> int:
    """Return the present, epoch milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Foundation:
    """State and where accepted events go.

    Attributes:
        stores: The online store and, in mode stream, that of the answers.
        state: The entities' state.
        journals: Journals by name.
        transactions: Takes accepted transactions.
        labels: Takes accepted labels.
        outbox: Events on their way to Kafka, in mode stream.
    """

    stores: tuple[OnlineStore, ...]
    state: EntityState
    journals: dict[str, Journal]
    transactions: HandOn
    labels: HandOn
    outbox: Outbox | None = None


def lay_foundation(settings: ApiSettings, config: DatasetConfig, metrics: Metrics) -> Foundation:
    """Open stores and journals as the settings' mode wants them.

    Raises:
        PenstockError: One cannot be opened; the message names the remedy.
    """
    opened = _embedded if settings.mode == "embedded" else _streamed
    return opened(settings, config, metrics)


def _embedded(settings: ApiSettings, config: DatasetConfig, metrics: Metrics) -> Foundation:
    address = settings.store or (
        f"lmdb://{(settings.home / 'store').resolve()}?sync=second"
        f"&limit_mib={round(settings.store_gib * 1024)}"
    )
    store = open_store(address)
    try:
        journals = {name: open_journal(settings, name) for name in JOURNALS}
        state = EmbeddedState(
            config,
            store,
            cache_bytes=settings.cache_mib * MIB,
            answer_ms=round(settings.answer_hours * _HOUR_MS),
        )
    except BaseException:
        store.close()
        raise
    return Foundation(
        (store,),
        state,
        journals,
        _journal_hand_on(journals["transactions"], metrics),
        _journal_hand_on(journals["labels"], metrics),
    )


def _streamed(settings: ApiSettings, config: DatasetConfig, metrics: Metrics) -> Foundation:
    if not settings.store:
        raise ConfigurationError(
            "in mode stream the API reads a store that a store writer fills",
            "Set PENSTOCK_API_STORE to its address",
        )
    answers = f"lmdb://{(settings.home / 'answers').resolve()}?sync=second"
    store = _written_store(settings.store)
    kept = open_store(f"{answers}&limit_mib={round(settings.store_gib * 1024)}")
    producer = kafka_producer(settings.kafka)
    outbox = Outbox(
        settings.home / "outbox", producer, metrics, max_bytes=settings.outbox_mib * MIB
    )
    state = StreamState(
        config,
        store,
        kept,
        overlay_seconds=settings.overlay_seconds,
        answer_ms=round(settings.answer_hours * _HOUR_MS),
    )
    prefix = settings.kafka_prefix or f"penstock.{config.name}"

    def to(topic: str) -> HandOn:
        return lambda lines, keys: outbox.append(f"{prefix}.{topic}", lines, keys)

    journals = {"dead-letters": open_journal(settings, "dead-letters")}
    return Foundation((store, kept), state, journals, to("transactions"), to("labels"), outbox)


def _written_store(address: str) -> OnlineStore:
    """Open the stream's store for reading, waiting a while for the process that writes it."""
    deadline = time.monotonic() + STORE_SECONDS
    while True:
        try:
            return open_store(address, read_only=True)
        except StoreNotFoundError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _journal_hand_on(journal: Journal, metrics: Metrics) -> HandOn:
    """Return a function that journals accepted events."""

    def hand_on(lines: Sequence[bytes], _: Sequence[str]) -> None:
        journal.append(lines)
        metrics.events_out.add("journaled", by=len(lines))

    return hand_on


def open_journal(settings: ApiSettings, name: str) -> Journal:
    """Open a journal below the folder of journals."""
    return Journal(
        settings.journal_folder / name,
        max_bytes=settings.journal_mib * MIB,
        max_seconds=settings.journal_seconds,
        clock=time.monotonic,
        now_ms=now_ms,
    )
