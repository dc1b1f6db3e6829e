"""Rows that a person has changed, held against the contract again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from tasks.cleaning.clean import COPY, CleanConfig, Mask, judged, set_aside
from tasks.cleaning.contract.model import Contract
from tasks.cleaning.contract.rules import RowRule, row_rules

Rows = NDArray[np.int64]


def check_again(
    frame: pl.DataFrame,
    rows: Rows,
    original: pl.DataFrame,
    source: str,
    contract: Contract,
    config: CleanConfig,
    *,
    now: datetime,
    tables: Mapping[str, pl.DataFrame] | None = None,
) -> tuple[pa.Table, Mask]:
    """Hold some rows of a table against its contract again.

    Of rows that may not be alike it is one of these that breaks the rule, wherever it stands: the
    other rows were found good before.

    Args:
        frame: All rows, repaired.
        rows: int64 [checked rows] positions of those to check.
        original: The checked rows as they came.
        source: Name of the file, for records.
        contract: What the table must look like.
        config: How it was cleaned.
        now: The present, for records.
        tables: By name, the other tables that the contract's references name; texts.

    Returns:
        Records of the rows that break a declared rule, numbered by place among the checked rows,
        and bool [checked rows] which these are.
    """
    rules = row_rules(contract, tables)
    mine = frame[rows.tolist()]
    alone = _judged(mine, [rule for rule in rules if not rule.key], contract)
    others = np.ones(frame.height, bool)
    others[rows] = False
    across = _across(frame, rows, others, [rule for rule in rules if rule.key], contract)
    place = {rule.name: i for i, rule in enumerate(rules)}
    broken = sorted([*alone, *across], key=lambda one: place[one[0].name])
    if config.drop_copies and config.repair.across_rows:
        broken = [(COPY, _copies(frame.filter(others), mine)), *broken]
    return set_aside(original, mine, broken, source, contract, now)


def _across(
    frame: pl.DataFrame, rows: Rows, others: Mask, rules: Sequence[RowRule], contract: Contract
) -> list[tuple[RowRule, Mask]]:
    """Return which of some rows break rules across rows; of rows alike the first is good."""
    if not rules:
        return []
    names = {name for rule in rules for name in rule.key}
    order = np.concatenate([np.flatnonzero(others), rows])
    columns = frame.select(name for name in frame.columns if name in names)
    broken = _judged(columns[order.tolist()], rules, contract)
    return [(rule, mask[frame.height - len(rows) :]) for rule, mask in broken]


def _judged(
    frame: pl.DataFrame, rules: Sequence[RowRule], contract: Contract
) -> list[tuple[RowRule, Mask]]:
    broken, _ = judged(frame, rules, contract)
    return [one for one in broken if one[0] is not COPY]


def _copies(others: pl.DataFrame, mine: pl.DataFrame) -> Mask:
    """Return which rows equal another one, or an earlier one of their own, in every column."""
    for name in others.columns:
        # A few rows are alike in no column but to a few others: that spares hashing whole rows.
        held = mine[name].unique()
        others = others.filter(pl.col(name).is_in(held.implode(), nulls_equal=True))
        if others.height <= mine.height:
            break
    alike = mine.with_row_index("_at").join(others, on=mine.columns, how="semi", nulls_equal=True)
    found = ~mine.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
    found[alike["_at"].to_numpy()] = True
    return found
