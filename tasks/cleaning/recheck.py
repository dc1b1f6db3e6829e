"""Rows that a person has changed, held against the contract again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from tasks.cleaning.clean import COPY, CleanConfig, Mask, set_aside
from tasks.cleaning.contract.model import Contract
from tasks.cleaning.contract.rules import RowRule, row_rules
from tasks.cleaning.contract.verdicts import verdicts
from tasks.cleaning.duplicates.exact import first_equal_rows

Rows = NDArray[np.int64]
NONE = np.iinfo(np.int64).min  # no row has this number


def check_again(
    frame: pl.DataFrame,
    numbers: Rows,
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
    other rows were found good before. Rules of transactions see all rows in the order of the
    source, which some depend on.

    Args:
        frame: All rows, repaired.
        numbers: int64 [rows] number of each in the source.
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
    rules = [rule for rule in row_rules(contract, tables) if rule.declared]
    mine, others = frame[rows.tolist()], np.ones(frame.height, bool)
    others[rows] = False
    kept = np.full(len(rows), NONE)
    if config.drop_copies and config.repair.across_rows:
        kept = _equal_rows(frame.filter(others), numbers[others], mine, numbers[rows])
    copies = kept != NONE
    good = np.ones(frame.height, bool)
    good[rows] = ~copies
    broken = [(COPY, copies)]
    by_number = np.argsort(numbers, kind="stable")
    last = np.concatenate([np.flatnonzero(others), rows])
    # As row_rules orders them: rules over single rows, of transactions, and of what occurs once.
    for chosen, order in (
        ([rule for rule in rules if not rule.across], rows),
        ([rule for rule in rules if rule.check], by_number),
        ([rule for rule in rules if rule.key], last),
    ):
        for rule, mask in _broken(frame, order, chosen, good):
            broken.append((rule, mask[rows]))
            good[rows] &= ~mask[rows]
    return set_aside(original, mine, broken, source, contract, now, first=kept)


def _broken(
    frame: pl.DataFrame, order: Rows, rules: Sequence[RowRule], good: Mask
) -> list[tuple[RowRule, Mask]]:
    """Return which rows break which rules [rows], judged in an order of rows."""
    if not rules:
        return []
    names = {name for rule in rules for name in rule.broken.meta.root_names()}
    columns = frame[[name for name in frame.columns if name in names]][order.tolist()]
    told = verdicts(columns, rules, pl.lit(pl.Series(good[order]))).collect()
    found = []
    for rule, broken in zip(rules, told, strict=True):
        mask = np.zeros(frame.height, bool)
        mask[order] = broken.to_numpy()
        found.append((rule, mask))
    return found


def _equal_rows(others: pl.DataFrame, theirs: Rows, mine: pl.DataFrame, numbers: Rows) -> Rows:
    """Return for each row the number of another that equals it and stays, ``NONE`` without any.

    Args:
        others: Rows that stay.
        theirs: int64 [others] their numbers in the source.
        mine: Rows that go if they equal one of those, or one of their own with a lower number.
        numbers: int64 [mine] their numbers in the source.
    """
    order = np.argsort(numbers, kind="stable")
    first = np.empty(len(order), np.int64)
    first[order] = order[first_equal_rows(mine[order.tolist()])]
    kept = np.where(first == np.arange(len(order)), NONE, numbers[first])
    # Numbers for names: a column may be called as the one of row numbers.
    mine, others = (
        pl.DataFrame([column.alias(f"{i}") for i, column in enumerate(rows)])
        for rows in (mine, others)
    )
    names, others = mine.columns, others.with_columns(pl.Series("kept", theirs, pl.Int64))
    for name in names:
        # A few rows are alike in no column but to a few others: that spares hashing whole rows.
        held = mine[name].unique()
        others = others.filter(pl.col(name).is_in(held.implode(), nulls_equal=True))
        if others.height <= mine.height:
            break
    others = others.unique(names, keep="first", maintain_order=True)
    alike = mine.join(others, on=names, how="left", nulls_equal=True, maintain_order="left")
    found = alike["kept"].fill_null(NONE).to_numpy()
    return np.where(found == NONE, kept, found)
