"""The rules in force: from which score a transaction is reviewed or blocked, and block lists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.errors import PenstockError

DECISIONS = ("approve", "review", "block")
REVIEW_RATE = "0.01"
"""Share of legitimate transactions that may be looked at."""

BLOCK_RATE = "0.001"
"""Share of legitimate transactions that may be stopped."""

NEVER = 1.000001
"""A threshold no score reaches."""

MAX_LISTED = 1_000_000


class RulesError(PenstockError):
    """Rules that cannot be used."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Thresholds and block lists.

    Attributes:
        version: Name by which answers say which rules decided.
        review_at: Score from which a transaction is reviewed.
        block_at: Score from which it is blocked.
        block: Kind -> ids of entities whose transactions are blocked whatever the score.
    """

    version: str
    review_at: float
    block_at: float
    block: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check them, naming the fix."""
        if not self.version or len(self.version) > 64:
            raise RulesError("rules need a version of 1 to 64 characters", "Name them")
        for name in ("review_at", "block_at"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= 2):
                raise RulesError(f"{name} must be a score in 0..1, got {value}", "Correct it")
        if self.review_at > self.block_at:
            raise RulesError(
                f"review_at {self.review_at} lies above block_at {self.block_at}",
                "Review from a lower score than you block from",
            )
        if sum(map(len, self.block.values())) > MAX_LISTED:
            raise RulesError(f"more than {MAX_LISTED} entities are listed", "Shorten the lists")

    @property
    def thresholds(self) -> dict[str, float]:
        """Scores from which a transaction is reviewed and blocked."""
        return {"review": self.review_at, "block": self.block_at}

    def decide(self, score: float) -> str:
        """Return the decision for a score."""
        if score >= self.block_at:
            return "block"
        return "review" if score >= self.review_at else "approve"

    def least_score(self, decision: str) -> float:
        """Return the score from which a decision, or a graver one, is made."""
        return {"approve": 0.0, "review": self.review_at}.get(decision, self.block_at)

    def listed(self, kinds: Sequence[str], ids: Sequence[str]) -> int:
        """Return the position of the first entity on a block list, -1 if none is."""
        if self.block:
            for place, kind in enumerate(kinds):
                if ids[place] in self.block.get(kind, ()):
                    return place
        return -1

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that ``from_dict`` reads back."""
        return {
            "version": self.version,
            "review_at": self.review_at,
            "block_at": self.block_at,
            "block": {kind: sorted(ids) for kind, ids in self.block.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], kinds: Sequence[str] = ()) -> Rules:
        """Build rules from parsed JSON.

        Args:
            data: ``version``, ``review_at``, ``block_at`` and, optionally, ``block``.
            kinds: Entity kinds that lists may name; empty: any.

        Raises:
            RulesError: On anything missing, unknown or impossible.
        """
        unknown = sorted(set(data) - {"version", "review_at", "block_at", "block"})
        if unknown:
            raise RulesError(f"rules know no {unknown[0]!r}", "Remove it")
        block = data.get("block") or {}
        if not isinstance(block, Mapping):
            raise RulesError("'block' must map kinds to lists of ids", 'Write {"card": ["id"]}')
        lists = {}
        for kind, ids in block.items():
            if kinds and kind not in kinds:
                raise RulesError(
                    f"no entity is of kind {kind!r}", f"Choose from {', '.join(sorted(kinds))}"
                )
            if not isinstance(ids, list | tuple) or not all(isinstance(i, str) for i in ids):
                raise RulesError(f"block.{kind} must be a list of ids as text", "Quote them")
            lists[str(kind)] = frozenset(ids)
        numbers = {}
        for name in ("review_at", "block_at"):
            value = data.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise RulesError(f"{name} must be a number", f"Set {name} to a score in 0..1")
            numbers[name] = float(value)
        version = data.get("version")
        if not isinstance(version, str):
            raise RulesError("version must be text", "Name the rules")
        return cls(version, numbers["review_at"], numbers["block_at"], lists)


def default_rules(thresholds: Mapping[str, Any], digest: str) -> Rules:
    """Return the rules a bundle proposes.

    Of a hundred legitimate transactions one may be looked at, of a thousand one may be stopped:
    the bundle's thresholds at these false-positive rates. A bundle without them never blocks and
    reviews at its threshold of least cost.

    Args:
        thresholds: ``thresholds.json`` of the bundle.
        digest: The bundle's digest; names the rules.
    """
    rates = thresholds.get("fpr") or {}
    block = float(rates.get(BLOCK_RATE, NEVER))
    review = float(rates.get(REVIEW_RATE, thresholds.get("cost", NEVER)))
    block = min(block, NEVER)
    return Rules(f"bundle-{digest[:12]}", min(review, block), block)
