"""The models in service: the champion that answers, the challenger that only watches.

A new champion is loaded in a thread and takes over between two requests, so none is dropped. One
that cannot be loaded, does not score as at training or reads other state is not taken; the one in
service stays, and ``/v1/model`` says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.api.approved_rules import UnreadFeatureError
from connectors.api.load_control import Level, LoadControl
from connectors.api.metrics import Metrics
from connectors.api.model_source import ModelSource
from connectors.api.rules import Rules, default_rules
from connectors.api.served_model import ModelError, ServedModel, same_state
from connectors.api.shadow import ShadowComparison, load_shadow

if TYPE_CHECKING:
    from connectors.api.engine import Engine
    from tasks.fraud.online.rows import OnlineRows

logger = logging.getLogger(__name__)

SHADOW_FILE = "shadow.json"


class Models:
    """Loads, swaps and compares models.

    Attributes:
        engine: What the champion serves.
        challenger: The challenger, None without one.
        comparison: Champion against challenger, None without one.
        trouble: Why the last reload failed, empty if it did not.
    """

    def __init__(
        self,
        champion: ModelSource,
        challenger: ModelSource | None,
        folder: Path,
        load: LoadControl,
        metrics: Metrics,
    ) -> None:
        self._champion, self._challenger = champion, challenger
        self._folder, self._load, self._metrics = folder, load, metrics
        self.engine: Engine | None = None
        self.challenger: ServedModel | None = None
        self.comparison: ShadowComparison | None = None
        self.trouble = ""
        self.since = datetime.now(UTC)
        self._loading = asyncio.Lock()
        self._own_rules = False

    def start(self, engine: Engine, *, own_rules: bool) -> None:
        """Serve the champion of an engine; load the challenger if there is one.

        Args:
            engine: The engine.
            own_rules: Whether somebody set its rules, so that a new champion keeps them.
        """
        self.engine, self._own_rules = engine, own_rules
        if self._challenger is not None:
            try:
                self._watch(self._challenger.load())
            except ModelError as error:
                self.trouble = str(error)
                logger.error("no challenger: %s", error)  # noqa: TRY400 - told whole

    async def reload(self) -> bool:
        """Load both anew; returns whether anything changed.

        Raises:
            ModelError: The champion cannot be replaced; the one in service stays.
        """
        async with self._loading:
            try:
                changed = await self._reload()
            except ModelError as error:
                self.trouble = str(error)
                self._metrics.reloads.add("failed")
                raise
            self.trouble = ""
            self._metrics.reloads.add("changed" if changed else "unchanged")
            return changed

    async def follow(self, seconds: float) -> None:
        """Look for new models now and then; runs until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                found = await asyncio.to_thread(self._newest)
                if found:
                    await self.reload()
            except ModelError as error:
                logger.error("model stays: %s", error)  # noqa: TRY400 - told whole
            except Exception:
                logger.exception("looking for new models failed")

    def rules_were_set(self) -> None:
        """Keep the rules in force when the champion changes."""
        self._own_rules = True
        self._compare_anew()

    def shadow(self, rows: OnlineRows, scores: Sequence[float], decisions: Sequence[str]) -> None:
        """Let the challenger score rows that were just answered, after the answer has gone."""
        if self.challenger is not None and self.comparison is not None:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._compare, rows, scores, decisions)

    def describe(self) -> dict[str, Any]:
        """Return both models and their comparison for people."""
        engine = self._engine()
        model = engine.model
        manifest = model.bundle.manifest
        thresholds = model.bundle.thresholds
        return {
            "champion": {
                **_described(model),
                "dataset": model.bundle.config.name,
                "features_version": manifest.features_version,
                "fallback_heads": list(model.heads[1:]),
                "thresholds": thresholds,
                "in_service_since": self.since.isoformat(),
            },
            "challenger": None if self.challenger is None else _described(self.challenger),
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "rules": engine.rules.version,
            "approved_rules": engine.described_rules(),
            "trouble": self.trouble or None,
        }

    def save(self) -> None:
        """Keep the comparison."""
        if self.comparison is not None:
            self.comparison.save(self._folder / SHADOW_FILE)

    async def save_often(self, seconds: float = 5.0) -> None:
        """Keep the comparison now and then; runs until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                self.save()
            except OSError:
                logger.exception("the comparison could not be kept")

    def _engine(self) -> Engine:
        if self.engine is None:
            raise RuntimeError("models were not started")
        return self.engine

    def _newest(self) -> bool:
        engine = self._engine()
        newest = self._champion.newest()
        if newest and newest != engine.model.bundle.digest:
            return True
        if self._challenger is None:
            return False
        watched = self.challenger.bundle.digest if self.challenger else ""
        other = self._challenger.newest()
        return bool(other) and other != watched

    async def _reload(self) -> bool:
        engine = self._engine()
        changed = False
        model = await asyncio.to_thread(self._champion.load)
        if model.bundle.digest != engine.model.bundle.digest:
            if not same_state(model.bundle.config, engine.config):
                raise ModelError(
                    f"the model of {self._champion.address} reads other columns, units or delay "
                    "than the state that is kept here",
                    "Start a new API with a store seeded for its dataset config",
                )
            try:
                engine.replace_model(model)
            except UnreadFeatureError as error:
                raise ModelError(error.what, error.fix) from error
            if not self._own_rules:
                engine.rules = default_rules(model.bundle.thresholds, model.bundle.digest)
            engine.warn_of_vetoes()
            self.since = datetime.now(UTC)
            logger.info("champion is now %s", model.bundle.digest[:16])
            changed = True
            self._compare_anew()
        elif model.words != engine.model.words:
            engine.replace_model(model)
            logger.info("reasons are told by another catalogue now")
            changed = True
        if self._challenger is not None:
            other = await asyncio.to_thread(self._challenger.load)
            if self.challenger is None or other.bundle.digest != self.challenger.bundle.digest:
                self._watch(other)
                changed = True
        return changed

    def _watch(self, model: ServedModel) -> None:
        if not same_state(model.bundle.config, self._engine().config):
            raise ModelError(
                f"the challenger of {model.origin.source} reads other columns than the champion",
                "Compare models of one dataset config",
            )
        self.challenger = model
        self._compare_anew()

    def _compare_anew(self) -> None:
        engine = self._engine()
        if self.challenger is None:
            return
        self.comparison = load_shadow(
            self._folder / SHADOW_FILE,
            engine.model.bundle.digest,
            self.challenger.bundle.digest,
            engine.rules.version,
        )

    def _compare(self, rows: OnlineRows, scores: Sequence[float], decisions: Sequence[str]) -> None:
        challenger, comparison = self.challenger, self.comparison
        if challenger is None or comparison is None:
            return
        if self._load.level(self._load.wait()) is not Level.FULL:
            comparison.skipped += len(scores)
            return
        try:
            other = challenger.online.score(rows, challenger.online.features(rows)).tolist()
        except Exception:  # noqa: BLE001 - a challenger must never harm the champion
            comparison.failed += len(scores)
            return
        rules: Rules = self._engine().rules
        for score, theirs, decision in zip(scores, other, decisions, strict=True):
            comparison.add(score, theirs, decision, rules.decide(theirs))


def _described(model: ServedModel) -> dict[str, Any]:
    return {
        **model.described,
        "digest": model.bundle.digest,
        "source": model.origin.source,
        "head": model.heads[0],
        "heads": list(model.bundle.heads),
        "trained_until": datetime.fromtimestamp(
            model.bundle.manifest.trained_until / 1000, UTC
        ).isoformat(),
    }
