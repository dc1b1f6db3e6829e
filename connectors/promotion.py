"""Promotion of a model as a transaction: it serves entirely or nothing has changed.

    publish -> alias challenger -> smoke test -> compare -> alias champion -> confirm

An error anywhere puts the aliases back as they were and writes the reason on the version; the old
champion serves throughout. A challenger that loses the comparison keeps its alias, for people to
look at. What a promotion killed after the move left open is completed when it is run again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol

from connectors.registry import CHALLENGER, CHAMPION, B, ModelVersion, Registry, RegistryError
from connectors.uris import without_login

logger = logging.getLogger(__name__)

Stage = Literal["publish", "alias", "smoke", "compare", "move", "confirm"]
STAGES: tuple[Stage, ...] = ("publish", "alias", "smoke", "compare", "move", "confirm")
STATUS_TAG = "promotion"
PREVIOUS_TAG = "previous_champion"
SETTLED = frozenset({"promoted", "rejected", "rolled back"})
"""States of a version in which no promotion of it is under way or broke off."""


class Figures(Protocol):
    """A paired comparison, as a dataclass: two figures, and the interval of their difference."""

    @property
    def first(self) -> float:
        """Figure of the challenger."""

    @property
    def second(self) -> float:
        """Figure of its rival."""

    @property
    def low(self) -> float:
        """Lower end of the interval of the difference."""

    @property
    def high(self) -> float:
        """Upper end of it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a comparison.

    Attributes:
        wins: Whether the challenger deserves to serve.
        reason: Why, or why not, in one sentence.
        rival: What it was compared with, empty if nothing.
        result: The paired figures, None when it did not come to that.
        figure: Name of the figure, as tags of the version have it.
    """

    wins: bool
    reason: str
    rival: str = ""
    result: Figures | None = None
    figure: str = "ap"


Compare = Callable[[B, B | None, str], Verdict]
"""``(challenger, champion, its version)``; no champion yet: None and ""."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """What came of it.

    Attributes:
        model: Registered model.
        version: The new version; empty when not even publishing worked.
        promoted: Whether it serves now.
        reason: Why, or why not, in one sentence.
        serving: Version that serves now, empty if none or not known.
        rival: What it was compared with.
        comparison: The paired figures, None when it did not come to that.
        failed: Stage that raised, empty if none.
        unrestored: Aliases that could not be put back and may point to the new version, each with
            the Python call that puts it back.
    """

    model: str
    version: str
    promoted: bool
    reason: str
    serving: str
    rival: str = ""
    comparison: Figures | None = None
    failed: str = ""
    unrestored: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


class PromotionError(RuntimeError):
    """Promotion broke off; the champion is the one from before, or the message says otherwise.

    Attributes:
        outcome: What is known about it.
    """

    def __init__(self, outcome: Promotion) -> None:
        told = [
            f"alias '{alias}' may point to version {outcome.version} and could not be put back; "
            f"do it by hand: {call}"
            for alias, call in outcome.unrestored.items()
        ]
        if CHAMPION not in outcome.unrestored:
            serving = f"version {outcome.serving}" if outcome.serving else "no model"
            told.insert(0, f"{serving} serves as before")
        super().__init__(
            f"promotion of {outcome.model} stopped at '{outcome.failed}': {outcome.reason}; "
            + "; ".join(told)
        )
        self.outcome = outcome


def promote(
    registry: Registry[B],
    bundle: B,
    compare: Compare[B],
    *,
    cache: Path,
    run_id: str = "",
    on_stage: Callable[[Stage], None] | None = None,
) -> Promotion:
    """Publish a bundle and let it serve if it deserves to.

    Args:
        registry: Where models are kept.
        bundle: The challenger.
        compare: Decides whether the challenger, as fetched from the registry, deserves to serve.
        cache: Folder for fetched bundles.
        run_id: Training run the model belongs to.
        on_stage: Called as each stage begins.

    Raises:
        PromotionError: When a stage failed; the aliases are as before, unless its message names
            one that could not be put back.
    """
    return _Transaction(registry, bundle, compare, cache, run_id, on_stage).run()


class _Transaction(Generic[B]):
    """State of one promotion, so that it can be undone from any point."""

    def __init__(
        self,
        registry: Registry[B],
        bundle: B,
        compare: Compare[B],
        cache: Path,
        run_id: str,
        on_stage: Callable[[Stage], None] | None,
    ) -> None:
        self.registry, self.bundle, self.compare = registry, bundle, compare
        self.cache, self.run_id, self.on_stage = cache, run_id, on_stage
        self.name = registry.name_of(bundle)
        self.stage: Stage = "publish"
        self.champion: ModelVersion | None = None
        self.challenger: ModelVersion | None = None
        self.version: ModelVersion | None = None
        self.verdict: Verdict | None = None

    def run(self) -> Promotion:
        try:
            self.champion = self.registry.by_alias(self.name, CHAMPION)
            self.challenger = self.registry.by_alias(self.name, CHALLENGER)
            if self.champion and self.champion.digest == self.bundle.digest:
                return self._already(self.champion)
            return self._stages()
        except BaseException as error:
            # Ctrl-C and every other end must leave the old champion serving, too.
            outcome = self._undo(error)
            if isinstance(error, Exception):
                raise PromotionError(outcome) from error
            raise

    def _stages(self) -> Promotion:
        self._begin("publish")
        version = self.version = self.registry.publish(self.bundle, run_id=self.run_id)
        self._begin("alias")
        self.registry.set_alias(self.name, CHALLENGER, version.version)
        self._begin("smoke")
        self.registry.smoke_test(version)
        self._begin("compare")
        verdict = self.verdict = self._compare(version)
        if not verdict.wins:
            self.registry.tag(version, self._tags("rejected", verdict.reason))
            return self._outcome(promoted=False, reason=verdict.reason)
        self._begin("move")
        previous = self.champion.version if self.champion else ""
        tags = {PREVIOUS_TAG: previous} | self._tags("moving", verdict.reason)
        self.registry.tag(version, tags)
        self._move(version)
        self._finish(version)
        return self._outcome(promoted=True, reason=verdict.reason)

    def _finish(self, version: ModelVersion) -> None:
        self._begin("confirm")
        self._confirm(version)
        self.registry.tag(version, {STATUS_TAG: "promoted"})
        self._drop_challenger(version)

    def _drop_challenger(self, version: ModelVersion) -> None:
        now = self.registry.by_alias(self.name, CHALLENGER)
        if now and now.version == version.version:
            self.registry.drop_alias(self.name, CHALLENGER)

    def _already(self, serving: ModelVersion) -> Promotion:
        """Promote what serves: nothing to do but what a promotion killed after the move left."""
        reason = "this bundle serves already"
        if serving.tags.get(STATUS_TAG) in SETTLED:
            self._drop_challenger(serving)
            self.version = serving
            return self._outcome(promoted=True, reason=reason)
        self.version = serving
        # Until it is confirmed, an error brings back what it replaced.
        previous = serving.tags.get(PREVIOUS_TAG)
        if previous is not None:
            self.champion = self.registry.version(self.name, previous) if previous else None
        if self.challenger and self.challenger.version == serving.version:
            self.challenger = None
        self._finish(serving)
        reason += "; its promotion had broken off after the move and is complete now"
        return self._outcome(promoted=True, reason=reason)

    def _begin(self, stage: Stage) -> None:
        self.stage = stage
        logger.info("promotion of %s: %s", self.name, stage)
        if self.on_stage:
            self.on_stage(stage)

    def _compare(self, version: ModelVersion) -> Verdict:
        """Decide, and say why."""
        challenger = self.registry.fetch(version, self.cache)
        if self.champion is None:
            return self.compare(challenger, None, "")
        champion = self.registry.fetch(self.champion, self.cache)
        return self.compare(challenger, champion, self.champion.version)

    def _move(self, version: ModelVersion) -> None:
        """Move the alias unless someone else moved it meanwhile."""
        now = self.registry.by_alias(self.name, CHAMPION)
        if (now and now.version) != (self.champion and self.champion.version):
            raise RegistryError("another promotion changed the champion meanwhile; try again")
        self.registry.set_alias(self.name, CHAMPION, version.version)

    def _confirm(self, version: ModelVersion) -> None:
        serving = self.registry.by_alias(self.name, CHAMPION)
        if serving is None or serving.version != version.version:
            raise RegistryError("the registry does not show the new champion")
        self.registry.fetch(serving, self.cache).self_check()

    def _undo(self, error: BaseException) -> Promotion:
        """Put the aliases back and write the reason down; never raises."""
        reason = without_login(f"{type(error).__name__}: {error}")
        logger.error("promotion of %s failed at %s: %s", self.name, self.stage, reason)
        unrestored = {
            alias: _alias_call(self.name, alias, before)
            for alias, before in self._touched().items()
            if not self._restore(alias, before)
        }
        if self.version:
            tags = {"promotion_stage": self.stage} | self._tags("failed", reason)
            try:
                self.registry.tag(self.version, tags)
            except Exception:
                # The registry may be what failed; the caller gets the first error all the same.
                logger.exception("cannot tag %s", self.version.uri)
        return self._outcome(
            promoted=False, reason=reason, failed=self.stage, unrestored=unrestored
        )

    def _touched(self) -> dict[str, ModelVersion | None]:
        """Return the aliases that may point to the new version by now, and what they were."""
        if self.version is None or self.stage == "publish":
            return {}
        moved: dict[str, ModelVersion | None] = (
            {CHAMPION: self.champion} if self.stage in {"move", "confirm"} else {}
        )
        return moved | {CHALLENGER: self.challenger}

    def _restore(self, alias: str, before: ModelVersion | None) -> bool:
        """Put an alias back if it points to the new version; tell whether it is as before."""
        try:
            now = self.registry.by_alias(self.name, alias)
            mine = self.version and now and now.version == self.version.version
            if mine and before is None:
                self.registry.drop_alias(self.name, alias)
            elif mine and before:
                self.registry.set_alias(self.name, alias, before.version)
        except Exception:
            # Nothing more can be done from here, but it must be seen.
            call = _alias_call(self.name, alias, before)
            logger.exception("cannot restore alias %s of %s; by hand: %s", alias, self.name, call)
            return False
        return True

    def _tags(self, status: str, reason: str) -> dict[str, str]:
        """Return the tags of a version; the status comes last, so that it vouches for the rest."""
        tags = {"promotion_reason": reason[:4_000]}
        if self.verdict and (result := self.verdict.result):
            tags |= {
                "promotion_rival": self.verdict.rival,
                f"promotion_{self.verdict.figure}": f"{result.first:.5f}",
                f"promotion_rival_{self.verdict.figure}": f"{result.second:.5f}",
                "promotion_low": f"{result.low:+.5f}",
                "promotion_high": f"{result.high:+.5f}",
            }
        return tags | {STATUS_TAG: status}

    def _outcome(
        self,
        *,
        promoted: bool,
        reason: str,
        failed: str = "",
        unrestored: dict[str, str] | None = None,
    ) -> Promotion:
        number = self.version.version if self.version else ""
        old = self.champion.version if self.champion and CHAMPION not in (unrestored or {}) else ""
        return Promotion(
            model=self.name,
            version=number,
            promoted=promoted,
            reason=reason,
            serving=number if promoted else old,
            rival=self.verdict.rival if self.verdict else "",
            comparison=self.verdict.result if self.verdict else None,
            failed=failed,
            unrestored=unrestored or {},
        )


def _alias_call(name: str, alias: str, before: ModelVersion | None) -> str:
    """Return the Python call that makes an alias what it was."""
    if before is None:
        return f"mlflow.MlflowClient().delete_registered_model_alias({name!r}, {alias!r})"
    arguments = f"{name!r}, {alias!r}, {before.version!r}"
    return f"mlflow.MlflowClient().set_registered_model_alias({arguments})"


def roll_back(registry: Registry[B], dataset: str, *, reason: str) -> ModelVersion:
    """Let the champion before the present one serve again, after a smoke test.

    Raises:
        RegistryError: When there is no earlier champion or it no longer works.
    """
    name = registry.kind.model_name(dataset)
    serving = registry.by_alias(name, CHAMPION)
    if serving is None:
        raise RegistryError(f"{name} has no champion to roll back")
    number = serving.tags.get(PREVIOUS_TAG, "")
    if not number:
        raise RegistryError(f"{serving.uri} replaced no other champion; nothing to roll back to")
    previous = registry.version(name, number)
    registry.smoke_test(previous)
    registry.set_alias(name, CHAMPION, number)
    registry.tag(serving, {"promotion_reason": reason, STATUS_TAG: "rolled back"})
    logger.warning("%s: version %s serves again (%s)", name, number, reason)
    return previous
