"""Whether one number of each part still comes as it came in the reference, whatever it is.

The rank of a new number among all before it, with equal ones ordered by chance, is a p-value; as
long as parts are exchangeable these are uniform and independent of each other (Vovk et al.,
Algorithmic Learning in a Random World, 2005), and bets on them are fair. Ranks are taken among bins
whose edges come from one half of the reference, while the other half is counted: so the state is
small whatever was seen, and fairness stays exact.

Give one number per part: exposures of one part are not exchangeable with those of others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.defects.watch.evidence import Evidence

BINS = 64
LEAST = 20
"""Numbers of a reference; fewer tell nothing soon enough."""
STRONG, MILD = 0.35, 0.8
MOVES = ("lower", "higher", "lower", "higher", "wider spread", "narrower spread")
"""What each bettor bets on."""


@dataclass(slots=True)
class RankWatch:
    """One number, watched.

    Attributes:
        edges: Upper ends of all bins but the last, rising.
        counts: Numbers seen in each, the reference's second half with them.
        evidence: Against "nothing changed".
        seed: Orders equal numbers.
        seen: Numbers since the reference.
    """

    edges: list[float]
    counts: list[int]
    evidence: Evidence
    seed: int = 0
    seen: int = 0

    @classmethod
    def learn(cls, reference: Sequence[float], arl: float, seed: int = 0) -> RankWatch:
        """Learn from numbers of good days, one per part.

        Args:
            reference: Finite numbers, in any order.
            arl: Mean number of parts until a false alarm, at least.
            seed: Halves the reference and orders equal numbers.

        Raises:
            ValueError: Fewer than 20 numbers, or one that is not finite.
        """
        values = np.asarray(reference, dtype=np.float64)
        if len(values) < LEAST or not np.isfinite(values).all():
            raise ValueError(f"{len(values)} numbers; a watch learns from {LEAST} finite ones")
        values = np.random.default_rng(seed).permutation(values)
        half = len(values) // 2
        first = np.unique(values[:half])
        if len(first) > BINS - 1:
            first = np.unique(np.quantile(first, np.linspace(0, 1, BINS - 1), method="nearest"))
        places = np.searchsorted(first, values[half:])
        counts = np.bincount(places, minlength=len(first) + 1)
        return cls(first.tolist(), counts.tolist(), Evidence(arl, len(MOVES)), seed)

    def look(self, value: float) -> str:
        """Take in the next number; return how numbers have moved where this is an alarm, else "".

        A number that is not finite is not taken in: what makes it is to be told where it is made.
        """
        if not math.isfinite(value):
            return ""
        place = int(np.searchsorted(self.edges, value))
        self.seen += 1
        chance = float(np.random.default_rng((self.seed, self.seen)).random())
        self.counts[place] += 1
        p = (sum(self.counts[:place]) + chance * self.counts[place]) / sum(self.counts)
        found = self.evidence.step(_factors(p))
        return "" if found is None else MOVES[found]

    def state(self) -> dict[str, Any]:
        """Return what `restored` needs, as plain JSON values."""
        return {
            "edges": self.edges,
            "counts": self.counts,
            "arl": self.evidence.arl,
            "money": self.evidence.money,
            "seed": self.seed,
            "seen": self.seen,
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> RankWatch:
        """Return the watch of a state."""
        edges, counts = [float(e) for e in state["edges"]], [int(c) for c in state["counts"]]
        if len(counts) != len(edges) + 1 or edges != sorted(edges) or min(counts) < 0:
            raise ValueError("edges and counts of a watch do not fit; learn the watch anew")
        evidence = Evidence(float(state["arl"]), len(MOVES), [float(m) for m in state["money"]])
        return cls(edges, counts, evidence, int(state["seed"]), int(state["seen"]))


def _factors(p: float) -> tuple[float, ...]:
    """Return what each bettor gets for a p-value; each has a mean of 1 over uniform ones."""
    p = min(max(p, 1e-12), 1.0 - 1e-12)
    off = abs(2 * p - 1)
    return (
        STRONG * p ** (STRONG - 1),
        STRONG * (1 - p) ** (STRONG - 1),
        1 - MILD * (2 * p - 1),
        1 + MILD * (2 * p - 1),
        STRONG * (1 - off) ** (STRONG - 1),
        1 - MILD * (2 * off - 1),
    )
