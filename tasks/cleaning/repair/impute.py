"""Missing cells estimated from the other columns, each with an interval or a set of values.

Numbers: quantile regression by gradient-boosted trees, its interval widened or narrowed by what
rows it had not seen needed (conformalized quantile regression, Romano et al., NeurIPS 2019).
Words: the values whose probability is not below what held-out rows needed (Sadinle et al., JASA
2019). ``coverage`` of the true values lie inside as long as missing cells are like filled ones;
where which cells are missing depends on other columns, held-out rows weigh by how likely a row like
them is to miss its value (Tibshirani et al., NeurIPS 2019), as far as that can be learnt. Where it
depends on the missing value itself (high incomes kept back) no method can know, and nothing is
promised: every premise says so.

An estimate is no evidence: it is a suggestion for a person, and fills a cell by itself only where a
declared line of the contract says ``impute = "fill"``, flagged by its rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.contract.model import ColumnContract, Contract
from tasks.cleaning.contract.rules import row_rules
from tasks.cleaning.findings import findings_of, joined
from tasks.cleaning.repair.number_texts import read_numbers, usual_digits, write_number
from tasks.cleaning.repair.votes import MISSING, encoded

VERSION = "impute/1"
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
CAUTION = "if its being missing does not depend on the value itself"


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
        inside: Texts of what each may be: the ends of an interval, or a set of values.
        single: bool [cells] whether the set has one value only; true for intervals.
        learnt_from: Filled rows that were learnt from.
    """

    rows: NDArray[np.int64]
    values: list[str]
    inside: list[str]
    single: Mask
    learnt_from: int


def impute(
    frame: pl.DataFrame, contract: Contract, config: ImputeConfig | None = None, *, by: str = ""
) -> pl.DataFrame:
    """Estimate the missing cells of the columns whose contract asks for it.

    Args:
        frame: Texts.
        contract: Columns with ``impute = "review"`` or ``"fill"`` are estimated.
        config: How.
        by: Column whose groups get intervals of their own, where they are large enough: then the
            coverage holds in each of them. None for "".

    Returns:
        Findings, the confidence above a half (the coverage) where the cell may be filled without a
        person: the line is declared, and of words only one value is left. The same for the same
        table; values that break a declared rule of their column are left out.
    """
    config = config or ImputeConfig()
    chosen = [name for name, column in contract.columns.items() if column.impute]
    chosen = [name for name in chosen if name in frame.columns and frame[name].null_count()]
    if not chosen:
        return joined([])
    features = {name: _feature(frame[name], contract.columns[name]) for name in contract.columns}
    groups = encoded(frame[by])[0] if by else np.zeros(frame.height, np.int64)
    parts = []
    for name in chosen:
        column = contract.columns[name]
        others = [features[other] for other in features if other != name]
        estimate = _estimate(frame[name], column, others, groups, config)
        if estimate is not None:
            fill = column.impute == "fill" and "impute" not in column.confidence
            found = _found(name, column, estimate, config, fill=fill, columns=len(others))
            parts.append(_allowed(found, name, contract))
    return joined(parts)


Feature = tuple[Floats, bool]
"""Numbers [rows] with NaN where missing, and whether they are codes of words."""


def _feature(text: pl.Series, column: ColumnContract) -> Feature:
    if column.is_number:
        return read_numbers(text), False
    codes = np.asarray(encoded(text)[0], np.float64)
    counts = np.bincount(codes[codes >= 0].astype(np.int64), minlength=1)
    # Words that hardly repeat teach nothing but themselves.
    return np.where((codes < 0) | (counts[codes.astype(np.int64)] < 2), np.nan, codes), True


