"""Champion against challenger on the same requests: counted, compared and kept.

The challenger scores after the answer is on its way, and only when there is time. What is kept is
a small table, not the transactions: how many, how far apart, and which decisions would differ.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra.files import write_atomically

BINS = 20
"""Bins of the two score histograms, equal in log-odds from -10 to 10."""


@dataclass(slots=True)
class ShadowComparison:
    """What a challenger would have done.

    Attributes:
        champion: Digest of the champion.
        challenger: Digest of the challenger.
        rules: Version of the rules both were judged by.
        compared: Transactions both scored.
        skipped: Transactions the challenger had no time for.
        failed: Transactions on which the challenger failed.
        difference_sum: Sum of challenger's minus champion's score.
        absolute_sum: Sum of absolute differences.
        largest: Largest absolute difference.
        decisions: Champion's decision -> challenger's decision -> count.
        champion_scores: Histogram of the champion's scores.
        challenger_scores: Histogram of the challenger's.
    """

    champion: str
    challenger: str
    rules: str
    compared: int = 0
    skipped: int = 0
    failed: int = 0
    difference_sum: float = 0.0
    absolute_sum: float = 0.0
    largest: float = 0.0
    decisions: dict[str, dict[str, int]] = field(default_factory=dict)
    champion_scores: list[int] = field(default_factory=lambda: [0] * BINS)
    challenger_scores: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, champion: float, challenger: float, decided: str, would: str) -> None:
        """Compare one transaction."""
        difference = challenger - champion
        self.compared += 1
        self.difference_sum += difference
        self.absolute_sum += abs(difference)
        self.largest = max(self.largest, abs(difference))
        row = self.decisions.setdefault(decided, {})
        row[would] = row.get(would, 0) + 1
        self.champion_scores[_bin(champion)] += 1
        self.challenger_scores[_bin(challenger)] += 1

    @property
    def differing(self) -> int:
        """Transactions on which the decisions differ."""
        return sum(
            count
            for decided, row in self.decisions.items()
            for would, count in row.items()
            if would != decided
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for people: sums as means."""
        data = asdict(self)
        n = max(self.compared, 1)
        data["mean_difference"] = data.pop("difference_sum") / n
        data["mean_absolute_difference"] = data.pop("absolute_sum") / n
        data["largest_difference"] = data.pop("largest")
        data["decisions_differ"] = self.differing
        return data

    def save(self, path: Path) -> None:
        """Keep it."""
        write_atomically(path, json.dumps(asdict(self)))


def load_shadow(path: Path, champion: str, challenger: str, rules: str) -> ShadowComparison:
    """Return the kept comparison of these two under these rules, a new one if there is none."""
    fresh = ShadowComparison(champion, challenger, rules)
    try:
        kept = ShadowComparison(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return fresh
    same = (kept.champion, kept.challenger, kept.rules) == (champion, challenger, rules)
    sound = len(kept.champion_scores) == len(kept.challenger_scores) == BINS
    return kept if same and sound else fresh


def _bin(score: float) -> int:
    inside = min(max(score, 1e-6), 1 - 1e-6)
    logit = math.log(inside / (1 - inside))
    return min(max(int((logit + 10) / 20 * BINS), 0), BINS - 1)
