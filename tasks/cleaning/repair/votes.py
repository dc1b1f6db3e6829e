"""Votes: what the other rows that share a determinant say a cell should hold.

A dependency ``zip -> city`` splits the rows into groups of one zip; in a group whose rows mostly
agree, a row that differs is in doubt. Votes need rows that agree, and the share of a majority is
taken over the filled cells of the group. (Majority votes over dependencies are the strongest of
the signals of HoloClean: Rekatsinas et al., VLDB 2017.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.contract.model import Dependency

Codes = NDArray[np.int64]
MISSING = -1
MAJORITY = 0.6
"""Least share of a group's filled cells that decides it: a plurality harms more than it mends."""


@dataclass(frozen=True, slots=True)
class Votes:
    """One entry per row, of the group that the row lies in.

    Attributes:
        value: Code of the value that most rows of the group hold, -1 where there is no vote.
        count: Rows that hold it.
        own: Rows of the group, this one included, that hold what this row holds.
        size: Filled cells of the group.
        rows: Rows of the group.
    """

    value: Codes
    count: Codes
    own: Codes
    size: Codes
    rows: Codes

    @property
    def share(self) -> NDArray[np.float64]:
        """Share of the majority, 0 where there is no vote."""
        return np.where(self.size > 0, self.count / np.maximum(self.size, 1), 0.0)

    def decides(self, *, declared: bool = False) -> NDArray[np.bool_]:
        """Where enough rows, and a clear majority of the group, agree.

        By a declared dependency two rows that agree outvote one that does not; by one that was
        discovered in the same rows, it takes three.
        """
        return (self.count >= (2 if declared else 3)) & (self.share >= MAJORITY)

    @property
    def is_filled(self) -> NDArray[np.bool_]:
        """Where most rows of the group hold anything: elsewhere a missing cell is no error."""
        return self.size >= MAJORITY * self.rows


def encoded(column: pl.Series) -> tuple[Codes, list[str]]:
    """Return codes of a column of texts, -1 where missing, and the text of every code, sorted."""
    texts = column.drop_nulls().unique().sort()
    codes = column.replace_strict(
        texts, pl.Series(range(len(texts)), dtype=pl.Int64), default=MISSING, return_dtype=pl.Int64
    )
    return codes.to_numpy(), texts.to_list()


def determinant_codes(codes: Mapping[str, Codes], dependency: Dependency) -> Codes:
    """Return one code per combination of the determinant's columns, -1 where any is missing."""
    first, *others = (codes[name] for name in dependency.determinant)
    combined, missing = first.copy(), first == MISSING
    for other in others:
        missing |= other == MISSING
        combined = combined * (other.max(initial=0) + 2) + other
        _, combined = np.unique(combined, return_inverse=True)
    return np.where(missing, MISSING, combined)


def vote(group: Codes, value: Codes) -> Votes:
    """Count the values of every group.

    Args:
        group: [rows] code of the determinant, -1 for none.
        value: [rows] code of the dependent, -1 where missing.
    """
    none = np.full(len(group), 0, np.int64)
    rows = none.copy()
    grouped = group != MISSING
    rows[grouped] = np.bincount(group[grouped])[group[grouped]] if grouped.any() else 0
    result = Votes(np.full(len(group), MISSING, np.int64), none, none.copy(), none.copy(), rows)
    voting = (group != MISSING) & (value != MISSING)
    if not voting.any():
        return result
    width = int(value.max()) + 1
    pairs, place, counts = np.unique(
        group[voting] * width + value[voting], return_inverse=True, return_counts=True
    )
    result.own[voting] = counts[place]
    groups = pairs // width
    # By group, then count; of equal counts the smaller code comes last, whatever the rows' order.
    order = np.lexsort((-(pairs % width), counts, groups))
    starts = np.flatnonzero(np.r_[True, groups[order][1:] != groups[order][:-1]])
    last = order[np.r_[starts[1:], len(order)] - 1]
    sizes = np.add.reduceat(counts[order], starts)
    names = groups[order][starts]
    at = np.searchsorted(names, group)
    known = (at < len(names)) & (group != MISSING)
    known[known] = names[at[known]] == group[known]
    at = at[known]
    result.value[known] = pairs[last][at] % width
    result.count[known] = counts[last][at]
    result.size[known] = sizes[at]
    return result
