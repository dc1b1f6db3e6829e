"""Dependencies that a dirty table shows by itself, with their support.

``zip -> city`` counts as one when rows of one zip nearly always agree on the city and would not by
chance: among the rows whose group decides (votes.py), the share that follow it must be high, and
must be a gain over always guessing the most frequent city. (Approximate functional dependencies,
Kivinen and Mannila 1995; the gain is Goodman and Kruskal's lambda on decided rows.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import polars as pl

from tasks.cleaning.contract.model import Dependency
from tasks.cleaning.repair.votes import MISSING, Codes, encoded, vote

SUREST = 0.9999
"""Confidence of a dependency that no row breaks: 1 is a person's word."""


@dataclass(frozen=True, slots=True)
class DiscoveryConfig:
    """When a dependency is believed.

    Attributes:
        follow: Least share of decided rows that follow it; the rest counts as errors.
        gain: Least share of what guessing gets wrong that knowing the determinant gets right.
        coverage: Least share of rows in groups that decide.
        max_distinct_share: Dependents with more distinct values per filled row are left out: what
            hardly repeats cannot be voted on.
        sample_rows: Rows looked at, drawn evenly; 0 for all.
    """

    follow: float = 0.9
    gain: float = 0.3
    coverage: float = 0.5
    max_distinct_share: float = 0.5
    sample_rows: int = 50_000

    def __post_init__(self) -> None:
        """Reject shares outside 0..1."""
        for name in ("follow", "gain", "coverage", "max_distinct_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")


def discover(
    frame: pl.DataFrame, columns: Sequence[str] = (), config: DiscoveryConfig | None = None
) -> list[Dependency]:
    """Return dependencies of one column on one other, the surest first.

    Args:
        frame: Texts.
        columns: Columns to look at; all if empty.
        config: When one is believed.
    """
    config = config or DiscoveryConfig()
    step = -(-frame.height // config.sample_rows) if config.sample_rows else 1
    seen = frame.gather_every(step) if step > 1 else frame
    codes = {name: encoded(seen[name])[0] for name in columns or frame.columns}
    repeating = {name: code for name, code in codes.items() if _repeats(code, config)}
    found = [
        Dependency((determinant,), dependent, min(follow, SUREST))
        for determinant, dependent in permutations(repeating, 2)
        if (follow := support(repeating, determinant, dependent, config)) is not None
    ]
    return sorted(found, key=lambda one: (-one.confidence, one.name))


def support(
    codes: Mapping[str, Codes], determinant: str, dependent: str, config: DiscoveryConfig
) -> float | None:
    """Return the share of decided rows that follow a dependency, None where it is not believed."""
    value = codes[dependent]
    votes = vote(codes[determinant], value)
    decided = votes.decides() & (value != MISSING)
    if decided.mean() < config.coverage:
        return None
    follow = float((votes.value == value)[decided].mean())
    guess = float(np.bincount(value[decided]).max() / decided.sum())
    majorities = len(np.unique(votes.value[decided]))
    if follow < config.follow or majorities < 2 or guess == 1.0:
        return None
    return follow if (follow - guess) / (1.0 - guess) >= config.gain else None


def _repeats(code: Codes, config: DiscoveryConfig) -> bool:
    filled = code[code != MISSING]
    return len(filled) > 1 and len(np.unique(filled)) <= config.max_distinct_share * len(filled)
