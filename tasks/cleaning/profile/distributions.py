"""How the values of a column are spread: quantiles, histograms, common texts, shapes, lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tasks.cleaning.detect.patterns import pattern_of
from tasks.cleaning.profile.values import Floats

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
BINS = 24
TAIL = 0.005
"""Share at either end that is counted beside the bars: one wild value must not flatten them."""
SHAPED = 200
"""Characters of a text that its shape is taken from."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges.

    Attributes:
        edges: Ascending; one more than counts. Where ``exact``, bar i counts the value edges[i].
        counts: Values per bar.
        below: Values under the first edge.
        above: Values over the last edge.
        exact: Whether every bar stands for one value.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int = 0
    above: int = 0
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the numbers of a column lie; dates and moments in days since 1970.

    Attributes:
        quantiles: Share -> value.
        mean: Mean; NaN where it leaves the range of floats.
        deviation: Standard deviation (n - 1), likewise.
        zeros: Numbers that are 0.
        negative: Numbers below 0.
        histogram: Counts.
    """

    quantiles: dict[float, float]
    mean: float
    deviation: float
    zeros: int
    negative: int
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class Texts:
    """What the texts of a column look like.

    Attributes:
        top: The commonest texts with their counts.
        patterns: The commonest shapes (9 digits, A capitals, a small letters, runs drawn together).
        shortest: Characters of the shortest text.
        median: Of the middle one.
        longest: Of the longest one.
    """

    top: tuple[tuple[str, int], ...]
    patterns: tuple[tuple[str, int], ...]
    shortest: int
    median: int
    longest: int


def spread_of(values: Floats) -> Spread | None:
    """Return where numbers lie, None where there are none.

    >>> spread_of(np.array([1.0, 2.0, 3.0])).quantiles[0.5]
    2.0
    """
    if len(values) == 0:
        return None
    quantiles = np.quantile(values, QUANTILES, method="inverted_cdf")
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(values.mean())
        deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Spread(
        dict(zip(QUANTILES, quantiles.tolist(), strict=True)),
        mean,
        deviation,
        int((values == 0).sum()),
        int((values < 0).sum()),
        histogram(values),
    )


def histogram(values: Floats, bins: int = BINS) -> Histogram:
    """Return a histogram of the middle 99 %; one bar per value where there are few values."""
    known, counts = np.unique(values, return_counts=True)
    if len(known) <= bins:
        return Histogram(tuple(known.tolist()), tuple(counts.tolist()), exact=True)
    low, high = np.quantile(values, [TAIL, 1.0 - TAIL], method="inverted_cdf")
    # A tail that is no longer than half the middle is drawn as it is.
    if known[0] > low - (high / 2 - low / 2):
        low = known[0]
    if known[-1] < high + (high / 2 - low / 2):
        high = known[-1]
    if not high / 2 - low / 2 > 0.0:
        low, high = known[0], known[-1]
    edges = np.unique(low + (high / 2 - low / 2) * np.linspace(0.0, 2.0, bins + 1))
    edges[-1] = max(edges[-1], high)
    inside = values[(values >= low) & (values <= high)]
    place = np.clip(np.searchsorted(edges, inside, side="right") - 1, 0, len(edges) - 2)
    bars = np.bincount(place, minlength=len(edges) - 1)
    return Histogram(
        tuple(edges.tolist()),
        tuple(bars.tolist()),
        int((values < low).sum()),
        int((values > high).sum()),
    )


def texts_of(text: pl.Series, top: int = 10) -> Texts | None:
    """Return what texts look like, None where there are none.

    Args:
        text: Filled texts.
        top: Commonest texts and shapes kept.
    """
    if text.is_empty():
        return None
    counts = text.alias("text").value_counts(name="count")
    shapes = counts.select(
        pattern_of(counts["text"].str.slice(0, SHAPED), collapsed=True).alias("text"), "count"
    )
    lengths = text.str.len_chars()
    return Texts(
        _commonest(counts, top),
        _commonest(shapes.group_by("text").agg(pl.col("count").sum()), top),
        int(lengths.min()),  # type: ignore[arg-type]
        int(lengths.median()),  # type: ignore[arg-type]
        int(lengths.max()),  # type: ignore[arg-type]
    )


def _commonest(counts: pl.DataFrame, top: int) -> tuple[tuple[str, int], ...]:
    """Return texts and counts, the commonest first, ties by text."""
    first = counts.sort("count", "text", descending=[True, False]).head(top)
    return tuple((text, int(count)) for text, count in first.select("text", "count").iter_rows())
