"""A model as the API serves it: its heads in order of fallback, reasons, and where it came from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.api.load_control import Level
from infra.errors import PenstockError

if TYPE_CHECKING:
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.online.model import OnlineModel
    from tasks.fraud.online.rows import OnlineRows

logger = logging.getLogger(__name__)

RULES_HEAD = "rules"
"""Stands for a head where no model scored."""


class ModelError(PenstockError):
    """A model that cannot be served; the one in service stays."""


class ReasonOut(NamedTuple):
    """One reason of an answer.

    Attributes:
        code: Stable group of features.
        text: Plain words.
        share: Its part of everything that raised the score.
    """

    code: str
    text: str
    share: float


class Scored(NamedTuple):
    """What a model says of some rows.

    Attributes:
        scores: float64 [n].
        head: Head that scored.
        reasons: Per row; None where none were asked for.
        degraded: What was left out.
        head_ns: Nanoseconds of the head.
        reasons_ns: Nanoseconds of the reasons.
    """

    scores: NDArray[np.float64]
    head: str
    reasons: list[list[ReasonOut]] | None
    degraded: tuple[str, ...]
    head_ns: int
    reasons_ns: int


@dataclass(frozen=True, slots=True)
class ModelOrigin:
    """Where a model came from.

    Attributes:
        source: As the settings name it.
        name: Registered name, or the dataset's.
        version: Registered version; empty for a folder.
    """

    source: str
    name: str
    version: str


def same_state(one: DatasetConfig, other: DatasetConfig) -> bool:
    """Tell whether two configs read the same state from the same columns."""
    return (
        one.entities == other.entities
        and one.delay_ms == other.delay_ms
        and one.numeric == other.numeric
        and one.categorical == other.categorical
        and (one.time, one.time_unit, one.origin_ms)
        == (other.time, other.time_unit, other.origin_ms)
        and (one.amount, one.amount_unit, one.decimals)
        == (other.amount, other.amount_unit, other.decimals)
        and (one.event_id, one.label, one.label_time)
        == (other.event_id, other.label, other.label_time)
    )


class ServedModel:
    """A bundle in service.

    Attributes:
        bundle: The bundle.
        origin: Where it came from.
        online: The bundle made ready to score rows.
    """

    def __init__(self, bundle: Bundle, origin: ModelOrigin) -> None:
        """Prepare it, and score the bundle's example once.

        Raises:
            tasks.fraud.bundle.format.BundleError: When it does not score as at training.
        """
        from connectors.api.reasons import ReasonMaker
        from tasks.fraud.online.model import OnlineModel

        bundle.self_check()
        self.bundle, self.origin = bundle, origin
        self.online: OnlineModel = OnlineModel(bundle)
        self._reasons = ReasonMaker(bundle)
        self.heads = fallback_heads(bundle)
        self.described: dict[str, Any] = {
            "name": origin.name,
            "version": origin.version,
            "digest": bundle.digest[:16],
        }

    @property
    def needs_mail(self) -> bool:
        """Whether the active head reads mail."""
        return self.online.needs_mail

    def score(
        self, rows: OnlineRows, features: NDArray[np.float32], level: Level, *, explain: bool
    ) -> Scored:
        """Score rows as well as there is time for.

        Args:
            rows: The transactions.
            features: Their features by this model.
            level: What there is time for.
            explain: Whether reasons are wanted.
        """
        degraded: list[str] = []
        began = perf_counter_ns()
        if level >= Level.RULES_ONLY:
            nothing = np.full(len(rows), np.nan)
            degraded = ["no-model", "no-reasons"] if explain else ["no-model"]
            return Scored(nothing, RULES_HEAD, None, tuple(degraded), 0, 0)
        heads = self.heads[-1:] if level >= Level.TABULAR else self.heads
        if heads != self.heads:
            degraded.append("tabular-head")
        scores, head, lost = self._first_that_works(rows, features, heads)
        if lost and "tabular-head" not in degraded:
            degraded.append("tabular-head" if head != RULES_HEAD else "no-model")
        scored = perf_counter_ns()
        reasons = None
        if explain and head != RULES_HEAD:
            if level >= Level.NO_REASONS or not self._reasons.explains(head):
                degraded.append("no-reasons")
            else:
                reasons = self._reasons(rows, features, head, self.online)
        done = perf_counter_ns()
        return Scored(scores, head, reasons, tuple(degraded), scored - began, done - scored)

    def _first_that_works(
        self, rows: OnlineRows, features: NDArray[np.float32], heads: Sequence[str]
    ) -> tuple[NDArray[np.float64], str, bool]:
        """Return scores, the head that gave them and whether one before it failed."""
        for place, head in enumerate(heads):
            try:
                scores = self.online.score(rows, features, head)
            except Exception:
                logger.exception("head %r failed; falling back", head)
                continue
            if np.isfinite(scores).all():
                return scores, head, place > 0
            logger.error("head %r gave scores that are not finite; falling back", head)
        return np.full(len(rows), np.nan), RULES_HEAD, True


def fallback_heads(bundle: Bundle) -> tuple[str, ...]:
    """Return the heads to try, the active one first, then one that reads features alone."""
    alone = [head for head in ("tabular", "logistic", "mlp") if head in bundle.heads]
    cheap = [head for head in alone if not bundle.needs_graph(head)]
    return tuple(dict.fromkeys([bundle.active, *cheap[:1]]))
