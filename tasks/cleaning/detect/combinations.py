"""Combinations that do not occur: two common values that avoid each other, but for a row or two.

For every pair of columns with few values the count of a combination is held against the one to be
expected were the columns independent. Where many were expected and hardly one is there, the rows
that hold it are in doubt; which of the two cells is wrong shows by how many other columns either
clashes with.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import numpy as np
import polars as pl
from scipy.special import expit

from tasks.cleaning.findings import findings_of, no_findings
from tasks.cleaning.repair.votes import MISSING, Codes, encoded

VERSION = "combinations/1"
MOST_VALUES = 100
MOST_SEEN = 2
PRIOR = 8.0  # log-odds against a cell before the combination is looked at
ONE_OF_TWO = 0.5


def impossible_combinations(frame: pl.DataFrame, *, least: float = 0.25) -> pl.DataFrame:
    """Return findings of cells in combinations far rarer than chance would have them.

    The surprise of a combination is the Poisson deviance of its count, less the logarithm of the
    combinations looked at; a cell takes that of its most surprising one, times the share of its
    row's clashes that it takes part in.

    Args:
        frame: Texts.
        least: Findings less sure than this are left out.
    """
    codes: dict[str, Codes] = {}
    for name in frame.columns:
        code, texts = encoded(frame[name])
        if 1 < len(texts) <= min(MOST_VALUES, frame.height // 5):
            codes[name] = code
    pairs = list(combinations(codes, 2))
    clashes: dict[int, list[tuple[str, str, float]]] = defaultdict(list)
    for first, second in pairs:
        for row, surprise in _clashes(codes[first], codes[second], len(pairs)):
            clashes[row].append((first, second, surprise))
    cells = [cell for row, found in sorted(clashes.items()) for cell in _blame(row, found)]
    if not cells:
        return no_findings()
    cells = [(row, name, other, p) for row, name, other, p in cells if p >= least]
    return findings_of(
        pl.DataFrame(
            {
                "row": [row for row, *_ in cells],
                "column": [name for _, name, *_ in cells],
                "observed": [frame[name][row] for row, name, *_ in cells],
                "premise": [f"hardly ever with {other} = {frame[other][row]!r}"
                            for row, _, other, _ in cells],
                "confidence": [p for *_, p in cells],
            },
            schema_overrides={"confidence": pl.Float64, "row": pl.Int64, "column": pl.String,
                              "observed": pl.String, "premise": pl.String},
        ),
        rule="impossible-combination",
        expected="a value that goes with the rest of the row",
        detector_version=VERSION,
    )  # fmt: skip


def _clashes(first: Codes, second: Codes, pairs: int) -> list[tuple[int, float]]:
    """Return rows with a combination far rarer than expected, and its surprise."""
    filled = np.flatnonzero((first != MISSING) & (second != MISSING))
    a, b = first[filled], second[filled]
    seen = np.zeros((int(first.max()) + 1, int(second.max()) + 1))
    np.add.at(seen, (a, b), 1)
    expected = seen.sum(1)[:, None] * seen.sum(0)[None, :] / max(len(filled), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviance = expected - seen + np.where(seen > 0, seen * np.log(seen / expected), 0.0)
    surprise = np.where(
        (seen > 0) & (seen <= MOST_SEEN) & (seen < expected),
        deviance - np.log(seen.size * pairs),
        -np.inf,
    )
    hit = np.flatnonzero(surprise[a, b] > 0)
    return [(int(filled[i]), float(surprise[a[i], b[i]])) for i in hit]


def _blame(row: int, found: list[tuple[str, str, float]]) -> list[tuple[int, str, str, float]]:
    """Return row, column, the column it clashes with most, and the probability of being wrong."""
    parts: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for first, second, surprise in found:
        parts[first].append((surprise, second))
        parts[second].append((surprise, first))
    cells = []
    for name, clash in parts.items():
        surprise, other = max(clash)
        share = len(clash) / len(found) if len(found) > 1 else ONE_OF_TWO
        cells.append((row, name, other, share * float(expit(surprise - PRIOR))))
    return cells
