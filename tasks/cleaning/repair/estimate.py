"""Estimates of one column's missing cells, by gradient-boosted trees over the other columns.

Numbers: a line first, then quantile regression of what it leaves, its interval widened or narrowed
by what held-out rows needed (conformalized quantile regression, Romano et al., NeurIPS 2019).
Words: the values whose probability is not below what held-out rows needed (Sadinle et al., JASA
2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.contract.model import ColumnContract
from tasks.cleaning.repair.conformal import missing_odds, needed_by_group
from tasks.cleaning.repair.number_texts import read_numbers, usual_digits, write_number
from tasks.cleaning.repair.votes import encoded

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
SHOWN = 4
"""Words of a set that a premise names."""
LEAST_OF_A_VALUE = 5
LEAST_TO_WEIGH = 30
MOST_CODES = 20
RIDGE = 5.0


@dataclass(frozen=True, slots=True)
class ImputeConfig:
    """How missing cells are estimated.

    Attributes:
        coverage: Share of the true values inside their intervals or sets.
        least_rows: Columns with fewer filled cells are left alone.
        most_values: Columns of words with more values are left alone, as are values that occur
            fewer than five times.
        most_rows: Filled rows that are learnt from at most, drawn evenly.
        trees: Of each model.
        weighted: Whether held-out rows weigh by how likely a row like them is to miss its value.
    """

    coverage: float = 0.9
    least_rows: int = 60
    most_values: int = 50
    most_rows: int = 20_000
    trees: int = 80
    weighted: bool = True

    def __post_init__(self) -> None:
        """Reject a coverage that is none, and too few rows to hold any out."""
        if not 0.5 <= self.coverage < 1.0:
            raise ValueError(f"coverage must lie in 0.5..1, got {self.coverage}; 0.9 is usual")
        if self.least_rows < 4 / (1.0 - self.coverage):
            raise ValueError(
                f"a coverage of {self.coverage} needs least_rows of "
                f"{4 / (1.0 - self.coverage):.0f} at least, got {self.least_rows}"
            )


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the missing cells of one column may hold.

    Attributes:
        rows: int64 [cells] their rows.
        values: Text of the best guess of each.
        low: float64 [cells] ends of the intervals of numbers, NaN for words.
        high: Likewise; infinite where too few rows were like the cell's to say.
        options: Sets of words, the likeliest first; empty for numbers.
        single: bool [cells] whether the set has one value only; true for intervals.
        learnt_from: Filled rows that were learnt from or held out.
        digits: After the point of numbers.
    """

    rows: Rows
    values: list[str]
    low: Floats
    high: Floats
    options: list[list[str]]
    single: Mask
    learnt_from: int
    digits: int = 0

    def inside(self, cell: int) -> str:
        """Say for people what a cell may hold."""
        if not self.options:
            low, high = (
                write_number(v, self.digits) if np.isfinite(v) else "any number"
                for v in (self.low[cell], self.high[cell])
            )
            return f"interval {low} to {high}"
        words = self.options[cell]
        more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
        return f"set {', '.join(words[:SHOWN])}{more}"


Feature = tuple[Floats, bool]
"""Numbers [rows] with NaN where missing, and whether they are codes of words."""


def feature_of(text: pl.Series, column: ColumnContract) -> Feature:
    """Return a column as a model reads it; words that occur once teach nothing and are missing."""
    if column.is_number:
        return read_numbers(text), False
    codes = np.asarray(encoded(text)[0], np.float64)
    counts = np.bincount(codes[codes >= 0].astype(np.int64), minlength=1)
    return np.where((codes < 0) | (counts[codes.astype(np.int64)] < 2), np.nan, codes), True


def estimate_column(
    text: pl.Series,
    column: ColumnContract,
    others: list[Feature],
    groups: Rows,
    config: ImputeConfig,
) -> Estimate | None:
    """Estimate the missing cells of a column.

    Args:
        text: The column.
        column: What it must be.
        others: Features of all other columns.
        groups: int64 [rows] groups that get intervals of their own where they are large enough.
        config: How.

    Returns:
        None where there is too little to learn from.
    """
    if not others:
        return None
    x = np.column_stack([values for values, _ in others])
    words = [i for i, (_, coded) in enumerate(others) if coded]
    empty = text.is_null().to_numpy()
    learn, hold, weights = _parts(text, column, x, words, empty, config)
    if len(learn) + len(hold) < config.least_rows:
        return None
    target = np.flatnonzero(empty)
    table = _Table(x, words, learn, hold, target, weights, groups, config)
    if column.is_number and not column.domain:
        return _interval(text, column, table)
    return _set(text, table)


@dataclass(frozen=True, slots=True)
class _Table:
    """What a column is estimated from.

    Attributes:
        x: float64 [rows, features].
        words: Which features are codes.
        learn: Rows to learn from.
        hold: Rows held out.
        target: Rows to fill.
        weights: float64 [rows] odds of missing.
        groups: int64 [rows].
        config: How.
    """

    x: Floats
    words: list[int]
    learn: Rows
    hold: Rows
    target: Rows
    weights: Floats
    groups: Rows
    config: ImputeConfig

    def needed(self, scores: Floats) -> Floats:
        """Return the score within which the truth lies [target], by scores of held-out rows."""
        hold, target = self.hold, self.target
        return needed_by_group(
            scores,
            (self.weights[hold], self.weights[target]),
            (self.groups[hold], self.groups[target]),
            self.config.coverage,
        )


