"""Dependencies that a dirty table shows by itself, with their support.

``zip -> city`` counts as one when rows of one zip nearly always agree on the city and would not by
chance: among the rows whose group decides (votes.py), the share that follow it must be high, and
must be a gain over always guessing the most frequent city. (Approximate functional dependencies,
Kivinen and Mannila 1995; the gain is Goodman and Kruskal's lambda on decided rows.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.contract.model import Dependency
from tasks.cleaning.repair.votes import MAJORITY, MISSING, Codes, encoded

SUREST = 0.9999
"""Confidence of a dependency that no row breaks: 1 is a person's word."""
LEAST_AGREE = 3
"""Rows that must agree for a group to decide, as for votes of discovered dependencies."""
DENSE = 4
"""See ``_pairs``: counted in a table of up to this many cells per row, else by sorting."""

TRIAL_ROWS, TRIAL_SEED = 5_000, 7
LARGE_GROUP = 250
"""A group of this part of the table has some twenty rows in a first look."""
SLACK = 0.15
"""By how much a first look at some groups may fall short of what is asked of all."""


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

    def relaxed(self) -> DiscoveryConfig:
        """Return what a first look must show for the whole table to be asked."""
        return replace(
            self,
            follow=max(self.follow - SLACK, 0.0),
            gain=max(self.gain - SLACK, 0.0),
            coverage=max(self.coverage - SLACK, 0.0),
        )


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
    found = []
    for determinant, code in repeating.items():
        if not _covers(code, config):
            continue
        trial = _first_look(code)
        for dependent, value in repeating.items():
            if dependent == determinant or (
                trial is not None and support(code[trial], value[trial], config.relaxed()) is None
            ):
                continue
            follow = support(code, value, config)
            if follow is not None:
                found.append(Dependency((determinant,), dependent, min(follow, SUREST)))
    return sorted(found, key=lambda one: (-one.confidence, one.name))


def support(group: Codes, value: Codes, config: DiscoveryConfig) -> float | None:
    """Return the share of decided rows that follow a dependency, None where it is not believed.

    The same as ``votes.vote`` row by row, from the counts of pairs alone: nothing is carried back
    to the rows, so that all pairs of a table can be asked.

    Args:
        group: [rows] code of the determinant, -1 where missing.
        value: [rows] code of the dependent, -1 where missing.
        config: When it is believed.
    """
    groups, values, counts = _pairs(group, value)
    if not len(counts):
        return None
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    majority = np.maximum.reduceat(counts, starts)
    size = np.add.reduceat(counts, starts)
    decides = (majority >= LEAST_AGREE) & (majority >= MAJORITY * size)
    decided = int(size[decides].sum())
    if decided == 0 or decided < config.coverage * len(group):
        return None
    follow = float(majority[decides].sum() / decided)
    if follow < config.follow:
        return None
    lengths = np.diff(np.r_[starts, len(counts)])
    chosen = np.repeat(decides, lengths)
    guess = float(np.bincount(values[chosen], weights=counts[chosen]).max() / decided)
    # A decided group has one majority: its share is above one half.
    majorities = len(np.unique(values[chosen & (counts == np.repeat(majority, lengths))]))
    if majorities < 2 or guess == 1.0:
        return None
    return follow if (follow - guess) / (1.0 - guess) >= config.gain else None


def _pairs(group: Codes, value: Codes) -> tuple[Codes, Codes, Codes]:
    """Return every pair of codes that occurs, in order, and how often; missing ones left out."""
    width, height = int(value.max(initial=-1)) + 2, int(group.max(initial=-1)) + 2
    both = (group + 1) * width + (value + 1)
    if width * height <= DENSE * len(group):
        table = np.bincount(both, minlength=width * height)
        found = np.flatnonzero(table)
        counts = table[found]
    else:
        small = width * height <= np.iinfo(np.int32).max  # sorted in half the time
        found, counts = np.unique(both.astype(np.int32) if small else both, return_counts=True)
        found = found.astype(np.int64)
    groups, values = found // width - 1, found % width - 1
    known = (groups != MISSING) & (values != MISSING)
    return groups[known], values[known], counts[known]


def _first_look(code: Codes) -> NDArray[np.int64] | None:
    """Return rows that show what the whole table would, None where a part would say little.

    Any rows do where groups are large. Small groups would break up and decide nothing: they are
    taken whole, unless a few large ones among them hold much of the table.
    """
    sizes = np.bincount(code[code != MISSING])
    if len(code) < 4 * TRIAL_ROWS:
        return None
    if sizes[sizes >= len(code) // LARGE_GROUP].sum() >= 0.9 * len(code):
        return np.arange(0, len(code), len(code) // TRIAL_ROWS)
    if sizes.max() > TRIAL_ROWS // 20:
        return None
    order = np.random.default_rng(TRIAL_SEED).permutation(len(sizes))
    chosen = np.zeros(len(sizes) + 1, bool)  # the last one for missing cells, code -1
    chosen[order[np.cumsum(sizes[order]) <= TRIAL_ROWS]] = True
    return np.flatnonzero(chosen[code])


def _repeats(code: Codes, config: DiscoveryConfig) -> bool:
    filled = code[code != MISSING]
    return len(filled) > 1 and len(np.unique(filled)) <= config.max_distinct_share * len(filled)


def _covers(code: Codes, config: DiscoveryConfig) -> bool:
    """Return whether enough rows lie in groups that are large enough to decide anything."""
    sizes = np.bincount(code[code != MISSING])
    return bool(sizes[sizes >= LEAST_AGREE].sum() >= config.coverage * len(code))
