"""An edition of rules, be it a rule set or a scorecard: read, named by its digest, run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from numpy.typing import ArrayLike

from tasks.explain.rules.beside_scorecard import beside_scorecard
from tasks.explain.rules.engine import Codes, Conflict, Power, beside_model
from tasks.explain.rules.export_scorecard import scorecard_from_json, scorecard_json
from tasks.explain.rules.files import from_json, parsed, to_json
from tasks.explain.rules.model import RuleSet
from tasks.explain.rules.scorecard import Scorecard

Rules = RuleSet | Scorecard


def edition_from_json(text: str) -> Rules:
    """Read a rule set, or a scorecard, which has cutoffs.

    Raises:
        RuleSetError: On a text that is neither.
    """
    data = parsed(text)
    is_card = isinstance(data, dict) and "review_at" in data
    return scorecard_from_json(text) if is_card else from_json(text)


def edition_json(rules: Rules) -> str:
    """Return an edition as JSON: name, version, rules, notes, lineage."""
    return to_json(rules) if isinstance(rules, RuleSet) else scorecard_json(rules)


def edition_digest(rules: Rules) -> str:
    """Return the SHA-256 of an edition's JSON."""
    return hashlib.sha256(edition_json(rules).encode()).hexdigest()


def beside(
    rules: Rules, rows: ArrayLike, model: ArrayLike, powers: Sequence[Power] = ("flag",)
) -> tuple[Codes, list[Conflict]]:
    """Run an edition beside a model, see ``beside_model`` and ``beside_scorecard``.

    Returns:
        Final decisions int8 [n], and every conflict in the order of rows.

    Raises:
        RuleSetError: On decisions or powers that are none, or shapes that do not fit.
    """
    run = beside_model if isinstance(rules, RuleSet) else beside_scorecard
    return run(rules, rows, model, powers)  # type: ignore[arg-type]  # of the kind just told
