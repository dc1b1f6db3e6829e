"""Texts of two tables as codes, and from pairs of rows to levels and shares of equal values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.duplicates.comparison import (
    Codes,
    Comparison,
    Levels,
    compare,
    jaro_winkler,
)

SWAP_LEVELS = 2
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Coded:
    """A column of both tables.

    Attributes:
        left: int64 [rows] positions in ``values``, -1 for missing.
        right: The same of the second table; of the first where there is none.
        values: Distinct texts; two columns that may be swapped share them.
        share: float64 [values] share of all rows with the value.
    """

    left: Codes
    right: Codes
    values: list[str]
    share: Array


class PairLevels:
    """Levels of pairs of rows.

    Args:
        left: Cleaned texts of the first table.
        right: Of the second; null for pairs within the first.
        comparisons: One per column.
        swapped: Two of the columns whose values are put into each other's place now and then,
            for example given name and surname.
        workers: Threads.
    """

    def __init__(
        self,
        left: pl.DataFrame,
        right: pl.DataFrame | None,
        comparisons: Sequence[Comparison],
        swapped: tuple[str, str] | None,
        workers: int,
    ) -> None:
        self.comparisons = tuple(comparisons)
        self.swapped = swapped
        self.workers = workers
        self.coded: dict[str, Coded] = {}
        groups = [[c.column] for c in comparisons if c.column not in (swapped or ())]
        for names in [*groups, *([list(swapped)] if swapped else [])]:
            self.coded |= _coded(left, right, names)

    @property
    def counts(self) -> list[int]:
        """Number of levels of each comparison, the swap last."""
        return [its.levels for its in self.comparisons] + [SWAP_LEVELS] * bool(self.swapped)

    def __call__(self, a: Codes, b: Codes) -> tuple[list[Levels], list[Array | None]]:
        """Return levels of each comparison and shares of equal values, see ``Model.log_odds``."""
        turned = self._turned(a, b)
        levels: list[Levels] = []
        frequency: list[Array | None] = []
        for its in self.comparisons:
            coded = self.coded[its.column]
            x, y = coded.left[a], coded.right[b]
            if turned is not None and self.swapped and its.column in self.swapped:
                first, second = self.swapped
                other = self.coded[second if its.column == first else first]
                y = np.where(turned, other.right[b], y)
            levels.append(compare(its, coded.values, x, y, workers=self.workers))
            equal = (x == y) & (x >= 0)
            share = np.where(equal, coded.share[x], np.nan)
            frequency.append(share if its.term_frequency else None)
        if turned is not None:
            levels.append(turned.astype(np.int8))
            frequency.append(None)
        return levels, frequency

    def _turned(self, a: Codes, b: Codes) -> NDArray[np.bool_] | None:
        """Return where the two columns agree better crosswise: bool [pairs]."""
        if self.swapped is None:
            return None
        one, two = (self.coded[name] for name in self.swapped)

        def alike(x: Codes, y: Codes) -> NDArray[np.float32]:
            return jaro_winkler(one.values, x, y, workers=self.workers)

        straight = alike(one.left[a], one.right[b]) + alike(two.left[a], two.right[b])
        cross = alike(one.left[a], two.right[b]) + alike(two.left[a], one.right[b])
        return np.asarray(cross > straight)


def _coded(
    left: pl.DataFrame, right: pl.DataFrame | None, names: Sequence[str]
) -> dict[str, Coded]:
    parts = [table[name] for table in (left, right) if table is not None for name in names]
    values = pl.concat([part.rename("value") for part in parts]).drop_nulls().unique().sort()
    table = pl.DataFrame({"value": values, "code": np.arange(len(values))})

    def codes(column: pl.Series) -> Codes:
        found = pl.DataFrame({"value": column}).join(
            table, on="value", how="left", maintain_order="left"
        )
        return found["code"].fill_null(-1).cast(pl.Int64).to_numpy()

    made = {}
    for name in names:
        one = codes(left[name])
        two = one if right is None else codes(right[name])
        every = one if right is None else np.concatenate([one, two])
        known = np.bincount(every[every >= 0], minlength=max(len(values), 1))
        share = np.maximum(known, 1) / max(int(known.sum()), 1)
        made[name] = Coded(one, two, values.to_list(), share)
    return made
