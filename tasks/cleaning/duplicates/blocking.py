"""Which pairs of rows are compared at all: those that agree in one of several keys.

A rule is a list of keys ("surname", or its first four letters), all of which must agree. Rules that
would make too many pairs are not used; left to itself, every column and every two columns are
tried, whole and by their beginning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import polars as pl
from numpy.typing import NDArray

Pairs = NDArray[np.int64]
PREFIX = 3
_KEY = re.compile(r"(?P<column>.+?)(?:\[:(?P<length>\d+)\])?$")


@dataclass(frozen=True, slots=True)
class Key:
    """A column, or the first ``length`` characters of it."""

    column: str
    length: int | None = None

    def __str__(self) -> str:
        return self.column if self.length is None else f"{self.column}[:{self.length}]"

    @property
    def expression(self) -> pl.Expr:
        """The key of each row, null where the value is missing."""
        column = pl.col(self.column)
        return column if self.length is None else column.str.slice(0, self.length)


@dataclass(frozen=True, slots=True)
class BlockingRule:
    """Pairs that agree in every one of some keys; a row with a missing key is in no pair."""

    keys: tuple[Key, ...]

    def __str__(self) -> str:
        return " + ".join(str(key) for key in self.keys)

    @classmethod
    def parse(cls, text: str) -> BlockingRule:
        """Read ``"surname[:4] + born"``.

        Raises:
            ValueError: If a key is empty.
        """
        parts = [_KEY.match(part.strip()) for part in text.split(" + ")]
        if not all(parts):
            raise ValueError(
                f"blocking rule {text!r}: write column, or column[:length], joined by +"
            )
        return cls(
            tuple(Key(m["column"], int(m["length"]) if m["length"] else None) for m in parts if m)
        )


@dataclass(frozen=True, slots=True)
class Blocked:
    """Pairs to compare.

    Attributes:
        left: int64 [pairs] rows of the first table.
        right: int64 [pairs] rows of the second, or a later row of the first.
        used: Rules and how many pairs each of them names.
        skipped: Rules that name too many, and how many.
    """

    left: Pairs
    right: Pairs
    used: dict[str, int]
    skipped: dict[str, int]


def candidates(columns: Sequence[str]) -> list[BlockingRule]:
    """Return rules of one column and of two, whole and by their beginning, fewest keys first."""
    single = [BlockingRule((Key(name),)) for name in columns]
    double = [
        BlockingRule(keys)
        for a, b in combinations(columns, 2)
        for keys in product((Key(a), Key(a, PREFIX)), (Key(b), Key(b, PREFIX)))
    ]
    return single + double


def block(
    left: pl.DataFrame,
    right: pl.DataFrame | None,
    rules: Sequence[BlockingRule],
    *,
    pairs_per_row: float,
) -> Blocked:
    """Find the pairs that agree in any rule.

    Args:
        left: Cleaned texts.
        right: Cleaned texts of the second table; null: pairs within the first.
        rules: The rules.
        pairs_per_row: A rule that names more pairs than this times the rows is skipped.

    Raises:
        ValueError: If no rule is left.
    """
    rows = left.height + (0 if right is None else right.height)
    other = left if right is None else right
    found, used, skipped = [np.empty(0, np.int64)], {}, {}
    for rule in rules:
        count = _count(left, right, rule)
        if count > pairs_per_row * rows:
            skipped[str(rule)] = count
            continue
        if any(set(its.keys) <= set(rule.keys) for its in rules if str(its) in used):
            continue  # every pair of it is named already
        used[str(rule)] = count
        a, b = _pairs(left, right, rule)
        # Sorted as one number: half the memory of pairs, and duplicates go in one pass.
        found = [np.unique(np.concatenate([*found, a * other.height + b]))]
    if not used:
        raise ValueError(
            f"every blocking rule names more than {pairs_per_row:g} pairs per row: {skipped}; "
            "add columns to the rules or raise pairs_per_row"
        )
    packed = found[0]
    return Blocked(packed // other.height, packed % other.height, used, skipped)


def _keyed(frame: pl.DataFrame, rule: BlockingRule) -> pl.DataFrame:
    keys = [key.expression.alias(f"key{i}") for i, key in enumerate(rule.keys)]
    row = pl.int_range(pl.len(), dtype=pl.Int64).alias("row")
    return frame.select(row, *keys).drop_nulls()


def _count(left: pl.DataFrame, right: pl.DataFrame | None, rule: BlockingRule) -> int:
    names = [f"key{i}" for i in range(len(rule.keys))]
    sizes = _keyed(left, rule).group_by(names).agg(pl.len().cast(pl.Int64).alias("n"))
    if right is None:
        return int(sizes.select((pl.col("n") * (pl.col("n") - 1) // 2).sum()).item())
    others = _keyed(right, rule).group_by(names).agg(pl.len().cast(pl.Int64).alias("m"))
    return int(sizes.join(others, on=names).select((pl.col("n") * pl.col("m")).sum()).item())


def _pairs(
    left: pl.DataFrame, right: pl.DataFrame | None, rule: BlockingRule
) -> tuple[Pairs, Pairs]:
    names = [f"key{i}" for i in range(len(rule.keys))]
    keyed = _keyed(left, rule)
    others = keyed if right is None else _keyed(right, rule)
    joined = keyed.join(others, on=names, suffix="_other").select("row", "row_other")
    if right is None:
        joined = joined.filter(pl.col("row") < pl.col("row_other"))
    return joined["row"].to_numpy(), joined["row_other"].to_numpy()
