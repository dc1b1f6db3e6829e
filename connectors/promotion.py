"""Promotion of a model as a transaction: it serves entirely or nothing has changed.

    publish -> alias challenger -> smoke test -> compare -> alias champion -> confirm

An error anywhere puts the aliases back as they were and writes the reason on the version; the old
champion serves throughout. A challenger that loses the comparison keeps its alias, for people to
look at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from connectors.registry import (
    CHALLENGER,
    CHAMPION,
    ModelVersion,
    Registry,
    RegistryError,
    model_name,
)
from tasks.fraud.bundle import Bundle
from tasks.fraud.evaluation.paired import PairedResult, PairedRules, compare_paired

logger = logging.getLogger(__name__)

Stage = Literal["publish", "alias", "smoke", "compare", "move", "confirm"]
STAGES: tuple[Stage, ...] = ("publish", "alias", "smoke", "compare", "move", "confirm")
PREVIOUS_TAG = "previous_champion"


@dataclass(frozen=True, slots=True)
class PromotionRules:
    """When a challenger replaces the champion.

    Attributes:
        margin: Average precision the lower bound must exceed. 0: the challenger must be better
            beyond doubt. A small negative value: it must not be worse by more than that, as
            refreshed embeddings are promoted.
        paired: Bootstrap settings.
    """

    margin: float = 0.0
    paired: PairedRules = field(default_factory=PairedRules)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not -0.5 <= self.margin <= 0.5:
            raise ValueError(f"promotion margin {self.margin} must lie in -0.5..0.5")


@dataclass(frozen=True, slots=True)
class ComparisonWeek:
    """The newest labelled week, which no compared model may have learnt from.

    Attributes:
        start: First instant, epoch milliseconds.
        end: End, exclusive.
        label: int8 ``[n]``; 1 fraud, 0 legitimate.
        cluster: ``[n]`` entity of each row, for the bootstrap.
        score: ``(bundle, head) -> float64 [n]``; scores the rows from the raw transactions, so
            that models with different features can be compared.
    """

    start: int
    end: int
    label: NDArray[np.int8]
    cluster: NDArray[np.integer[Any]]
    score: Callable[[Bundle, str], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Promotion:
    """What came of it.

    Attributes:
        model: Registered model.
        version: The new version; empty when not even publishing worked.
        promoted: Whether it serves now.
        reason: Why, or why not, in one sentence.
        serving: ModelVersion that serves now, empty if none.
        rival: What it was compared with.
        comparison: The paired figures, None when it did not come to that.
        failed: Stage that raised, empty if none.
    """

    model: str
    version: str
    promoted: bool
    reason: str
    serving: str
    rival: str = ""
    comparison: PairedResult | None = None
    failed: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


class PromotionError(RuntimeError):
    """Promotion broke off; the champion is the one from before.

    Attributes:
        outcome: What is known about it.
    """

    def __init__(self, outcome: Promotion) -> None:
        super().__init__(
            f"promotion of {outcome.model} stopped at '{outcome.failed}': {outcome.reason}; "
            f"{'version ' + outcome.serving if outcome.serving else 'no model'} serves as before"
        )
        self.outcome = outcome


def promote(
    registry: Registry,
    bundle: Bundle,
    week: ComparisonWeek,
    *,
    cache: Path,
    rules: PromotionRules | None = None,
    run_id: str = "",
    on_stage: Callable[[Stage], None] | None = None,
) -> Promotion:
    """Publish a bundle and let it serve if it deserves to.

    Args:
        registry: Where models are kept.
        bundle: The challenger.
        week: What the models are compared on.
        cache: Folder for fetched bundles.
        rules: When the challenger wins.
        run_id: Training run the model belongs to.
        on_stage: Called as each stage begins.

    Raises:
        PromotionError: When a stage failed; the aliases are as before.
    """
    rules = rules or PromotionRules()
    return _Transaction(registry, bundle, week, cache, rules, run_id, on_stage).run()


class _Transaction:
    """State of one promotion, so that it can be undone from any point."""

    def __init__(
        self,
        registry: Registry,
        bundle: Bundle,
        week: ComparisonWeek,
        cache: Path,
        rules: PromotionRules,
        run_id: str,
        on_stage: Callable[[Stage], None] | None,
    ) -> None:

        self.registry, self.bundle, self.week = registry, bundle, week
        self.cache, self.rules, self.run_id = cache, rules, run_id
        self.on_stage = on_stage
        self.name = model_name(bundle.config.name)
        self.stage: Stage = "publish"
        self.champion: ModelVersion | None = None
        self.challenger: ModelVersion | None = None
        self.version: ModelVersion | None = None
        self.rival = ""
        self.comparison: PairedResult | None = None

    def run(self) -> Promotion:
        try:
            self.champion = self.registry.by_alias(self.name, CHAMPION)
            self.challenger = self.registry.by_alias(self.name, CHALLENGER)
            if self.champion and self.champion.digest == self.bundle.digest:
                return self._already()
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
        wins, reason = self._compare(version)
        if not wins:
            self.registry.tag(version, self._tags("rejected", reason))
            return self._outcome(promoted=False, reason=reason)
        self._begin("move")
        self._move(version)
        self._begin("confirm")
        self._confirm(version)
        previous = self.champion.version if self.champion else ""
        self.registry.tag(version, self._tags("promoted", reason) | {PREVIOUS_TAG: previous})
        self.registry.drop_alias(self.name, CHALLENGER)
        return self._outcome(promoted=True, reason=reason)

    def _already(self) -> Promotion:
        """A repeated promotion of what serves changes nothing."""
        self.version = self.champion
        return self._outcome(promoted=True, reason="this bundle serves already")

    def _begin(self, stage: Stage) -> None:
        self.stage = stage
        logger.info("promotion of %s: %s", self.name, stage)
        if self.on_stage:
            self.on_stage(stage)

    def _compare(self, version: ModelVersion) -> tuple[bool, str]:
        """Decide, and say why."""
        week = self.week
        challenger = self.registry.fetch(version, self.cache)
        if challenger.manifest.trained_until > week.start:
            raise RegistryError("the comparison week overlaps the challenger's training")
        if self.champion is None:
            return self._compare_with_baseline(challenger)
        champion = self.registry.fetch(self.champion, self.cache)
        self.rival = f"champion (version {self.champion.version})"
        if champion.manifest.trained_until > week.start:
            return False, (
                f"{self.rival} learnt from the comparison week; wait until newer labels are known"
            )
        self.comparison = compare_paired(
            week.label,
            week.score(challenger, ""),
            week.score(champion, ""),
            week.cluster,
            self.rules.paired,
        )
        wins = self.comparison.low > self.rules.margin
        return wins, self._sentence(f"lower bound must exceed {self.rules.margin:+.3f}")

    def _compare_with_baseline(self, challenger: Bundle) -> tuple[bool, str]:
        """Let a first model serve unless it is clearly worse than logistic regression."""
        if challenger.active == "logistic" or "logistic" not in challenger.heads:
            return True, "first model of its name; no logistic baseline beside it to compare with"
        self.rival = "logistic baseline"
        week = self.week
        self.comparison = compare_paired(
            week.label,
            week.score(challenger, ""),
            week.score(challenger, "logistic"),
            week.cluster,
            self.rules.paired,
        )
        wins = self.comparison.high >= 0
        return wins, self._sentence("first model: upper bound must not lie below 0")

    def _sentence(self, rule: str) -> str:
        c = self.comparison
        if c is None:
            return rule
        return (
            f"AP {c.first:.3f} against {c.second:.3f} of the {self.rival}, difference "
            f"{c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}] on {c.frauds} frauds ({rule})"
        )

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
        reason = f"{type(error).__name__}: {error}"
        logger.error("promotion of %s failed at %s: %s", self.name, self.stage, reason)
        before = {CHAMPION: self.champion, CHALLENGER: self.challenger}
        for alias, version in before.items() if self.version else ():
            self._restore(alias, version)
        if self.version:
            tags = self._tags("failed", reason) | {"promotion_stage": self.stage}
            try:
                self.registry.tag(self.version, tags)
            except Exception:
                # The registry may be what failed; the caller gets the first error all the same.
                logger.exception("cannot tag %s", self.version.uri)
        return self._outcome(promoted=False, reason=reason, failed=self.stage)

    def _restore(self, alias: str, version: ModelVersion | None) -> None:
        try:
            now = self.registry.by_alias(self.name, alias)
            mine = self.version and now and now.version == self.version.version
            if not mine:
                return
            if version is None:
                self.registry.drop_alias(self.name, alias)
            else:
                self.registry.set_alias(self.name, alias, version.version)
        except Exception:
            # Nothing more can be done from here, but it must be seen.
            logger.exception("cannot restore alias %s of %s", alias, self.name)

    def _tags(self, status: str, reason: str) -> dict[str, str]:
        tags = {"promotion": status, "promotion_reason": reason[:4_000]}
        if self.comparison:
            tags |= {
                "promotion_rival": self.rival,
                "promotion_ap": f"{self.comparison.first:.5f}",
                "promotion_rival_ap": f"{self.comparison.second:.5f}",
                "promotion_low": f"{self.comparison.low:+.5f}",
                "promotion_high": f"{self.comparison.high:+.5f}",
            }
        return tags

    def _outcome(self, *, promoted: bool, reason: str, failed: str = "") -> Promotion:
        number = self.version.version if self.version else ""
        old = self.champion.version if self.champion else ""
        return Promotion(
            model=self.name,
            version=number,
            promoted=promoted,
            reason=reason,
            serving=number if promoted else old,
            rival=self.rival,
            comparison=self.comparison,
            failed=failed,
        )


def roll_back(registry: Registry, dataset: str, *, reason: str) -> ModelVersion:
    """Let the champion before the present one serve again, after a smoke test.

    Raises:
        RegistryError: When there is no earlier champion or it no longer works.
    """
    name = model_name(dataset)
    serving = registry.by_alias(name, CHAMPION)
    if serving is None:
        raise RegistryError(f"{name} has no champion to roll back")
    number = serving.tags.get(PREVIOUS_TAG, "")
    if not number:
        raise RegistryError(f"{serving.uri} replaced no other champion; nothing to roll back to")
    previous = registry.version(name, number)
    registry.smoke_test(previous)
    registry.set_alias(name, CHAMPION, number)
    registry.tag(serving, {"promotion": "rolled back", "promotion_reason": reason})
    logger.warning("%s: version %s serves again (%s)", name, number, reason)
    return previous
