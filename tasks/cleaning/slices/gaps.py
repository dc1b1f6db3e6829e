"""Gaps: slices that a report measured as worse, and how many rows more they would need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tasks.cleaning.slices.groups import Condition, Slices
from tasks.cleaning.slices.table import SliceTable, slice_name

TIMES = 3.0


@dataclass(frozen=True, slots=True)
class Gap:
    """A slice that is worse than the rest.

    Attributes:
        conditions: What its rows have in common.
        figure: What is worse.
        rows: Rows that it has.
        wanted: Rows more; 0 where it is worse though it is not rare, which more of the same rows
            would not mend.
        reason: What was measured, for people and for the provenance of made rows.
    """

    conditions: tuple[Condition, ...]
    figure: str
    rows: int
    wanted: int
    reason: str

    @property
    def name(self) -> str:
        """For people."""
        return slice_name(self.conditions)

    @property
    def holds(self) -> pl.Expr:
        """Expression over a frame of texts: whether a row lies in the slice."""
        return pl.all_horizontal(one.holds for one in self.conditions)


def gaps_of(table: SliceTable, slices: Slices, *, times: float = TIMES) -> list[Gap]:
    """Return the worse slices of a report, those that lie farthest from the rest first.

    A gap is wanted as large as the median slice of its columns, by ``times`` its own rows at most:
    rows made of few others add little that is new.

    Args:
        table: Of ``slice_table`` or ``worst_slices``.
        slices: What the report was made of.
        times: Rows more, as a multiple of those there.
    """
    sizes: dict[tuple[str, ...], list[float]] = {}
    counted = slices.sums(np.zeros(slices.rows)).n
    for member, n in zip(slices.members(), counted, strict=True):
        if n > 0:
            sizes.setdefault(_columns(member), []).append(n)
    found = []
    for member, row in zip(table.members, table.frame.iter_rows(named=True), strict=True):
        if row["verdict"] != "worse":
            continue
        usual = float(np.median(sizes[_columns(member)]))
        wanted = int(min(max(usual - row["rows"], 0.0), times * row["rows"]))
        sure = min(abs(row["difference_low"]), abs(row["difference_high"]))
        reason = (
            f"{row['figure']} {row['value']:.3g} against {row['rest']:.3g} of the rest, apart by "
            f"{sure:.3g} at least; {row['rows']:,} rows, the median slice has {usual:,.0f}"
        )
        found.append((-sure, Gap(member, row["figure"], row["rows"], wanted, reason)))
    return [gap for _, gap in sorted(found, key=lambda one: one[0])]


def _columns(member: tuple[Condition, ...]) -> tuple[str, ...]:
    return tuple(one.column for one in member)