def _fit(
    kind: str, x: Floats, y: Any, words: list[int], config: ImputeConfig, **settings: Any
) -> Any:
    import lightgbm

    model = getattr(lightgbm, kind)(
        n_estimators=config.trees, learning_rate=0.08, num_leaves=15,
        min_child_samples=max(5, min(20, len(x) // 20)), reg_lambda=1.0, max_cat_threshold=16,
        random_state=0, deterministic=True, force_row_wise=True, n_jobs=1, verbose=-1, **settings,
    )  # fmt: skip
    return model.fit(x, y, categorical_feature=words)


def _parts(
    text: pl.Series,
    column: ColumnContract,
    x: Floats,
    words: list[int],
    empty: Mask,
    config: ImputeConfig,
) -> tuple[Rows, Rows, Floats]:
    """Return rows to learn from, rows to hold out, and the weight of each row of the table."""
    if column.is_number and not column.domain:
        usable = ~np.isnan(read_numbers(text))
    else:
        counts = text.drop_nulls().alias("text").value_counts()
        common = counts.filter(pl.col("count") >= LEAST_OF_A_VALUE)
        if not 2 <= common.height <= config.most_values:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        usable = ~empty
    rows = np.random.default_rng(0).permutation(np.flatnonzero(usable))[: config.most_rows]
    held = len(rows) // 3
    weights = np.ones(len(x))
    enough = len(rows) >= config.least_rows and empty.sum() >= LEAST_TO_WEIGH
    if config.weighted and enough:
        gone = np.flatnonzero(empty)
        weights = missing_odds(
            x, rows, gone, lambda seen, y: _fit("LGBMClassifier", x[seen], y, words, config)
        )
    return np.sort(rows[held:]), np.sort(rows[:held]), weights


def _interval(text: pl.Series, column: ColumnContract, table: _Table) -> Estimate:
    y = read_numbers(text)
    tail = (1 - table.config.coverage) / 2
    at = np.concatenate([table.hold, table.target])
    ends = {}
    # Straight lines first, trees for what they leave: few rows are not spent on steps of a line.
    line = _line(table, y)
    for share in (tail, 0.5, 1 - tail):
        left = y[table.learn] - line[table.learn]
        model = _fit(
            "LGBMRegressor",
            table.x[table.learn],
            left,
            table.words,
            table.config,
            objective="quantile",
            alpha=share,
        )
        ends[share] = line[at] + np.asarray(model.predict(table.x[at]), np.float64)
    held = len(table.hold)
    low, middle, high = (ends[share] for share in (tail, 0.5, 1 - tail))
    low, high = np.minimum(low, middle), np.maximum(high, middle)
    truth = y[table.hold]
    needed = table.needed(np.maximum(low[:held] - truth, truth - high[:held]))
    low, middle, high = low[held:] - needed, middle[held:], high[held:] + needed
    known = y[~np.isnan(y)]
    least = known.min() if column.minimum is None else max(float(column.minimum), -np.inf)
    most = known.max() if column.maximum is None else float(column.maximum)
    middle = np.clip(middle, least, most)
    digits = 0 if column.kind == "integer" else usual_digits(text)
    values = [write_number(v, digits) for v in middle]
    every = np.ones(len(values), bool)
    learnt = len(table.learn) + held
    return Estimate(table.target, values, low, high, [], every, learnt, digits)


def _line(table: _Table, y: Floats) -> Floats:
    """Return a ridge regression's prediction for every row of the table [rows]."""
    columns = []
    for place, values in enumerate(table.x.T):
        known = values[table.learn][~np.isnan(values[table.learn])]
        if place in table.words:
            codes = np.unique(known)[:MOST_CODES]
            columns += [(values == code).astype(np.float64) for code in codes]
        elif len(known):
            columns.append(np.where(np.isnan(values), known.mean(), values))
    if not columns:
        return np.full(len(table.x), y[table.learn].mean())
    x = np.column_stack(columns)
    centre, scale = x[table.learn].mean(axis=0), x[table.learn].std(axis=0)
    # Far outside what was learnt a line runs away.
    x = np.clip((x - centre) / np.where(scale > 0, scale, 1.0), -4.0, 4.0)
    learn, mean = x[table.learn], y[table.learn].mean()
    inner = learn.T @ learn + RIDGE * np.eye(x.shape[1])
    slope = np.linalg.solve(inner, learn.T @ (y[table.learn] - mean))
    return np.asarray(mean + x @ slope)


def _set(text: pl.Series, table: _Table) -> Estimate | None:
    codes, texts = encoded(text)
    codes = np.asarray(codes, np.int64)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    known = np.unique(codes[table.learn])
    known = known[counts[known] >= LEAST_OF_A_VALUE]
    if len(known) < 2:
        return None
    learn = table.learn[np.isin(codes[table.learn], known)]
    y = np.searchsorted(known, codes[learn])
    model = _fit("LGBMClassifier", table.x[learn], y, table.words, table.config)
    at = np.concatenate([table.hold, table.target])
    p = np.asarray(model.predict_proba(table.x[at]), np.float64)
    p = p[:, None] if p.ndim == 1 else p
    held = len(table.hold)
    place = np.searchsorted(known, codes[table.hold]).clip(0, len(known) - 1)
    there = known[place] == codes[table.hold]
    # A rare value that was not learnt would have been missed whatever the set.
    scores = np.where(there, 1 - p[np.arange(held), place], np.inf)
    needed = table.needed(scores)
    names = [texts[code] for code in known]
    options = []
    for row, most in zip(p[held:], needed, strict=True):
        order = np.argsort(-row, kind="stable")
        options.append([names[i] for i in order if 1 - row[i] <= most] or [names[int(order[0])]])
    single = np.array([len(words) == 1 for words in options], bool) & np.isfinite(needed)
    nothing = np.full(len(options), np.nan)
    return Estimate(
        table.target,
        [words[0] for words in options],
        nothing,
        nothing,
        options,
        single,
        len(table.learn) + held,
    )
