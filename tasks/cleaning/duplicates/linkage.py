"""Which rows mean the same entity: links between two tables, or duplicates within one.

result = find_duplicates(frame, Linkage((Comparison("name", "name"), Comparison("born", "date"))))
result.entity  # the first row of each row's entity
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.duplicates.blocking import Blocked, BlockingRule, block, candidates
from tasks.cleaning.duplicates.clusters import average_linkage, one_to_one
from tasks.cleaning.duplicates.comparison import Comparison, cleaned
from tasks.cleaning.duplicates.model import Model, fit, probability
from tasks.cleaning.duplicates.scorer import PairLevels
from tasks.cleaning.duplicates.threshold import NO_LINKS, Promise, promised

Rows = NDArray[np.int64]
Array = NDArray[np.float64]
VERSION = "linkage/1"


@dataclass(frozen=True, slots=True)
class Linkage:
    """What is compared, and how sure a link must be.

    Attributes:
        comparisons: One per column.
        rules: Blocking rules; found from the columns if left out.
        swapped: Two columns whose values change places now and then.
        precision: Promised share of links that are right.
        pairs_per_row: Largest number of pairs per row that a blocking rule may name.
        random_pairs: Pairs that ``u`` is estimated from.
        clip: See :func:`average_linkage`.
        max_size: See :func:`average_linkage`.
        seed: Of the random pairs.
        workers: Threads of the comparisons.
    """

    comparisons: tuple[Comparison, ...]
    rules: tuple[BlockingRule, ...] = ()
    swapped: tuple[str, str] | None = None
    precision: float = 0.95
    pairs_per_row: float = 10.0
    random_pairs: int = 1_000_000
    clip: float = 10.0
    max_size: int = 1_000
    seed: int = 7
    workers: int = 2

    def __post_init__(self) -> None:
        """Reject columns that are absent, named twice, or swapped without being compared."""
        columns = [its.column for its in self.comparisons]
        if not columns or len(set(columns)) < len(columns):
            raise ValueError(f"a linkage compares each of its columns once: {columns}")
        if not 0.0 < self.precision < 1.0:
            raise ValueError(f"promised precision {self.precision} must lie between 0 and 1")
        other = [name for name in self.swapped or () if name not in columns]
        if other:
            raise ValueError(f"swapped columns {other} are not compared: {columns}")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs with their log-odds, as compared.

    Attributes:
        left: int64 [pairs]
        right: int64 [pairs]
        odds: float64 [pairs] natural log-odds that both are one entity.
        model: What they come from.
        blocked: Which rules named them.
        levels: Scores any other pairs.
    """

    left: Rows
    right: Rows
    odds: Array
    model: Model
    blocked: Blocked
    levels: PairLevels

    def score(self, a: Rows, b: Rows) -> Array:
        """Return log-odds of any pairs."""
        return self.model.log_odds(*self.levels(a, b))


