"""What a new edition of a rule set would have decided otherwise, told before it goes live."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tasks.explain.rules.model import DECISIONS, SILENT, Decision, RuleSet, RuleSetError
from tasks.explain.rules.scorecard import Scorecard, decide


@dataclass(frozen=True, slots=True)
class Change:
    """Rows whose decision changes in one way.

    Attributes:
        before: Decision of the old edition, None where no rule held.
        after: Decision of the new one.
        rows: Their number.
        examples: Places of the first of them.
    """

    before: Decision | None
    after: Decision | None
    rows: int
    examples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two editions beside each other.

    Attributes:
        added: Ids of rules that only the new one has.
        removed: Ids of rules that only the old one has.
        redecided: Ids of rules that both have, with another decision or other points.
        rows: Rows of the history.
        changed: Rows decided otherwise.
        changes: What becomes what, most rows first.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    redecided: tuple[str, ...]
    rows: int
    changed: int
    changes: tuple[Change, ...]


def compare(
    old: RuleSet | Scorecard, new: RuleSet | Scorecard, rows: ArrayLike, examples: int = 5
) -> Comparison:
    """Run two editions of a rule set or of a scorecard over history.

    Args:
        old: The edition in force.
        new: The one that shall replace it.
        rows: [n, F], columns in the order of ``features``, which both share.
        examples: Places told of each change.

    Raises:
        RuleSetError: When the editions are of different features or kinds, or rows do not fit.
    """
    if isinstance(old, RuleSet) != isinstance(new, RuleSet):
        raise RuleSetError("a rule set and a scorecard are no two editions; compare like with like")
    if old.features != new.features:
        raise RuleSetError(
            f"editions {old.version!r} and {new.version!r} are of different features; compare sets "
            "of one model"
        )
    before, after = (decide(one, rows) for one in (old, new))
    changed = np.flatnonzero(before != after)
    ways = Counter(zip(before[changed].tolist(), after[changed].tolist(), strict=True))
    changes = []
    for (first, second), count in sorted(ways.items(), key=lambda one: (-one[1], one[0])):
        where = np.flatnonzero((before == first) & (after == second))[:examples]
        changes.append(Change(_word(first), _word(second), count, tuple(where.tolist())))
    kept, fresh = _effects(old), _effects(new)
    return Comparison(
        added=tuple(one for one in fresh if one not in kept),
        removed=tuple(one for one in kept if one not in fresh),
        redecided=tuple(one for one in fresh if one in kept and kept[one] != fresh[one]),
        rows=len(before),
        changed=len(changed),
        changes=tuple(changes),
    )


def _effects(edition: RuleSet | Scorecard) -> dict[str, str | int]:
    if isinstance(edition, RuleSet):
        return {rule.id: rule.decision for rule in edition.rules}
    return {rule.id: rule.points for rule in edition.rules}


def _word(code: int) -> Decision | None:
    return None if code == SILENT else DECISIONS[code]
