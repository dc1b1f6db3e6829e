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
from connectors.api.reasons_budget import ReasonsBudget, ReasonsLateError
from infra.errors import PenstockError

if TYPE_CHECKING:
    from tasks.explain.catalogue.model import Catalogue
    from tasks.explain.languages import Language
    from tasks.explain.reasons import Reason
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.online.explanation import HeadExplanation
    from tasks.fraud.online.model import OnlineModel
    from tasks.fraud.online.rows import OnlineRows

logger = logging.getLogger(__name__)

RULES_HEAD = "rules"
"""Stands for a head where no model scored."""

NO_REASONS, FALLBACK, NO_MODEL = "no-reasons", "fallback-head", "no-model"
"""What an answer may lack, see ``degraded``."""


class ModelError(PenstockError):
    """A model that cannot be served; the one in service stays."""


class ReasonOut(NamedTuple):
    """One reason of an answer.

    Attributes:
        code: Stable code of the reason catalogue.
        text: Plain words.
        share: Its part of what the reasons given added to the score, in log-odds.
    """

    code: str
    text: str
    share: float


class Scored(NamedTuple):
    """What a model says of some rows.

    Attributes:
        scores: float64 [n].
        head: Head that scored.
        reasons: Per row, None for rows that need or got none; None where none were made at all.
        unexplained: Rows that were to get reasons and got none, though others did.
        degraded: What was left out for all of them.
        inputs: What the head read, float32 [n, W]; None where no model scored.
        head_ns: Nanoseconds of the head.
        reasons_ns: Nanoseconds of the reasons.
    """

    scores: NDArray[np.float64]
    head: str
    reasons: list[list[ReasonOut] | None] | None
    unexplained: frozenset[int]
    degraded: tuple[str, ...]
    inputs: NDArray[np.float32] | None
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
        heads: Heads in the order in which they are tried.
        words: What tells whether reasons are worded alike: digest of the catalogue, and language.
    """

    def __init__(
        self,
        bundle: Bundle,
        origin: ModelOrigin,
        *,
        catalogue: Catalogue | None = None,
        language: Language = "en",
    ) -> None:
        """Prepare it, and score the bundle's example once.

        Args:
            bundle: The bundle.
            origin: Where it came from.
            catalogue: Codes and words of the reasons; None: those the bundle holds.
            language: Language of the reasons.

        Raises:
            kernels.bundle.folder.BundleError: When it does not score as at training.
            tasks.explain.errors.CatalogueError: When the catalogue does not fit its features.
        """
        from tasks.fraud.online.head import FastHead
        from tasks.fraud.online.model import OnlineModel

        bundle.self_check()
        self.bundle, self.origin = bundle, origin
        self.online: OnlineModel = OnlineModel(bundle)
        self.heads = fallback_heads(bundle)
        self._fast = {
            name: FastHead.load(bundle, name, catalogue=catalogue, language=language)
            for name in self.heads
        }
        if catalogue is not None:
            self._warn_unmatched(catalogue)
        self.words = (self._fast[bundle.active].catalogue.digest, language)
        self.described: dict[str, Any] = {
            "name": origin.name,
            "version": origin.version,
            "digest": bundle.digest[:16],
        }

    def _warn_unmatched(self, catalogue: Catalogue) -> None:
        from tasks.explain.catalogue.unmatched import warn_unmatched
        from tasks.explain.groups import FeatureGroups

        entities = [e.column for e in self.bundle.config.entities]
        warn_unmatched(catalogue, FeatureGroups.of(self._fast[self.bundle.active].names, entities))

    @property
    def needs_mail(self) -> bool:
        """Whether the active head reads mail."""
        return self.online.needs_mail

    def columns(self, head: str) -> tuple[str, ...]:
        """Return the names of what a head reads; of the features, where no model scored."""
        fast = self._fast.get(head)
        return self.bundle.feature_names if fast is None else fast.names

    def score(
        self,
        rows: OnlineRows,
        features: NDArray[np.float32],
        level: Level,
        *,
        explain: bool,
        least: float = 0.0,
        budget: ReasonsBudget | None = None,
    ) -> Scored:
        """Score rows as well as there is time for.

        Args:
            rows: The transactions.
            features: Their features by this model.
            level: What there is time for.
            explain: Whether reasons are wanted.
            least: Score from which they are.
            budget: Bounds the time of reasons; None: they may take as long as they do.
        """
        if level >= Level.RULES_ONLY:
            return _nothing(len(rows), explain=explain)
        began = perf_counter_ns()
        degraded: list[str] = []
        names = self.heads
        if level >= Level.TABULAR and self._fast[names[0]].has_network:
            names = names[1:] or names  # heads on features alone take equally long
        for name in names:
            try:
                inputs, scores = self._scores(rows, features, name)
                break
            except Exception:  # whatever a head fails with, the next may do
                logger.exception("head %r failed; falling back", name)
        else:
            return _nothing(len(rows), explain=explain)
        if name != self.heads[0]:
            degraded.append(FALLBACK)
        scored = perf_counter_ns()
        reasons, missing = None, frozenset[int]()
        if explain:
            if level < Level.NO_REASONS and self._fast[name].explains:
                wanted = np.flatnonzero(scores >= least).tolist()
                reasons, missing = self._explained(inputs, wanted, name, budget)
            if reasons is None:
                degraded.append(NO_REASONS)
        done = perf_counter_ns()
        spans = scored - began, done - scored
        return Scored(scores, name, reasons, missing, tuple(degraded), inputs, *spans)

    def told(
        self, rows: OnlineRows, features: NDArray[np.float32]
    ) -> tuple[str, float, NDArray[np.float32], HeadExplanation]:
        """Score one row by the active head and explain it wholly, in any thread.

        Returns:
            Head, score, what the head read [1, W], and the explanation.

        Raises:
            tasks.fraud.heads.head.HeadError: On a head without exact contributions.
            tasks.explain.errors.AdditivityError: When contributions miss the score.
            ModelError: When the head does not score it.
        """
        name = self.heads[0]
        inputs, scores = self._scores(rows, features, name)
        return name, float(scores[0]), inputs, self._fast[name].explain(inputs[0])

    def told_again(self, inputs: NDArray[np.float32], head: str) -> tuple[float, HeadExplanation]:
        """Return score and explanation of what a head of this model read before, float32 [W].

        Raises:
            tasks.fraud.heads.head.HeadError: As ``told``, and on inputs of another width.
            tasks.explain.errors.AdditivityError: As ``told``.
        """
        return self._fast[head].score_row(inputs), self._fast[head].explain(inputs)

    def _scores(
        self, rows: OnlineRows, features: NDArray[np.float32], name: str
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return what a head reads and its scores, which are finite."""
        head = self._fast[name]
        inputs = features
        if head.has_network:
            feed = self.online.inputs(rows, features, name)
            inputs = head.inputs(feed.pop("features"), **feed)
        one = len(rows) == 1
        scores = np.array([head.score_row(inputs[0])]) if one else head.score(inputs)
        if not np.isfinite(scores).all():
            raise ModelError(f"head {name!r} gave scores that are not finite", "Train it again")
        return inputs, scores

    def _explained(
        self,
        inputs: NDArray[np.float32],
        wanted: Sequence[int],
        name: str,
        budget: ReasonsBudget | None,
    ) -> tuple[list[list[ReasonOut] | None] | None, frozenset[int]]:
        """Return the reasons of the rows that need some, and the rows that got none.

        The reasons are None when the explainer rests.
        """
        head = self._fast[name]
        reasons: list[list[ReasonOut] | None] = [None] * len(inputs)
        if budget is None:
            for row in wanted:
                reasons[row] = _with_shares(head.reasons(inputs[row]))
            return reasons, frozenset()
        digest: str = self.described["digest"]
        if budget.rests:
            budget.left_out("resting", digest, name, len(wanted))
            return None, frozenset()
        missing, failures = set(wanted), []
        try:
            with budget.bounded():
                for row in wanted:
                    try:
                        reasons[row] = _with_shares(head.reasons(inputs[row]))
                        missing.discard(row)
                    except ReasonsLateError:
                        raise
                    except Exception as error:  # noqa: BLE001 - told below, off the clock
                        failures.append(error)
        except ReasonsLateError as error:
            budget.left_out("late", digest, name, len(missing) - len(failures), error)
        if failures:
            budget.left_out("failed", digest, name, len(failures), failures[0])
        return reasons, frozenset(missing)


def _with_shares(reasons: Sequence[Reason]) -> list[ReasonOut]:
    total = sum(reason.contribution for reason in reasons)
    return [ReasonOut(r.code, r.text, round(r.contribution / total, 4)) for r in reasons]


def _nothing(n: int, *, explain: bool) -> Scored:
    """Return that no model scored."""
    degraded = (NO_MODEL, NO_REASONS) if explain else (NO_MODEL,)
    return Scored(np.full(n, np.nan), RULES_HEAD, None, frozenset(), degraded, None, 0, 0)


def fallback_heads(bundle: Bundle) -> tuple[str, ...]:
    """Return the heads to try, the active one first, then one that reads features alone."""
    others = [h for h in ("tabular", "logistic", "mlp") if h in bundle.heads and h != bundle.active]
    return (bundle.active, *[h for h in others if not bundle.needs_graph(h)][:1])
