"""Rules over a whole table: rows first, then what only several rows together can break.

Of rows that share a key the first good one stays, and of equal payments the first good one: a row
that is set aside anyway must not take a good one with it. So rules across rows are judged one after
another, each among the rows that broke no declared rule before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import polars as pl

from tasks.cleaning.contract.rules import RowRule, filled
from tasks.cleaning.transactions.checks import TransactionCheck


def verdicts(
    frame: pl.DataFrame | pl.LazyFrame, rules: Sequence[RowRule], good: pl.Expr | None = None
) -> pl.LazyFrame:
    """Return which rows break which rules.

    The same on eager, lazy and streamed frames; readings that rules share are computed once.

    Args:
        frame: Texts.
        rules: Of ``rules.row_rules``.
        good: Which rows are not set aside already; None for all.

    Returns:
        Boolean columns ``"0"``, ``"1"``, … in the order of ``rules``, never null.
    """
    single = [i for i, rule in enumerate(rules) if not rule.across]
    across = [i for i, rule in enumerate(rules) if rule.across]
    keys = [i for i in across if rules[i].key]
    checks = {i: check for i in across if (check := rules[i].check)}
    told = frame.lazy().select(
        pl.lit(value=True).alias("good") if good is None else good.alias("good"),
        *(rules[i].broken.alias(f"{i}") for i in single),
        *(pl.struct(rules[i].key).alias(f"key{i}") for i in keys),
        *(filled(rules[i].key).alias(f"filled{i}") for i in keys),
        *(pl.struct(check.columns).alias(f"seen{i}") for i, check in checks.items()),
    )
    bad = [pl.col(f"{i}") for i in single if rules[i].declared]
    if across and bad:
        told = told.with_columns(pl.col("good") & ~pl.any_horizontal(bad))
    for i in across:
        if i in checks:
            judge = partial(_broken_among, checks[i])
            broken = pl.map_batches([f"seen{i}", "good"], judge, return_dtype=pl.Boolean)
        else:
            first = pl.struct(f"key{i}", "good").is_first_distinct()
            broken = pl.col("good") & pl.col(f"filled{i}") & ~first
        told = told.with_columns(broken.alias(f"{i}"))
        if rules[i].declared:
            told = told.with_columns(pl.col("good") & ~pl.col(f"{i}"))
    return told.select(f"{i}" for i in range(len(rules)))


def _broken_among(check: TransactionCheck, columns: Sequence[pl.Series]) -> pl.Series:
    """Return which good rows break a check of transactions; ``columns`` are rows and good."""
    rows, good = columns
    broken = np.zeros(len(rows), bool)
    broken[good.to_numpy()] = check.broken(rows.filter(good).struct.unnest())
    return pl.Series(broken)
