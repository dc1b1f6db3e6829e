"""From scores to decisions: thresholds, approved rules beside them, block lists above both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from connectors.api.approved_rules import UNSCORED, ApprovedRules, DecidedBy, said
from connectors.api.journal import Journal
from connectors.api.metrics import Metrics
from connectors.api.rules import Rules

if TYPE_CHECKING:
    from connectors.api.served_model import ServedModel
    from tasks.explain.rules.engine import Conflict

BESIDE_SCORE = ("block-list/", "rule/")
"""How codes of reasons begin that are not the score's."""

NOWHERE = -1
"""Place of the entity on a block list, where none is."""


class Decisions(NamedTuple):
    """What is decided of n transactions.

    Attributes:
        final: Decisions.
        without_rules: What they would be without approved rules.
        listed: Place of the entity on a block list, -1: none is.
        conflicts: Row -> disagreement of approved rules with the model.
    """

    final: list[str]
    without_rules: list[str]
    listed: list[int]
    conflicts: dict[int, Conflict]

    def overruled(self, row: int) -> Conflict | None:
        """Return the conflict that changed a decision; None: nothing did."""
        changed = self.final[row] != self.without_rules[row]
        return self.conflicts.get(row) if changed else None


class Decider:
    """Decides by rules that change and an edition that stays.

    Attributes:
        approved: Rules beside the model; None: there are none.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        names: Sequence[str],
        approved: ApprovedRules | None = None,
        journal: Journal | None = None,
    ) -> None:
        """Prepare for a dataset's entities.

        Args:
            kinds: Kind of each entity column.
            names: Name of each entity column.
            approved: Rules beside the model.
            journal: Gets a line for every conflict.
        """
        self._kinds, self._names = tuple(kinds), tuple(names)
        self.approved, self._journal = approved, journal

    def decide(
        self,
        rules: Rules,
        entities: Sequence[Sequence[str]],
        scores: Sequence[float],
        values: NDArray[np.float32],
        *,
        model: ServedModel,
        head: str,
    ) -> Decisions:
        """Decide.

        Args:
            rules: Thresholds and block lists in force.
            entities: Ids of each transaction [n].
            scores: [n], NaN for all of them where no model scored.
            values: float32 [n, W], what was known of them.
            model: The model that scored.
            head: Which of its heads did.
        """
        listed = [rules.listed(self._kinds, ids) for ids in entities]
        alone = [_by_score(rules, score) for score in scores]
        final = list(alone)
        conflicts: dict[int, Conflict] = {}
        if self.approved is not None:
            scored = not any(map(math.isnan, scores))
            champion = head == model.heads[0]
            by = DecidedBy(model.bundle.digest, rules.thresholds, champion, scored)
            final, conflicts = self.approved.overrule(values, model.columns(head), alone, by)
        for row, place in enumerate(listed):
            if place == NOWHERE:
                continue
            alone[row] = final[row] = "block"
            if row in conflicts:
                why = f"{conflicts[row].reason}; the block list decides: block"
                conflicts[row] = replace(conflicts[row], final="block", reason=why)
        return Decisions(final, alone, listed, conflicts)

    def reasons(
        self, decided: Decisions, row: int, found: Sequence[Any] | None
    ) -> list[dict[str, Any]] | None:
        """Return the reasons of an answer: what decided besides the score comes first.

        Args:
            decided: The decisions.
            row: Which.
            found: Reasons of the score; None: none were made.
        """
        first = self.first(decided, row)
        if first is None:
            return None if found is None else [reason._asdict() for reason in found]
        return [first, *(reason._asdict() for reason in (found or ())[:3])]

    def first(self, decided: Decisions, row: int) -> dict[str, Any] | None:
        """Return the reason of a block list or of approved rules, None where the score decided."""
        place = decided.listed[row]
        if place != NOWHERE:
            name = self._names[place].replace("_", " ")
            text = f"the {name} is on the block list"
            return {"code": f"block-list/{self._kinds[place]}", "text": text, "share": 1.0}
        conflict = decided.overruled(row)
        if conflict is None or conflict.kind != "flag":
            return None
        # A scorecard may flag by its base alone.
        code = f"rule/{conflict.by[0]}" if conflict.by else "rule/base"
        return {"code": code, "text": conflict.reason, "share": 1.0}

    def keep(
        self,
        decided: Decisions,
        sent: Sequence[tuple[str, int, str]],
        scores: Sequence[float],
        shared: Mapping[str, Any],
    ) -> None:
        """Journal every conflict before an answer leaves.

        A line may stand twice: of an event that is refused after this and sent again by another
        request, or by the same one where another process answered the event meanwhile. The answer
        that the event got names its request; of lines with the same event and request any serves.

        Args:
            decided: The decisions.
            sent: Of each row the name of the event, its time in ms and the id of the request.
            scores: Their scores, NaN where no model scored.
            shared: What all answers tell: model, rules, degraded.

        Raises:
            JournalError: They could not be written; the events must not count then.
        """
        if self.approved is None or self._journal is None or not decided.conflicts:
            return
        common = {
            "edition": self.approved.identity,
            "scored_by": shared["model"],
            "thresholds": shared["rules"],
            "degraded": shared["degraded"],
        }
        lines = []
        for row, conflict in decided.conflicts.items():
            event, time, request = sent[row]
            score = None if math.isnan(scores[row]) else scores[row]
            own = {"event_id": event, "time": time, "request_id": request, "score": score}
            lines.append(orjson.dumps({**own, **said(conflict), **common}))
        self._journal.append(lines)

    def told(self, decided: Decisions, row: int) -> dict[str, Any]:
        """Return what an answer says of approved rules; nothing where there are none."""
        if self.approved is None:
            return {}
        conflict = decided.overruled(row)
        return {
            "approved_rules": self.approved.label,
            "overruled": None if conflict is None else said(conflict),
        }


def decided_by(reasons: Sequence[Mapping[str, Any]] | None) -> Mapping[str, Any] | None:
    """Return the reason of a kept answer that ``Decider.first`` put there, if it did."""
    first = reasons[0] if reasons else None
    return first if first and first["code"].startswith(BESIDE_SCORE) else None


def count_conflicts(decided: Decisions, metrics: Metrics) -> None:
    """Count the conflicts of events that count."""
    for conflict in decided.conflicts.values():
        metrics.conflicts.add(conflict.kind)


def _by_score(rules: Rules, score: float) -> str:
    return UNSCORED if math.isnan(score) else rules.decide(score)
