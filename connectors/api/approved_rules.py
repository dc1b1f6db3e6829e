"""An approved edition of rules that runs beside the model; every disagreement is journaled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from infra.errors import ConfigurationError, PenstockError

if TYPE_CHECKING:
    from connectors.api.journal import Journal
    from connectors.api.metrics import Metrics
    from tasks.explain.rules.edition import Rules as Edition
    from tasks.explain.rules.engine import Conflict, Power


class UnreadFeatureError(PenstockError):
    """A rule reads a feature that a model does not have."""


class Overruled(NamedTuple):
    """What approved rules make of decisions.

    Attributes:
        decisions: Final decisions, by name.
        conflicts: Row -> disagreement, also where the model's decision stands.
    """

    decisions: list[str]
    conflicts: dict[int, Conflict]


class ApprovedRules:
    """An edition and what it may do.

    Attributes:
        edition: The rules.
        label: Name, version and the first twelve digits of the digest, as answers tell them.
    """

    def __init__(
        self, edition: Edition, powers: Sequence[Power], journal: Journal, metrics: Metrics
    ) -> None:
        """Take an edition that has passed its trial.

        Args:
            edition: The rules.
            powers: ``flag``, ``veto``, both or none.
            journal: Gets a line for every conflict.
            metrics: Counters.
        """
        from tasks.explain.rules.edition import edition_digest

        self.edition = edition
        self._digest = edition_digest(edition)
        self.label = f"{edition.name} {edition.version} ({self._digest[:12]})"
        self._powers = tuple(powers)
        self._journal, self._metrics = journal, metrics
        self._read = {name for rule in edition.rules for name in rule.features}
        self._columns: dict[tuple[str, ...], list[int]] = {}

    @classmethod
    def load(
        cls, path: Path, powers: Sequence[Power], journal: Journal, metrics: Metrics
    ) -> ApprovedRules:
        """Read an edition and the record of its trial.

        Raises:
            ConfigurationError: There is none, it is none, or it has not passed as it is now.
        """
        from connectors.explain.rule_trial import read_approved
        from tasks.explain.rules.model import RuleSetError

        try:
            return cls(read_approved(path), powers, journal, metrics)
        except RuleSetError as error:
            raise ConfigurationError(
                f"the approved rules cannot run: {error}",
                "Mend what PENSTOCK_API_APPROVED_RULES names, or leave it empty",
            ) from error

    def require(self, names: Sequence[str]) -> None:
        """Check that a model has what the rules read.

        Raises:
            UnreadFeatureError: It has not.
        """
        absent = sorted(self._read - set(names))
        if absent:
            raise UnreadFeatureError(
                f"the approved rules {self.label} read {absent[0]!r}, which the model has not",
                "Mine or edit rules for this model and try them, or serve the one they stand for",
            )

    def overrule(
        self,
        values: NDArray[np.float32],
        names: tuple[str, ...],
        decisions: Sequence[str],
        *,
        scored: bool,
    ) -> Overruled:
        """Run the rules beside a model's decisions.

        Args:
            values: float32 [n, W], what the model read.
            names: Names of its columns; what is not among them, the rules do not know, and a rule
                that reads it does not hold.
            decisions: The model's decisions [n].
            scored: Whether a model scored at all: what nobody looked at is never approved.
        """
        from tasks.explain.rules.edition import beside
        from tasks.explain.rules.engine import codes
        from tasks.explain.rules.model import DECISIONS

        powers = self._powers if scored else tuple(p for p in self._powers if p == "flag")
        rows = np.concatenate([values, np.full((len(values), 1), np.nan, np.float32)], axis=1)
        chosen = rows[:, self._columns_of(names)]
        final, conflicts = beside(self.edition, chosen, codes(decisions), powers)
        return Overruled([DECISIONS[code] for code in final], {c.row: c for c in conflicts})

    def line(self, conflict: Conflict, event: str, request_id: str, score: float | None) -> bytes:
        """Count a conflict and return its line for ``keep``."""
        self._metrics.conflicts.add(conflict.kind)
        return orjson.dumps(
            {
                "event_id": event,
                "request_id": request_id,
                "score": score,
                "edition": {
                    "name": self.edition.name,
                    "version": self.edition.version,
                    "digest": self._digest,
                },
                **said(conflict),
            }
        )

    def keep(self, lines: Sequence[bytes]) -> None:
        """Write conflicts to the journal.

        Raises:
            JournalError: They could not be written.
        """
        self._journal.append(lines)

    def _columns_of(self, names: tuple[str, ...]) -> list[int]:
        found = self._columns.get(names)
        if found is None:
            place = {name: number for number, name in enumerate(names)}
            # The last column holds NaN.
            found = [place.get(name, len(names)) for name in self.edition.features]
            self._columns[names] = found
        return found


def said(conflict: Conflict) -> dict[str, Any]:
    """Return a conflict as answers and the journal tell it."""
    return {
        "kind": conflict.kind,
        "model": conflict.model,
        "rules": conflict.rules,
        "final": conflict.final,
        "by": list(conflict.by),
        "reason": conflict.reason,
    }
