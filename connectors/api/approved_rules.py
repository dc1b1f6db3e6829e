"""An approved edition of rules that runs beside the model; every disagreement is told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
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

    It may veto only if its trial kept to the limit of vetoes, and only beside the very model that
    decided the trial's history.

    Attributes:
        edition: The rules.
        label: Name, version and the first twelve digits of the digest, as answers tell them.
        powers: What they may do now.
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
        self.powers: tuple[Power, ...] = self._granted
        self.label = f"{edition.name} {edition.version} ({trial.digest[:12]})"
        self._read = {name for rule in edition.rules for name in rule.features}
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

    def stand_beside(self, names: Sequence[str], digest: str) -> None:
        """Stand beside another model from the next decision on.

        Args:
            names: What it reads.
            digest: Its digest.

        Raises:
            UnreadFeatureError: As ``require``; the model so far stays.
        """
        self.require(names)
        tried = digest == self._trial.model
        self.powers = tuple(p for p in self._granted if tried or p != "veto")
        if self.powers != self._granted:
            logger.warning(
                "the approved rules %s were tried with model %s, in service is %s: they may not "
                "veto until they are tried with it (penstock explain trial)",
                self.label,
                self._trial.model[:16] or "none",
                digest[:16],
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
            names: Names of its columns; what is not among them, the rules do not know: a rule that
                reads it does not hold, and nothing is vetoed beside it.
            decisions: The model's decisions [n]; ``UNSCORED`` where none scored.
            scored: Whether a model scored at all. Where none did, only graver decisions are
                conflicts, and nothing is approved.
        """
        from tasks.explain.rules.edition import beside
        from tasks.explain.rules.engine import codes
        from tasks.explain.rules.model import DECISIONS

        powers = self.powers if scored else tuple(p for p in self.powers if p == "flag")
        rows = np.concatenate([values, np.full((len(values), 1), np.nan, np.float32)], axis=1)
        chosen = rows[:, self._columns_of(names)]
        final, conflicts = beside(self.edition, chosen, codes(decisions), powers)
        if not scored:
            conflicts = [_unscored(one) for one in conflicts if one.kind == "flag"]
        return Overruled([DECISIONS[code] for code in final], {c.row: c for c in conflicts})

    def described(self) -> dict[str, Any]:
        """Return what the page of the model tells of the rules."""
        trial = self._trial
        return {
            **self.identity,
            "rules": len(self.edition.rules),
            "powers": list(self.powers),
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