def _estimate(
    text: pl.Series,
    column: ColumnContract,
    others: list[Feature],
    groups: NDArray[np.int64],
    config: ImputeConfig,
) -> Estimate | None:
    """Return the estimates of a column, None where there is too little to learn from."""
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
    """What a column is estimated from: features, rows to learn, to hold out and to fill."""

    x: Floats
    words: list[int]
    learn: NDArray[np.int64]
    hold: NDArray[np.int64]
    target: NDArray[np.int64]
    weights: Floats
    groups: NDArray[np.int64]
    config: ImputeConfig

    def fitted(self, kind: str, y: Any, **settings: Any) -> Any:
        """Return a model of the rows to learn from."""
        return _fit(kind, self.x[self.learn], y, self.words, self.config, **settings)


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
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
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
    half = len(rows) // 3
    weights = np.ones(len(x))
    enough = len(rows) >= config.least_rows and empty.sum() >= LEAST_TO_WEIGH
    if config.weighted and enough:
        weights = _odds_of_missing(x, words, rows, np.flatnonzero(empty), config)
    return np.sort(rows[half:]), np.sort(rows[:half]), weights


LEAST_OF_A_VALUE = 5
LEAST_TO_WEIGH = 30
MOST_ODDS = 20.0


def _odds_of_missing(
    x: Floats,
    words: list[int],
    filled: NDArray[np.int64],
    empty: NDArray[np.int64],
    config: ImputeConfig,
) -> Floats:
    """Return by how much likelier each row [rows] is to miss its value than the average row.

    Shrunk by what cross-fitting finds to be there: equal weights where missing falls at random.
    """
    empty = empty[:: max(1, len(empty) // len(filled))]
    rows = np.concatenate([filled, empty])
    missed = np.concatenate([np.zeros(len(filled)), np.ones(len(empty))])
    prior = missed.mean() / (1 - missed.mean())
    part = np.random.default_rng(1).integers(0, 2, len(rows))
    unseen = np.zeros(len(rows))
    odds = np.ones(len(x))
    for side in (0, 1):
        seen = rows[part == side]
        if len(np.unique(missed[part == side])) < 2:
            return odds
        model = _fit("LGBMClassifier", x[seen], missed[part == side], words, config)
        p = np.clip(model.predict_proba(x)[:, 1], 1e-3, 1 - 1e-3)
        unseen[part != side] = p[rows[part != side]]
        odds *= np.sqrt(p / (1 - p) / prior)
    # How much better than guessing it tells them apart decides how far it is believed.
    guess = missed.mean()
    loss = -np.mean(missed * np.log(unseen) + (1 - missed) * np.log(1 - unseen))
    base = -(guess * np.log(guess) + (1 - guess) * np.log(1 - guess))
    return odds if loss < base - LEAST_GAIN else np.ones(len(x))


LEAST_GAIN = 0.005


def _needed(scores: Floats, weights: Floats, own: Floats, coverage: float) -> Floats:
    """Return the score within which each cell's truth lies, by weighted conformal prediction.

    Args:
        scores: float64 [held out] what each would have needed.
        weights: float64 [held out] of them.
        own: float64 [cells] weight of each cell to fill.
        coverage: Share of truths inside.

    Returns:
        float64 [cells]; infinite where too few were held out.
    """
    order = np.argsort(scores, kind="stable")
    rising = np.append(np.cumsum(weights[order]), np.inf)
    wanted = coverage * (weights.sum() + own)
    place = np.searchsorted(rising, wanted - 1e-9 * wanted)
    return np.asarray(np.append(scores[order], np.inf)[np.minimum(place, len(scores))])


def _by_group(scores: Floats, table: _Table) -> Floats:
    """Return :func:`_needed` for the cells to fill, by their group where it is large enough."""
    needed = np.full(len(table.target), np.nan)
    hold, target, coverage = table.hold, table.target, table.config.coverage
    least = 2 / (1 - coverage)
    weights = np.minimum(table.weights, MOST_ODDS)
    for group in np.unique(table.groups[target]):
        mine = table.groups[target] == group
        held = table.groups[hold] == group
        if group == MISSING or held.sum() < least:
            held = np.ones(len(hold), bool)
        needed[mine] = _needed(scores[held], weights[hold[held]], weights[target[mine]], coverage)
    return needed


def _interval(text: pl.Series, column: ColumnContract, table: _Table) -> Estimate:
    y = read_numbers(text)
    tail = (1 - table.config.coverage) / 2
    at = np.concatenate([table.hold, table.target])
    ends = {}
    # Straight lines first, trees for what they leave: few rows are not spent on steps of a line.
    line = _line(table, y)
    for share in (tail, 0.5, 1 - tail):
        left = y[table.learn] - line[table.learn]
        model = table.fitted("LGBMRegressor", left, objective="quantile", alpha=share)
        ends[share] = line[at] + np.asarray(model.predict(table.x[at]), np.float64)
    held = len(table.hold)
    low, middle, high = (ends[share] for share in (tail, 0.5, 1 - tail))
    low, high = np.minimum(low, middle), np.maximum(high, middle)
    truth = y[table.hold]
    needed = _by_group(np.maximum(low[:held] - truth, truth - high[:held]), table)
    low, middle, high = low[held:] - needed, middle[held:], high[held:] + needed
    known = y[~np.isnan(y)]
    least = known.min() if column.minimum is None else max(float(column.minimum), -np.inf)
    most = known.max() if column.maximum is None else float(column.maximum)
    middle = np.clip(middle, least, most)
    digits = 0 if column.kind == "integer" else usual_digits(text)
    show = np.frompyfunc(lambda v: _end(v, digits), 1, 1)
    inside = [f"{a} to {b}" for a, b in zip(show(low), show(high), strict=True)]
    values = [str(v) for v in show(middle)]
    every = np.ones(len(values), bool)
    return Estimate(table.target, values, inside, every, len(table.learn) + held)


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


def _end(value: float, digits: int) -> str:
    return write_number(value, digits) if np.isfinite(value) else "any number"


MOST_CODES = 20
RIDGE = 5.0


def _set(text: pl.Series, table: _Table) -> Estimate:
    codes, texts = encoded(text)
    codes = np.asarray(codes, np.int64)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    known = np.unique(codes[table.learn])
    known = known[counts[known] >= LEAST_OF_A_VALUE]
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
    needed = _by_group(scores, table)
    names = [texts[code] for code in known]
    values, inside, single = [], [], []
    for row, most in zip(p[held:], needed, strict=True):
        order = np.argsort(-row, kind="stable")
        chosen = [i for i in order if 1 - row[i] <= most] or [int(order[0])]
        values.append(names[order[0]])
        shown = [names[i] for i in chosen[:SHOWN]]
        more = len(chosen) - len(shown)
        inside.append(", ".join(shown) + (f" and {more} more" if more else ""))
        single.append(len(chosen) == 1 and np.isfinite(most))
    return Estimate(table.target, values, inside, np.array(single, bool), len(table.learn) + held)


SHOWN = 4


def _found(
    name: str,
    column: ColumnContract,
    estimate: Estimate,
    config: ImputeConfig,
    *,
    fill: bool,
    columns: int,
) -> pl.DataFrame:
    number = column.is_number and not column.domain
    kind = "interval" if number else "set"
    premises = [
        f"{config.coverage:.0%} {kind} {inside}, from {columns} columns of "
        f"{estimate.learnt_from:,} rows, {CAUTION}"
        for inside in estimate.inside
    ]
    sure = np.where(estimate.single & fill, config.coverage, 0.5)
    cells = pl.DataFrame(
        {
            "row": estimate.rows,
            "suggestion": estimate.values,
            "premise": premises,
            "confidence": sure,
        },
        schema={
            "row": pl.Int64, "suggestion": pl.String, "premise": pl.String,
            "confidence": pl.Float64,
        },
    )  # fmt: skip
    return findings_of(
        cells, column=name, rule="impute", expected="a value", detector_version=VERSION
    )


def _allowed(found: pl.DataFrame, name: str, contract: Contract) -> pl.DataFrame:
    """Leave out suggestions that break a declared rule of their own column."""
    rules = [
        rule
        for rule in row_rules(contract)
        if rule.column == name and rule.declared and rule.sql  # of single rows
    ]
    if not rules or found.is_empty():
        return found
    seen = found.select(pl.col("suggestion").alias(name))
    broken = seen.select(pl.any_horizontal(rule.broken for rule in rules)).to_series()
    return found.filter(~broken)
