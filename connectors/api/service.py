"""Everything the API holds while it runs, put together from its settings and taken apart again."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.api.dead_letters import DeadLetters
from connectors.api.engine import Engine, HandOn, journal_hand_on
from connectors.api.entity_states import EmbeddedState, EntityState, StreamState
from connectors.api.gate import Gate
from connectors.api.journal import Journal
from connectors.api.labels import Labels
from connectors.api.live import LiveDecisions
from connectors.api.load_control import LoadControl, LoadLimits
from connectors.api.metrics import Metrics
from connectors.api.model_source import REGISTRY, ModelSource
from connectors.api.models import Models
from connectors.api.outbox import Outbox, kafka_producer
from connectors.api.rate_limit import RateLimiter
from connectors.api.rules import Rules, RulesError, default_rules
from connectors.api.scoring import Scoring
from connectors.api.served_model import ServedModel
from connectors.api.tokens import TokenBook, read_tokens
from connectors.online_store.errors import StoreNotFoundError
from connectors.online_store.store import open_store
from connectors.registry import CHALLENGER, CHAMPION
from infra.environment import service_environment
from infra.errors import ConfigurationError
from infra.files import write_atomically
from infra.settings import get_settings

if TYPE_CHECKING:
    from connectors.api.settings import ApiSettings
    from connectors.online_store.store import OnlineStore
    from tasks.fraud.dataset import DatasetConfig

logger = logging.getLogger(__name__)

RULES_FILE = "rules.json"
JOURNALS = ("transactions", "labels", "dead-letters")
DELIVER_SECONDS = 0.02
STORE_SECONDS = 30.0
"""How long a store may take to appear."""

_MIB = 2**20
_HOUR_MS = 3_600_000


def now_ms() -> int:
    """Return the present, epoch milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Service:
    """The running parts.

    Attributes:
        settings: The settings.
        tokens: Who may do what.
        metrics: Counters.
        live: Decisions for the page.
        load: The load control.
        gate: Lets requests pass.
        stores: The online store and, in mode stream, that of the answers.
        state: The entities' state.
        journals: Journals by name.
        models: Champion and challenger.
        engine: Scores and keeps.
        scoring: ``POST /v1/score``.
        labels: ``POST /v1/labels``.
        outbox: Events on their way to Kafka, in mode stream.
        started: Epoch milliseconds.
    """

    settings: ApiSettings
    tokens: TokenBook
    metrics: Metrics
    live: LiveDecisions
    load: LoadControl
    gate: Gate
    stores: tuple[OnlineStore, ...]
    state: EntityState
    journals: dict[str, Journal]
    models: Models
    engine: Engine
    scoring: Scoring
    labels: Labels
    outbox: Outbox | None
    started: int
    stopping: bool = False

    @property
    def config(self) -> DatasetConfig:
        """What the members of a transaction mean."""
        return self.engine.config

    def set_rules(self, rules: Rules) -> None:
        """Put rules in force and keep them. A stream has rules of its own (`penstock stream`)."""
        write_atomically(self.settings.home / RULES_FILE, json.dumps(rules.to_dict()))
        self.engine.rules = rules
        self.models.rules_were_set()
        logger.info("rules %s are in force", rules.version)

    async def run(self) -> None:
        """Do what is due now and then, until it is cancelled."""
        self.load.start(asyncio.get_running_loop())
        tasks = [asyncio.create_task(self._tick()), asyncio.create_task(self.models.save_often())]
        if self.outbox is not None:
            tasks.append(asyncio.create_task(self._deliver(self.outbox)))
        if self.settings.reload_seconds:
            tasks.append(asyncio.create_task(self.models.follow(self.settings.reload_seconds)))
        try:
            await asyncio.gather(*tasks)
        finally:
            self.load.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Keep what is under way and let go of files."""
        with suppress(OSError):
            self.models.save()
        for journal in self.journals.values():
            with suppress(OSError):
                journal.close()
        if self.outbox is not None:
            self.outbox.close()
        for store in self.stores:
            store.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(min(self.settings.journal_seconds / 4, 1.0))
            for name, journal in self.journals.items():
                try:
                    journal.tick()
                except OSError:
                    logger.exception("journal %s could not be closed", name)
            if isinstance(self.state, StreamState):
                self.state.overlay.expire()

    async def _deliver(self, outbox: Outbox) -> None:
        while True:
            await asyncio.sleep(DELIVER_SECONDS)
            outbox.tick()


def build_service(settings: ApiSettings) -> Service:
    """Open everything.

    Raises:
        PenstockError: Something is missing or cannot be used; the message names the remedy.
    """
    if not settings.model:
        raise ConfigurationError(
            "the API was not told which model to serve",
            "Set PENSTOCK_API_MODEL to a bundle folder or to registry:DATASET",
        )
    tokens = read_tokens(settings.tokens.get_secret_value(), settings.tokens_file)
    if not tokens:
        raise ConfigurationError(
            "the API has no tokens, so nobody could use it",
            "Set PENSTOCK_API_TOKENS to NAME:score+label+read:SECRET, or PENSTOCK_API_TOKENS_FILE",
        )
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    metrics, live = Metrics(), LiveDecisions()
    load = LoadControl(LoadLimits(settings.budget_ms / 1000))
    gate = Gate(tokens, RateLimiter(settings.rate, settings.burst), load, metrics)
    champion = _source(settings, settings.model, CHAMPION)
    model = champion.load()
    challenger = _source(settings, settings.challenger, CHALLENGER) if settings.challenger else None
    models = Models(champion, challenger, settings.home, load, metrics)
    rules, own = _rules(settings.home / RULES_FILE, model)
    open_parts = _embedded if settings.mode == "embedded" else _streamed
    parts = open_parts(settings, model, metrics)
    engine = Engine(
        parts.state,
        model,
        rules,
        hand_on=parts.transactions,
        metrics=metrics,
        live=live,
        shadow=models.shadow,
        reasons_from=settings.reasons_from,
    )
    models.start(engine, own_rules=own)
    dead = DeadLetters(
        parts.journals["dead-letters"],
        daily_bytes=settings.dead_letter_mib * _MIB,
        now_ms=now_ms,
    )
    scoring = Scoring(
        engine,
        gate,
        dead,
        metrics,
        max_body=settings.max_body_bytes,
        max_batch=settings.max_batch,
        explain_batches=settings.bulk_reasons,
        now_ms=now_ms,
    )
    labels = Labels(
        parts.state,
        model.bundle.config,
        dead,
        metrics,
        hand_on=parts.labels,
        max_batch=settings.max_batch,
        now_ms=now_ms,
    )
    service = Service(
        settings,
        tokens,
        metrics,
        live,
        load,
        gate,
        parts.stores,
        parts.state,
        parts.journals,
        models,
        engine,
        scoring,
        labels,
        parts.outbox,
        now_ms(),
    )
    _add_gauges(service, dead)
    return service


@dataclass(slots=True)
class _Parts:
    """What differs between the modes."""

    stores: tuple[OnlineStore, ...]
    state: EntityState
    journals: dict[str, Journal]
    transactions: HandOn
    labels: HandOn
    outbox: Outbox | None = None


def _embedded(settings: ApiSettings, model: ServedModel, metrics: Metrics) -> _Parts:
    address = settings.store or (
        f"lmdb://{(settings.home / 'store').resolve()}?sync=second"
        f"&limit_mib={round(settings.store_gib * 1024)}"
    )
    store = open_store(address)
    try:
        journals = {name: _journal(settings, name) for name in JOURNALS}
        state = EmbeddedState(
            model.bundle.config,
            store,
            cache_bytes=settings.cache_mib * _MIB,
            answer_ms=round(settings.answer_hours * _HOUR_MS),
        )
    except BaseException:
        store.close()
        raise
    return _Parts(
        (store,),
        state,
        journals,
        journal_hand_on(journals["transactions"], metrics),
        journal_hand_on(journals["labels"], metrics),
    )


def _streamed(settings: ApiSettings, model: ServedModel, metrics: Metrics) -> _Parts:
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
        settings.home / "outbox", producer, metrics, max_bytes=settings.outbox_mib * _MIB
    )
    state = StreamState(
        model.bundle.config,
        store,
        kept,
        overlay_seconds=settings.overlay_seconds,
        answer_ms=round(settings.answer_hours * _HOUR_MS),
    )
    prefix = settings.kafka_prefix or f"penstock.{model.bundle.config.name}"

    def to(topic: str) -> HandOn:
        return lambda lines, keys: outbox.append(f"{prefix}.{topic}", lines, keys)

    journals = {"dead-letters": _journal(settings, "dead-letters")}
    return _Parts((store, kept), state, journals, to("transactions"), to("labels"), outbox)


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


def _journal(settings: ApiSettings, name: str) -> Journal:
    return Journal(
        settings.journal_folder / name,
        max_bytes=settings.journal_mib * _MIB,
        max_seconds=settings.journal_seconds,
        clock=time.monotonic,
        now_ms=now_ms,
    )


def _source(settings: ApiSettings, address: str, alias: str) -> ModelSource:
    uri = settings.tracking_uri
    if address.startswith(REGISTRY) and not uri and not os.environ.get("MLFLOW_TRACKING_URI"):
        uri = service_environment(get_settings())["MLFLOW_TRACKING_URI"]  # the one of `penstock up`
    return ModelSource(address, alias, settings.home / "models", uri)


def _rules(path: Path, model: ServedModel) -> tuple[Rules, bool]:
    """Return the rules that were set, or the bundle's; and whether they were set."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default_rules(model.bundle.thresholds, model.bundle.digest), False
    except (OSError, ValueError) as error:
        raise RulesError(f"{path} cannot be read ({error})", "Correct or remove it") from error
    return Rules.from_dict(data, tuple(model.bundle.config.kinds)), True


def _add_gauges(service: Service, dead: DeadLetters) -> None:
    gauge = service.metrics.gauge
    load = service.load
    gauge(
        "penstock_api_wait_seconds",
        "How long a request waits now.",
        load.wait,
    )
    gauge("penstock_api_watchers", "Pages that watch decisions.", lambda: service.live.watchers)
    gauge(
        "penstock_api_entities_held",
        "Entities whose blocks are in memory.",
        lambda: sum(service.state.sizes().values()),
    )
    gauge("penstock_api_dead_letters", "Dead letters kept.", lambda: dead.written)
    gauge("penstock_api_dead_letters_dropped", "Dead letters not kept.", lambda: dead.dropped)
    outbox, state = service.outbox, service.state
    if outbox is not None:
        gauge("penstock_api_undelivered", "Events Kafka has not taken.", lambda: outbox.undelivered)
    if isinstance(state, StreamState):
        overlay = state.overlay
        gauge("penstock_api_overlaid", "Own events the stream has not counted.", overlay.__len__)
        gauge(
            "penstock_api_overlay_expired",
            "Own events the stream did not bring in time.",
            lambda: overlay.expired,
        )
    gauge("penstock_api_started_seconds", "Start.", lambda: service.started / 1000)
