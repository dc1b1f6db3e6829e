"""One column of a table beside the same column of a reference: which aspects are compared.

What moves by nature is not tested: dates run on, and numbers that name rows are new in every batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from tasks.cleaning.detect.patterns import pattern_of
from tasks.cleaning.profile.distributions import SHAPED
from tasks.cleaning.profile.drift.statistics import (
    Counts,
    Outcome,
    compare_levels,
    compare_numbers,
    compare_shares,
    new_levels,
)
from tasks.cleaning.profile.values import Floats, Values

RARE = 0.5
"""Where rare texts fill more of a column than this, its shapes are compared too."""
COMMON = 5
KEY_SPAN = 3
"""Whole numbers, all different, within this many times their number: they count rows."""


@dataclass(frozen=True, slots=True)
class DriftConfig:
    """When a table has drifted.

    Attributes:
        alpha: Probability that any aspect of any column alarms in a table without drift.
        least_rows: Filled cells on either side below which nothing is tested.
        gap: Least distance of the distributions that alarms (the largest gap between cumulative
            shares of numbers, the share of rows that changed place between levels of texts).
        missing: Least difference of the shares of missing or unreadable cells.
        unseen: Least share of rows with values that the reference does not hold.
    """

    alpha: float = 0.05
    least_rows: int = 20
    gap: float = 0.05
    missing: float = 0.02
    unseen: float = 0.01

    def __post_init__(self) -> None:
        """Reject what is no share, and samples that no test can be made of."""
        for name in ("gap", "missing", "unseen"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        if not 0.0 < self.alpha < 1.0:
            raise ValueError(f"alpha must lie between 0 and 1, got {self.alpha}")
        if self.least_rows < 2:
            raise ValueError(f"least_rows must be at least 2, got {self.least_rows}")


@dataclass(frozen=True, slots=True)
class Check:
    """One aspect of a column, compared or not.

    Attributes:
        aspect: ``values``, ``shapes``, ``unseen``, ``missing`` or ``unreadable``.
        outcome: What the test says; None where none was made.
        floor: Least effect that alarms.
        reference: What the reference shows, for people.
        current: What the table shows; where nothing was tested, why.
    """

    aspect: str
    outcome: Outcome | None
    floor: float
    reference: str
    current: str


def checks(reference: Values, current: Values, config: DriftConfig) -> Iterator[Check]:
    """Yield the aspects of a column.

    Args:
        reference: The column as it should look, read.
        current: The column, read as the reference is.
        config: What counts.
    """
    if min(reference.rows, current.rows) < config.least_rows:
        yield _untested("values", f"fewer than {config.least_rows} rows on one side")
        return
    yield _share(
        "missing", reference.missing, reference.rows, current.missing, current.rows, config
    )
    if min(reference.filled, current.filled) < config.least_rows:
        yield _untested("values", _too_few(reference, current, config))
        return
    if reference.is_number or reference.is_time:
        yield _share(
            "unreadable",
            reference.unreadable,
            reference.filled,
            current.unreadable,
            current.filled,
            config,
        )
        yield _numbers(reference, current, config)
    else:
        yield from _texts(reference.text, current.text, config)


def moves(reference: Values, current: Values) -> str:
    """Return why a column's values differ from batch to batch by nature, "" where they do not."""
    if reference.is_time:
        return "dates move by nature"
    both = (reference.numbers, current.numbers)
    if reference.is_number and all(len(one) and _names_rows(one) for one in both):
        return "all different: it names rows, and is new in every batch"
    return ""


def _numbers(reference: Values, current: Values, config: DriftConfig) -> Check:
    a, b = reference.numbers, current.numbers
    if min(len(a), len(b)) < config.least_rows:
        return _untested("values", f"fewer than {config.least_rows} {reference.kind}s on one side")
    if why := moves(reference, current):
        return _untested("values", why)
    outcome = compare_numbers(a, b)
    at = outcome.where
    told = [
        f"median {np.median(one):.4g}, {np.mean(one <= at):.1%} up to {at:.4g}" for one in (a, b)
    ]
    return Check("values", outcome, config.gap, *told)


def _texts(reference: pl.Series, current: pl.Series, config: DriftConfig) -> Iterator[Check]:
    levels, a, b = _levels(reference, current)
    n, m = int(a.sum()), int(b.sum())
    rare = (a + b) * (min(n, m) / (n + m)) < COMMON
    if not rare.all():
        yield _changed("values", levels, a, b, config)
    unseen = int(((a == 0) & (b > 0)).sum())
    yield Check(
        "unseen",
        new_levels(a, b),
        config.unseen,
        f"{int((a > 0).sum()):,} values",
        f"{unseen:,} new in {b[a == 0].sum() / m:.1%} of the rows{_examples(levels, a, b)}",
    )
    if (a + b)[rare].sum() > RARE * (n + m):
        shapes = [
            pattern_of(text.str.slice(0, SHAPED), collapsed=True) for text in (reference, current)
        ]
        yield _changed("shapes", *_levels(*shapes), config)


def _changed(aspect: str, levels: pl.Series, a: Counts, b: Counts, config: DriftConfig) -> Check:
    """Compare levels; the one that changed most stands for all."""
    p, q = a / a.sum(), b / b.sum()
    most = int(np.abs(p - q).argmax())
    name = _brief(levels[most])
    return Check(
        aspect, compare_levels(a, b), config.gap, f"{name} {p[most]:.1%}", f"{name} {q[most]:.1%}"
    )


def _levels(reference: pl.Series, current: pl.Series) -> tuple[pl.Series, Counts, Counts]:
    """Return the levels of both samples, sorted, and how often each occurs."""
    both = pl.concat(
        [
            pl.DataFrame(
                {"text": text.rename("text"), "current": pl.repeat(side, text.len(), eager=True)}
            )
            for side, text in ((False, reference), (True, current))
        ]
    )
    counts = both.group_by("text").agg(
        (~pl.col("current")).sum().alias("a"), pl.col("current").sum().alias("b")
    )
    counts = counts.sort("text")
    return (
        counts["text"],
        counts["a"].to_numpy().astype(np.int64),
        counts["b"].to_numpy().astype(np.int64),
    )


def _share(aspect: str, hits: int, of: int, now: int, out_of: int, config: DriftConfig) -> Check:
    outcome = compare_shares(hits, of, now, out_of)
    return Check(aspect, outcome, config.missing, f"{hits / of:.1%}", f"{now / out_of:.1%}")


def _untested(aspect: str, why: str) -> Check:
    return Check(aspect, None, 0.0, "", why)


def _too_few(reference: Values, current: Values, config: DriftConfig) -> str:
    empty = [
        side
        for side, one in (("the reference", reference), ("the table", current))
        if not one.filled
    ]
    if empty:
        return f"empty in {' and in '.join(empty)}"
    return f"fewer than {config.least_rows} filled cells on one side"


def _names_rows(numbers: Floats) -> bool:
    """Return whether whole numbers, all different, lie as close as numbers of rows do."""
    if (numbers != np.round(numbers)).any() or len(np.unique(numbers)) < len(numbers):
        return False
    return bool(numbers.max() - numbers.min() < KEY_SPAN * len(numbers))


def _examples(levels: pl.Series, a: Counts, b: Counts) -> str:
    new = np.flatnonzero(a == 0)
    if not len(new):
        return ""
    first = new[np.argsort(-b[new], kind="stable")[:2]]
    return f": {', '.join(_brief(levels[int(i)]) for i in first)}"


def _brief(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
