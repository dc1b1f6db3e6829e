"""Whether something happens more often than was promised: unknown defects, escapes found later.

Bets are likelihood ratios of higher rates against the promised one, so they are fair or worse at
every rate up to the promised (Wald, Sequential Analysis, 1947).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.defects.promise.bounds import check_share
from tasks.defects.watch.evidence import Evidence

ODDS = (1.5, 2.0, 4.0, 8.0, 16.0)
"""How many times the promised odds each bettor bets on."""


@dataclass(slots=True)
class RateWatch:
    """A rate, watched.

    Attributes:
        limit: What was promised.
        evidence: Against "it is at most that".
        seen: Cases.
        hits: Of them.
    """

    limit: float
    evidence: Evidence
    seen: int = 0
    hits: int = 0

    @classmethod
    def start(cls, limit: float, arl: float) -> RateWatch:
        """Start watching.

        Args:
            limit: Promised rate.
            arl: Mean number of cases until a false alarm at any rate up to it, at least.
        """
        check_share("limit", limit)
        return cls(limit, Evidence(arl, len(ODDS)))

    def look(self, *, hit: bool) -> bool:
        """Take in the next case; return whether this is an alarm."""
        self.seen += 1
        self.hits += hit
        rates = [odds * self.limit / (1 - self.limit + odds * self.limit) for odds in ODDS]
        against = self.limit if hit else 1 - self.limit
        return self.evidence.step([(r if hit else 1 - r) / against for r in rates]) is not None

    def state(self) -> dict[str, Any]:
        """Return what `restored` needs, as plain JSON values."""
        evidence = self.evidence
        return {
            "limit": self.limit,
            "arl": evidence.arl,
            "money": evidence.money,
            "seen": self.seen,
            "hits": self.hits,
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> RateWatch:
        """Return the watch of a state."""
        check_share("limit", float(state["limit"]))
        evidence = Evidence(float(state["arl"]), len(ODDS), [float(m) for m in state["money"]])
        return cls(float(state["limit"]), evidence, int(state["seen"]), int(state["hits"]))
