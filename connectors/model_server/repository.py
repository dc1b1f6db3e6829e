"""The models in service: loaded whole before they answer, replaced between two requests.

An address moves as a whole or not at all: where one of its files cannot be opened, all that it
served before stays, and the trouble is told. A version that goes answers what it was asked; new
requests meet the new one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from connectors.api.metrics import Gauges, Labels
from connectors.api.problem import Problem
from connectors.model_server.batching import BatchConfig, Batcher, BatchEvents, Slots
from connectors.model_server.metrics import ModelMetrics
from connectors.model_server.onnx_model import OnnxModel, digest_of
from connectors.model_server.rows import ROWS, examples, rows_are_independent
from connectors.model_server.sources import Found, Source, SourceError
from infra.errors import ConfigurationError, PenstockError

logger = logging.getLogger(__name__)

PLATFORM = "onnx_onnxv1"


@dataclass(slots=True, eq=False)
class Version:
    """One version of a model in service.

    Attributes:
        name: Model.
        version: Its version.
        alias: Alias that led to it; empty: none.
        model: The opened file.
        together: Whether its requests share batches.
        batcher: Its queue.
    """

    name: str
    version: str
    alias: str
    model: OnnxModel
    together: bool
    batcher: Batcher

    @property
    def labels(self) -> Labels:
        """Its labels in metrics."""
        return (self.name, self.version)


@dataclass(slots=True)
class _Kept:
    """What an address serves.

    Attributes:
        source: The address.
        newest: What it said when it was read.
        versions: What it serves.
        trouble: Why it serves no newer ones; empty if it does.
    """

    source: Source
    newest: Hashable = None
    versions: list[Version] = field(default_factory=list)
    trouble: str = ""


class Repository:
    """Loads, finds and follows models."""

    def __init__(
        self,
        sources: list[Source],
        config: BatchConfig,
        metrics: ModelMetrics,
        executor: Executor,
        *,
        threads: int,
        concurrency: int,
    ) -> None:
        self._kept = [_Kept(source) for source in sources]
        self._config, self._metrics, self._executor = config, metrics, executor
        self._threads, self._slots = threads, Slots(concurrency)
        self._models: dict[str, dict[str, Version]] = {}
        self._default: dict[str, str] = {}
        self._leaving: list[Version] = []
        self._loading = asyncio.Lock()
        metrics.gauges(self._gauges())

    def start(self) -> None:
        """Load everything.

        Raises:
            PenstockError: Something cannot be served; the message says what.
        """
        for kept in self._kept:
            self._load(kept)
        self._publish()

    def names(self) -> list[str]:
        """Return the models in service."""
        return sorted(self._models)

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model in service."""
        return list(self._models.get(name, {}))

    def find(self, name: str, version: str = "") -> Version:
        """Return a version by its number or alias; empty: the one that serves.

        Raises:
            Problem: 404.
        """
        versions = self._models.get(name)
        if versions is None:
            known = ", ".join(self.names()[:20])
            raise Problem(404, "unknown-model", f"no model {name[:80]!r} here", f"Choose: {known}")
        number = version or self._default[name]
        found = versions.get(number) or next(
            (one for one in versions.values() if one.alias == version), None
        )
        if found is None:
            known = ", ".join(versions)
            raise Problem(
                404, "unknown-version", f"no version {version[:80]!r} of {name}", f"Choose: {known}"
            )
        return found

    def troubles(self) -> list[str]:
        """Return why addresses serve no newer models."""
        return [kept.trouble for kept in self._kept if kept.trouble]

    async def reload(self) -> bool:
        """Look for other models and serve them; returns whether there were any."""
        async with self._loading:
            changed = False
            for kept in self._kept:
                try:
                    newest = await asyncio.to_thread(kept.source.newest)
                    if newest == kept.newest and not kept.trouble:
                        continue
                    fresh = _Kept(kept.source, versions=kept.versions)
                    await asyncio.to_thread(self._load, fresh)
                except PenstockError as error:
                    if kept.trouble != str(error):
                        logger.error("models stay: %s", error)  # noqa: TRY400 - told whole
                    kept.trouble = str(error)
                    self._metrics.reloads.add("failed")
                    continue
                kept.trouble = ""
                kept.newest = fresh.newest
                changed |= self._replace(kept, fresh.versions)
            self._metrics.reloads.add("changed" if changed else "unchanged")
            return changed

    async def follow(self, seconds: float) -> None:
        """Look for other models now and then; runs until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.reload()
            except Exception:
                logger.exception("looking for models failed")

    def _replace(self, kept: _Kept, versions: list[Version]) -> bool:
        old, kept.versions = kept.versions, versions
        try:
            self._publish()
        except ConfigurationError as error:
            kept.versions, kept.trouble = old, str(error)
            logger.error("models stay: %s", error)  # noqa: TRY400 - told whole
            return False
        gone = [one for one in old if one not in versions]
        self._leaving = [one for one in (*self._leaving, *gone) if not one.batcher.idle]
        for one in versions:
            if one not in old:
                logger.info("%s version %s is in service", one.name, one.version)
        return bool(gone) or len(old) != len(versions)

    def _publish(self) -> None:
        """Put all versions into service at once.

        Raises:
            ConfigurationError: Two addresses serve other files under one name and version.
        """
        models: dict[str, dict[str, Version]] = {}
        default: dict[str, str] = {}
        for kept in self._kept:
            for one in kept.versions:
                there = models.setdefault(one.name, {}).setdefault(one.version, one)
                if there.model.digest != one.model.digest:
                    raise ConfigurationError(
                        f"{kept.source.address.text}: {one.name} version {one.version} "
                        "is served from another address, too",
                        "Give one of them another name: NAME=ADDRESS",
                    )
            own: dict[str, str] = {}
            for one in kept.versions:  # in ascending order: the last is the newest
                own[one.name] = one.version
            default = own | default  # the first address of a name decides
        self._models, self._default = models, default

    def _load(self, kept: _Kept) -> None:
        """Read and open what an address holds, taking over what is open already."""
        open_now = {(one.name, one.version, one.model.digest): one for one in kept.versions}
        newest = kept.source.newest()
        versions: list[Version] = []
        for found in kept.source.load():
            same = open_now.get((found.name, found.version, digest_of(found.content)))
            kept_open = same is not None and same.alias == found.alias
            versions.append(same if same is not None and kept_open else self._opened(found))
        if not versions:
            raise SourceError(f"{kept.source.address.text}: holds no model", "Put one there")
        kept.newest, kept.versions = newest, versions

    def _opened(self, found: Found) -> Version:
        what = f"{found.name} version {found.version}"
        model = OnnxModel(found.content, what, threads=self._threads)
        together = self._warm(model, what)
        events = self._events((found.name, found.version))
        batcher = Batcher(
            model, self._config, self._slots, self._executor, events, together=together
        )
        return Version(found.name, found.version, found.alias, model, together, batcher)

    def _warm(self, model: OnnxModel, what: str) -> bool:
        """Run a model on made-up inputs; returns whether requests may be put together."""
        feeds = examples(model, ROWS)
        if feeds is None:
            logger.warning(
                "%s: runs on no made-up input; it is not warm and takes no batches", what
            )
            return False
        if not model.free_rows:
            return False
        together = rows_are_independent(model, feeds)
        if not together:
            logger.warning("%s: rows depend on each other, so requests are not put together", what)
        return together

    def _events(self, labels: Labels) -> BatchEvents:
        metrics = self._metrics

        def ran(requests: int, rows: int, seconds: float) -> None:
            metrics.batches.observe(labels, requests)
            metrics.runs.observe(labels, seconds)
            metrics.rows.add(*labels, by=rows)

        return BatchEvents(ran, lambda seconds: metrics.waits.observe(labels, seconds))

    def _gauges(self) -> list[Gauges]:
        def read(value: Any) -> Any:
            def now() -> Mapping[Labels, float]:
                self._leaving = [one for one in self._leaving if not one.batcher.idle]
                served = [one for each in self._models.values() for one in each.values()]
                return {one.labels: float(value(one)) for one in (*self._leaving, *served)}

            return now

        names = ("model", "version")
        return [
            Gauges(
                "penstock_models_queue_depth",
                "Requests that wait.",
                names,
                read(lambda one: one.batcher.depth),
            ),
            Gauges(
                "penstock_models_running",
                "Batches under way.",
                names,
                read(lambda one: one.batcher.running),
            ),
            Gauges(
                "penstock_models_serving",
                "1 for the version that answers by name, 0 for others.",
                names,
                read(lambda one: self._default.get(one.name) == one.version),
            ),
        ]
