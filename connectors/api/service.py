"""Everything the API holds while it runs, and what it does beside answering."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.api.dead_letters import DeadLetters
from connectors.api.engine import Engine
from connectors.api.entity_states import EntityState, StreamState
from connectors.api.explaining import Explaining
from connectors.api.gate import Gate
from connectors.api.labels import Labels
from connectors.api.live import LiveDecisions
from connectors.api.load_control import LoadControl
from connectors.api.metrics import Metrics
from connectors.api.models import Models
from connectors.api.modes import Foundation
from connectors.api.outbox import Outbox
from connectors.api.rules import Rules
from connectors.api.scoring import Scoring
from connectors.api.tokens import TokenBook
from infra.files import write_atomically

if TYPE_CHECKING:
    from connectors.api.settings import ApiSettings
    from tasks.fraud.dataset import DatasetConfig

logger = logging.getLogger(__name__)

RULES_FILE = "rules.json"
DELIVER_SECONDS = 0.02


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
        foundation: State, and where accepted events go.
        models: Champion and challenger.
        engine: Scores and keeps.
        scoring: ``POST /v1/score``.
        labels: ``POST /v1/labels``.
        explaining: ``POST /v1/explain``.
        dead: Bodies that broke a rule.
        started: Epoch milliseconds.
    """

    settings: ApiSettings
    tokens: TokenBook
    metrics: Metrics
    live: LiveDecisions
    load: LoadControl
    gate: Gate
    foundation: Foundation
    models: Models
    engine: Engine
    scoring: Scoring
    labels: Labels
    explaining: Explaining
    dead: DeadLetters
    started: int
    stopping: bool = False

    def __post_init__(self) -> None:
        """Tell how much there is of everything."""
        _add_gauges(self)

    @property
    def state(self) -> EntityState:
        """The entities' state."""
        return self.foundation.state

    @property
    def config(self) -> DatasetConfig:
        """What the members of a transaction mean."""
        return self.engine.config

    def set_rules(self, rules: Rules) -> None:
        """Put rules in force and keep them. A stream has rules of its own (`penstock stream`)."""
        write_atomically(self.settings.home / RULES_FILE, json.dumps(rules.to_dict()))
        self.engine.rules = rules
        self.engine.warn_of_vetoes()
        self.models.rules_were_set()
        logger.info("rules %s are in force", rules.version)

    async def run(self) -> None:
        """Do what is due now and then, until it is cancelled."""
        self.load.start(asyncio.get_running_loop())
        tasks = [asyncio.create_task(self._tick()), asyncio.create_task(self.models.save_often())]
        if self.foundation.outbox is not None:
            tasks.append(asyncio.create_task(self._deliver(self.foundation.outbox)))
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
        self.explaining.close()
        with suppress(OSError):
            self.models.save()
        for journal in self.foundation.journals.values():
            with suppress(OSError):
                journal.close()
        if self.foundation.outbox is not None:
            self.foundation.outbox.close()
        for store in self.foundation.stores:
            store.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(min(self.settings.journal_seconds / 4, 1.0))
            for name, journal in self.foundation.journals.items():
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


def _add_gauges(service: Service) -> None:
    gauge = service.metrics.gauge
    load, dead = service.load, service.dead
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
    outbox, state = service.foundation.outbox, service.state
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
