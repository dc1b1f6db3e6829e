"""Copies of a transaction: the same number again, or the same payment a moment later.

A retry after a lost answer sends the same account, merchant and amount with another number. Two
coffees a minute apart look the same: ``near_seconds`` says from when on they are two.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.profile.times import seconds_of
from tasks.cleaning.transactions.model import TransactionRules

Bools = NDArray[np.bool_]


def repeated_id(frame: pl.DataFrame, rules: TransactionRules) -> Bools:
    """Return the rows whose number occurred in an earlier row [rows]."""
    number = frame[rules.id]
    return (~number.is_first_distinct() & number.is_not_null()).to_numpy()


def near_copies(frame: pl.DataFrame, rules: TransactionRules) -> Bools:
    """Return the rows that follow an equal payment within ``near_seconds`` [rows].

    Payments are compared with the one before of the same account, merchant, amount (as a number)
    and currency, in order of time and, at the same time, of rows; so of a chain of retries all but
    the first are found.
    """
    columns = [n for n in (rules.account, rules.merchant, rules.currency) if n]
    # Numbers for names: a column may be called as one of those below.
    alike = [frame[column].alias(f"{i}") for i, column in enumerate(columns)]
    amount = frame[rules.amount].str.strip_chars().cast(pl.Float64, strict=False)
    made = pl.DataFrame([*alike, amount.alias("amount")]).with_columns(
        pl.Series("time", seconds_of(frame[rules.time], rules.zone), nan_to_null=True)
    )
    names = [one.name for one in alike]
    made = made.with_row_index("row").drop_nulls()
    # A hash puts equal payments together faster than a sort by every column; what is equal is then
    # asked of the columns themselves.
    made = made.with_columns(pl.struct(*names, "amount").hash().alias("key")).sort(
        "key", "time", "row"
    )
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in [*names, "amount"])
    near = same & (pl.col("time").diff() <= rules.near_seconds)
    found = np.zeros(frame.height, bool)
    found[made.filter(near.fill_null(value=False))["row"].to_numpy()] = True
    return found
