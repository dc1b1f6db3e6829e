"""Typos: rare texts that lie next to a common one, in columns where common texts lie far apart.

Whether nearness means anything is asked of the column itself: of its common values, how many lie as
near to a commoner one? Codes and numbers do (4711 and 4712 are two articles), names of cities
hardly ever. That share, times the rare cells, is what the rule may harm (``bound.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import OSA

from tasks.cleaning.findings import findings_of, joined
from tasks.cleaning.repair.bound import HarmBound
from tasks.cleaning.repair.cases import systematic
from tasks.cleaning.repair.votes import encoded

VERSION = "typos/1"
SHORT = 4
"""Shorter texts may have as many edits as one of this length: one."""


@dataclass(frozen=True, slots=True)
class TypoConfig:
    """What counts as rare, common and near.

    Attributes:
        rare: Most rows that a typo occurs in.
        times: A common text occurs at least this many times as often as the rare one.
        distance: Most edits (insert, delete, replace, swap) per character of the common text.
        max_values: Columns with more distinct values are left out: every pair is compared.
        max_length: Longer texts are left out, likewise.
    """

    rare: int = 3
    times: int = 5
    distance: float = 0.25
    max_values: int = 5_000
    max_length: int = 300


def typos(
    frame: pl.DataFrame,
    columns: Sequence[str],
    *,
    alpha: float,
    domains: dict[str, tuple[str, ...]] | None = None,
    config: TypoConfig | None = None,
) -> tuple[pl.DataFrame, dict[str, HarmBound]]:
    """Find rare texts next to common ones, or texts next to those of a declared domain.

    Args:
        frame: Texts.
        columns: Columns of words.
        alpha: Share of a column's correct cells that may be changed at most.
        domains: Declared values of columns; there everything else is an error.
        config: What counts as rare, common and near.

    Returns:
        Findings, the confidence above a half where the repair may be made without a person, and
        the bound of every column.
    """
    config, domains = config or TypoConfig(), domains or {}
    parts, bounds = [], {}
    codes = {name: encoded(frame[name])[0] for name in frame.columns}
    for column in columns:
        found = frame[column].drop_nulls().alias("text").value_counts()
        counts = dict(found.sort("count", "text", descending=[True, False]).iter_rows())
        if not 1 < len(counts) <= config.max_values or max(map(len, counts)) > config.max_length:
            continue
        targets, bound = _targets(counts, domains.get(column), config)
        doubtful = frame[column].is_in(list(targets)).fill_null(value=False).to_numpy()
        if column not in domains:
            others = [code for name, code in codes.items() if name != column]
            cases = systematic(doubtful, others)
            bound = replace(bound, exceptions=bound.exceptions + int(cases.sum()))
            doubtful = doubtful & ~cases
        bounds[column] = bound
        if doubtful.any():
            parts.append(_found(frame, column, np.flatnonzero(doubtful), targets, bound, alpha))
    return joined(parts), bounds


def _targets(
    counts: dict[str, int], domain: tuple[str, ...] | None, config: TypoConfig
) -> tuple[dict[str, tuple[str, int]], HarmBound]:
    """Return what each rare text may have been, with the edits; and the bound."""
    filled = sum(counts.values())
    if domain is not None:
        common, rare = list(domain), [text for text in counts if text not in domain]
        bound = HarmBound(0, filled)
    else:
        common = [text for text, n in counts.items() if n > config.rare]
        rare = [text for text, n in counts.items() if n <= config.rare]
        near = sum(bool(_near(text, common[:i], config)) for i, text in enumerate(common))
        cells = sum(counts[text] for text in rare)
        # Laplace's rule: that no two of few common values are near says little.
        bound = HarmBound(math.ceil(cells * (near + 1) / (len(common) + 2)), filled)
    targets = {}
    for text in rare:
        found = _nearest(text, common, config)
        if found and (domain is not None or counts[found[0]] >= config.times * counts[text]):
            targets[text] = found
    return targets, bound


def _nearest(text: str, common: Sequence[str], config: TypoConfig) -> tuple[str, int] | None:
    """Return the one nearest text within reach and its edits; None where two are as near."""
    near = _near(text, common, config)
    if not near or (len(near) == 2 and near[0][1] == near[1][1]):
        return None
    return near[0]


def _near(text: str, common: Sequence[str], config: TypoConfig) -> list[tuple[str, int]]:
    """Return the two nearest texts within reach at most, with their edits."""
    reach = max(1, int(config.distance * len(text)))
    near = process.extract(
        text, common, scorer=OSA.distance, score_cutoff=reach, limit=2, processor=None
    )
    return [
        (best, int(edits))
        for best, edits, _ in near
        if edits <= config.distance * max(len(best), SHORT)
    ]


def _found(
    frame: pl.DataFrame,
    column: str,
    rows: NDArray[np.int64],
    targets: dict[str, tuple[str, int]],
    bound: HarmBound,
    alpha: float,
) -> pl.DataFrame:
    cells = pl.DataFrame({"row": rows, "observed": frame[column].gather(rows)}).with_columns(
        pl.col("observed")
        .replace_strict({k: v[0] for k, v in targets.items()}, return_dtype=pl.String)
        .alias("suggestion"),
        pl.col("observed")
        .replace_strict({k: v[1] for k, v in targets.items()}, return_dtype=pl.Int64)
        .alias("edits"),
    )
    sure = bound.holds(alpha)
    return findings_of(
        cells.with_columns(
            pl.format("{} edits from a common value", "edits").alias("premise")
        ).drop("edits"),
        column=column,
        rule="typo",
        expected="a value that occurs elsewhere",
        confidence=1.0 - bound.rate if sure else 0.5,
        detector_version=VERSION,
    )
