"""An approved edition of rules that runs beside the model; every disagreement is told."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infra.errors import ConfigurationError, PenstockError

if TYPE_CHECKING:
    from tasks.explain.rules.approval import Trial
    from tasks.explain.rules.edition import Rules as Edition
    from tasks.explain.rules.engine import Conflict, Power

logger = logging.getLogger(__name__)

UNSCORED = "review"
"""What is decided where no model scored: a person should look."""


class UnreadFeatureError(PenstockError):
    """A rule reads a feature that a model does not have."""


class DecidedBy(NamedTuple):
    """What made decisions.

    Attributes:
        model: Digest of the bundle.
        thresholds: Scores from which its rows are reviewed and blocked.
        champion: Whether its first head scored, and no simpler one in its place.
        scored: Whether any head scored.
    """

    model: str
    thresholds: Mapping[str, float]
    champion: bool = True
    scored: bool = True


class Overruled(NamedTuple):
    """What approved rules make of decisions.

    Attributes:
        decisions: Final decisions, by name.
        conflicts: Row -> disagreement, also where the model's decision stands.
    """

    decisions: list[str]
    conflicts: dict[int, Conflict]


class ApprovedRules:
    """An edition and what it may do beside the model in service.

    It may veto only if its trial kept to the limit of vetoes, and only what that trial has seen: a
    decision of the very model, made from scores that were reviewed or blocked then, too.

    Attributes:
        edition: The rules.
        label: Name, version and the first twelve digits of the digest, as answers tell them.
    """

    def __init__(self, edition: Edition, trial: Trial, powers: Sequence[Power]) -> None:
        """Take an edition that has passed its trial.

        Args:
            edition: The rules.
            trial: The trial.
            powers: ``flag``, ``veto``, both or none.

        Raises:
            ConfigurationError: When it shall veto and approves more than its trial allows.
        """
        if "veto" in powers and not trial.may_veto:
            raise ConfigurationError(
                f"the approved rules {edition.name} {edition.version} may not veto: in their trial "
                f"they approved {trial.vetoed or 0:.2%} of what the model flagged, "
                f"{trial.limits.most_vetoed:.2%} were allowed",
                "Set PENSTOCK_API_RULE_POWERS=flag, or edit the rules, or try them with a higher "
                "--most-vetoed",
            )
        self.edition, self._trial, self._granted = edition, trial, tuple(powers)
        self.label = f"{edition.name} {edition.version} ({trial.digest[:12]})"
        self._read = {name for rule in edition.rules for name in rule.features}
        self._warned: str | None = None
        self._columns: dict[tuple[str, ...], list[int]] = {}

    @classmethod
    def load(cls, path: Path, powers: Sequence[Power]) -> ApprovedRules:
        """Read an edition and the record of its trial.

        Raises:
            ConfigurationError: There is none, it is none, or it has not passed as it is now.
        """
        from connectors.explain.rule_trial import read_approved
        from tasks.explain.rules.model import RuleSetError

        try:
            edition, trial = read_approved(path)
        except RuleSetError as error:
            raise ConfigurationError(
                f"the approved rules cannot run: {error}",
                "Mend what PENSTOCK_API_APPROVED_RULES names, or leave it empty",
            ) from error
        return cls(edition, trial, powers)

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

    def powers(self, by: DecidedBy) -> tuple[Power, ...]:
        """Return what the rules may do beside decisions."""
        return tuple(p for p in self._granted if p != "veto" or self._no_veto(by) is None)

    def warn(self, by: DecidedBy) -> None:
        """Log why the rules may not veto what they were meant to, once for each cause."""
        why = self._no_veto(by) if "veto" in self._granted else None
        told, self._warned = self._warned, why
        if why is not None and why != told:
            logger.warning(
                "the approved rules %s may not veto until they are tried with what decides now "
                "(penstock explain trial): %s",
                self.label,
                why,
            )

    def _no_veto(self, by: DecidedBy) -> str | None:
        trial = self._trial
        if by.model != trial.model:
            tried = trial.model[:16] or "none"
            return f"they were tried with model {tried}, in service is {by.model[:16]}"
        if not by.champion:
            return "another head than the champion scored"
        if not trial.covers(by.thresholds):
            return (
                f"the rules in force decide from {dict(by.thresholds)}, in the trial the model "
                f"decided from {dict(trial.thresholds)}"
            )
        return None

    def overrule(
        self,
        values: NDArray[np.float32],
        names: tuple[str, ...],
        decisions: Sequence[str],
        by: DecidedBy,
    ) -> Overruled:
        """Run the rules beside a model's decisions.

        Args:
            values: float32 [n, W], what the model read.
            names: Names of its columns; what is not among them, the rules do not know: a rule that
                reads it does not hold, and nothing is vetoed beside it.
            decisions: The model's decisions [n]; ``UNSCORED`` where none scored.
            by: What made them. Where no model scored, only graver decisions are conflicts, and
                nothing is approved.
        """
        from tasks.explain.rules.edition import beside
        from tasks.explain.rules.engine import codes
        from tasks.explain.rules.model import DECISIONS

        rows = np.concatenate([values, np.full((len(values), 1), np.nan, np.float32)], axis=1)
        chosen = rows[:, self._columns_of(names)]
        final, conflicts = beside(self.edition, chosen, codes(decisions), self.powers(by))
        if not by.scored:
            conflicts = [_unscored(one) for one in conflicts if one.kind == "flag"]
        return Overruled([DECISIONS[code] for code in final], {c.row: c for c in conflicts})

    def described(self, by: DecidedBy) -> dict[str, Any]:
        """Return what the page of the model tells of the rules beside what decides now."""
        trial = self._trial
        return {
            **self.identity,
            "rules": len(self.edition.rules),
            "powers": list(self.powers(by)),
            "tried_by": trial.tried_by,
            "tried_with": trial.model[:16],
        }

    @property
    def identity(self) -> dict[str, str]:
        """Name, version and digest, as every line of the journal tells them."""
        digest = self._trial.digest
        return {"name": self.edition.name, "version": self.edition.version, "digest": digest}

    def _columns_of(self, names: tuple[str, ...]) -> list[int]:
        found = self._columns.get(names)
        if found is None:
            place = {name: number for number, name in enumerate(names)}
            # The last column holds NaN.
            found = [place.get(name, len(names)) for name in self.edition.features]
            self._columns[names] = found
        return found


def _unscored(conflict: Conflict) -> Conflict:
    told = conflict.reason.replace(f"the model says {UNSCORED}", "no model scored it")
    return replace(conflict, model=None, reason=told)


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