@dataclass(frozen=True, slots=True)
class Links:
    """Links between two tables.

    Attributes:
        left: int64 [links] rows of the first table.
        right: int64 [links] rows of the second.
        odds: float64 [links]
        promise: The threshold.
        pairs: All pairs that were compared.
    """

    left: Rows
    right: Rows
    odds: Array
    promise: Promise
    pairs: Pairs


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Rows of one table that mean the same entity.

    Attributes:
        entity: int64 [rows] first row of each row's entity.
        confidence: float64 [rows] mean probability that a row and the others of its entity belong
            together; 1 for a row alone.
        promise: The threshold.
        pairs: All pairs that were compared.
    """

    entity: Rows
    confidence: Array
    promise: Promise
    pairs: Pairs

    @property
    def merged(self) -> NDArray[np.bool_]:
        """Rows that are not the first of their entity: bool [rows]."""
        return np.asarray(self.entity != np.arange(len(self.entity)))


def score_pairs(left: pl.DataFrame, right: pl.DataFrame | None, linkage: Linkage) -> Pairs:
    """Block, compare and fit.

    Args:
        left: The first table.
        right: The second; null: pairs within the first.
        linkage: What is compared.

    Raises:
        ValueError: If a column is missing or no pair can be named.
    """
    columns = [its.column for its in linkage.comparisons]
    one = cleaned(left, columns)
    two = None if right is None else cleaned(right, columns)
    rules = linkage.rules or candidates(columns)
    blocked = block(one, two, rules, pairs_per_row=linkage.pairs_per_row)
    levels = PairLevels(one, two, linkage.comparisons, linkage.swapped, linkage.workers)
    found, frequency = levels(blocked.left, blocked.right)
    n, m = one.height, one.height if two is None else two.height
    all_pairs = n * (n - 1) / 2 if two is None else float(n) * m
    random = levels(*_random_pairs(n, None if two is None else m, linkage))[0]
    model = fit(levels.counts, found, frequency, random, all_pairs=max(all_pairs, 1.0))
    odds = model.log_odds(found, frequency)
    return Pairs(blocked.left, blocked.right, odds, model, blocked, levels)


def find_links(left: pl.DataFrame, right: pl.DataFrame, linkage: Linkage) -> Links:
    """Link rows of two tables one to one; see :func:`score_pairs`."""
    pairs = score_pairs(left, right, linkage)
    likely = np.flatnonzero(pairs.odds >= 0)
    likely = likely[one_to_one(pairs.left[likely], pairs.right[likely], pairs.odds[likely])]
    promise = promised(pairs.odds[likely], linkage.precision)
    if not pairs.model.plausible:
        promise = NO_LINKS
    chosen = likely[pairs.odds[likely] >= promise.log_odds]
    return Links(pairs.left[chosen], pairs.right[chosen], pairs.odds[chosen], promise, pairs)


def find_duplicates(frame: pl.DataFrame, linkage: Linkage) -> Duplicates:
    """Find rows that mean the same entity; see :func:`score_pairs`."""
    return duplicates_among(score_pairs(frame, None, linkage), frame.height, linkage)


def duplicates_among(pairs: Pairs, rows: int, linkage: Linkage) -> Duplicates:
    """Return what scored pairs of a table of so many rows mean at the linkage's precision."""
    promise = promised(pairs.odds, linkage.precision) if pairs.model.plausible else NO_LINKS
    entity = np.arange(rows)
    if promise.links:
        entity = average_linkage(
            rows, pairs.left, pairs.right, pairs.odds, pairs.score,
            threshold=promise.log_odds, clip=max(linkage.clip, 2 * promise.log_odds),
            max_size=linkage.max_size,
        )  # fmt: skip
    return Duplicates(entity, _confidence(entity, pairs), promise, pairs)


def _confidence(entity: Rows, pairs: Pairs) -> Array:
    together = entity[pairs.left] == entity[pairs.right]
    both = np.concatenate([pairs.left[together], pairs.right[together]])
    chance = np.tile(probability(pairs.odds[together]), 2)
    n = np.bincount(both, minlength=len(entity))
    total = np.bincount(both, chance, minlength=len(entity))
    return np.asarray(np.where(n > 0, total / np.maximum(n, 1), 1.0), np.float64)


def _random_pairs(n: int, m: int | None, linkage: Linkage) -> tuple[Rows, Rows]:
    if 0 in {n, m}:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if m is None and n * (n - 1) // 2 <= linkage.random_pairs:
        a, b = np.triu_indices(n, 1)
        return a.astype(np.int64), b.astype(np.int64)
    if m is not None and n * m <= linkage.random_pairs:
        return np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
    draw = np.random.default_rng(linkage.seed)
    a = draw.integers(0, n, linkage.random_pairs)
    b = draw.integers(0, n if m is None else m, linkage.random_pairs)
    different = np.ones(len(a), bool) if m is not None else a != b
    return a[different], b[different]
