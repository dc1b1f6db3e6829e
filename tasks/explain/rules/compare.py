"""What a new edition of a rule set would have decided otherwise, told before it goes live."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tasks.explain.rules.engine import run_rules
from tasks.explain.rules.model import DECISIONS, SILENT, Decision, RuleSet, RuleSetError


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
        redecided: Ids of rules that both have, with another decision.
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


def compare(old: RuleSet, new: RuleSet, rows: ArrayLike, examples: int = 5) -> Comparison:
    """Run two editions over history.

    Args:
        old: The edition in force.
        new: The one that shall replace it.
        rows: [n, F], columns in the order of ``features``, which both share.
        examples: Places told of each change.

    Raises:
        RuleSetError: When the editions are of different features, or rows do not fit.
    """
    if old.features != new.features:
        raise RuleSetError(
            f"editions {old.version!r} and {new.version!r} are of different features; compare sets "
            "of one model"
        )
    before, after = (run_rules(one, rows).decisions for one in (old, new))
    changed = np.flatnonzero(before != after)
    ways = Counter(zip(before[changed].tolist(), after[changed].tolist(), strict=True))
    changes = []
    for (first, second), count in sorted(ways.items(), key=lambda one: (-one[1], one[0])):
        where = np.flatnonzero((before == first) & (after == second))[:examples]
        changes.append(Change(_word(first), _word(second), count, tuple(where.tolist())))
    kept = {rule.id: rule.decision for rule in old.rules}
    fresh = {rule.id: rule.decision for rule in new.rules}
    return Comparison(
        added=tuple(one for one in fresh if one not in kept),
        removed=tuple(one for one in kept if one not in fresh),
        redecided=tuple(one for one in fresh if one in kept and kept[one] != fresh[one]),
        rows=len(before),
        changed=len(changed),
        changes=tuple(changes),
    )


def _word(code: int) -> Decision | None:
    return None if code == SILENT else DECISIONS[code]
