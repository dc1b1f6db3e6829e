"""What is known of every cell before any label: the features that errors are learned from.

A cell is described by its text as seen from its column (how often the text, its pattern, its pairs
of characters occur elsewhere, what lies near), by its row (what dependencies vote), and by what the
detectors say. Columns share the features, so that a label in one says something about all. (Shared
strategies as features: Raha, Mahdavi et al., SIGMOD 2019; characters: ETSB-RNN, Holzer and
Stockinger, EDBT 2022.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import OSA

from tasks.cleaning.contract.model import Dependency
from tasks.cleaning.detect.numbers import Floats
from tasks.cleaning.detect.patterns import pattern_of
from tasks.cleaning.repair.dependency_votes import opinions_of
from tasks.cleaning.repair.votes import encoded

DETECTORS = ("outlier", "unit", "key", "sequence", "rare", "impossible")
"""First words of the detectors' rules; each is one feature."""
VOTES = ("against", "for", "alone")
TEXT = (
    "missing", "often", "share", "pattern", "collapsed", "pair_texts", "pair_cells", "character",
    "length", "near", "commoner",
)  # fmt: skip
MOST_CHARACTERS = 64
MOST_TEXTS = 5_000  # of a column, that nearness is looked for among
REACH = 0.34
START, END = "\x02", "\x03"


@dataclass(frozen=True, slots=True)
class Signals:
    """Features of the cells of a frame.

    Attributes:
        names: Of the features [F].
        values: float32 [rows, columns, F].
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]


def signals_of(
    frame: pl.DataFrame,
    reference: pl.DataFrame,
    dependencies: Sequence[Dependency],
    findings: pl.DataFrame,
) -> Signals:
    """Describe every cell of a frame.

    Args:
        frame: Texts; the table as it came, or as it was repaired.
        reference: Texts of the same shape that say what is usual; the table as it was repaired.
        dependencies: What fixes what.
        findings: Of the detectors.
    """
    letters = _alphabet(reference)
    blocks = [_text_signals(frame[name], reference[name], letters) for name in frame.columns]
    text = np.stack(blocks, axis=1)
    votes = _vote_signals(frame, reference, dependencies)
    shown = _detector_signals(frame, findings)
    names = (*TEXT, *(f"character {c!r}" for c in letters), *VOTES, *DETECTORS)
    return Signals(names, np.concatenate((text, votes, shown), axis=2).astype(np.float32))


def _alphabet(frame: pl.DataFrame) -> tuple[str, ...]:
    """Return the commonest characters of a table's distinct texts, small letters for capitals."""
    counts: Counter[str] = Counter()
    for name in frame.columns:
        for text in frame[name].drop_nulls().unique().to_list():
            counts.update(set(text.lower()))
    common = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return tuple(c for c, _ in common[:MOST_CHARACTERS])


def _text_signals(values: pl.Series, reference: pl.Series, letters: Sequence[str]) -> Floats:
    """Return the features of a column's texts [rows, TEXT and letters]."""
    counts = dict(reference.drop_nulls().alias("text").value_counts().iter_rows())
    codes, texts = encoded(values)
    known = _Column(counts, reference)
    both = [_patterns(pl.Series(texts, dtype=pl.String), collapsed=c) for c in (False, True)]
    rows = np.array(
        [known.describe(text, p, letters) for text, *p in zip(texts, *both, strict=True)],
        np.float64,
    )
    rows = rows.reshape(len(texts), len(TEXT) + len(letters))
    gone = np.zeros((1, rows.shape[1]))
    gone[0, 0] = 1.0
    gone[0, 1] = np.log1p(max(reference.null_count() - 1, 0))
    gone[0, 2] = reference.null_count() / max(len(reference), 1)
    return np.asarray(np.concatenate([rows, gone])[codes])  # code -1: the last row


class _Column:
    """Counts of a column that a text is held against; its own cell never counts for it."""

    def __init__(self, counts: Mapping[str, int], reference: pl.Series) -> None:
        self._counts = counts
        self._cells = max(sum(counts.values()), 1)
        self._texts = max(len(counts), 1)
        self._pair_texts: Counter[str] = Counter()
        self._pair_cells: Counter[str] = Counter()
        self._character_texts: Counter[str] = Counter()
        for text, n in counts.items():
            pairs = set(_pairs(text))
            self._pair_texts.update(pairs)
            self._pair_cells.update(dict.fromkeys(pairs, n))
            self._character_texts.update(set(text.lower()))
        filled = reference.drop_nulls()
        self._most = float(np.log10(2 * self._texts)) if self._texts > 1 else 1.0
        self._common = [text for text, n in counts.items() if n > 1][:MOST_TEXTS]
        self._patterns = [Counter(_patterns(filled, collapsed=c)) for c in (False, True)]
        lengths = np.array([len(text) for text in counts] or [0], np.float64)
        self._length, self._spread = float(lengths.mean()), float(lengths.std()) + 1.0

    def describe(self, text: str, patterns: Sequence[str], letters: Sequence[str]) -> list[float]:
        """Return the features of a text: those of TEXT, then one for every letter."""
        n = self._counts.get(text, 0)
        there = int(n > 0)
        usual = [
            np.log10((known[one] - there + 0.5) / (self._cells + 1))
            for known, one in zip(self._patterns, patterns, strict=True)
        ]
        pairs = _pairs(text)
        by_text = [-np.log10((self._pair_texts[p] - there + 0.5) / self._texts) for p in pairs]
        by_cell = [-np.log10((self._pair_cells[p] - there + 0.5) / self._cells) for p in pairs]
        rare = [
            -np.log10((self._character_texts[c] - there + 0.5) / self._texts) for c in text.lower()
        ]
        odd = dict.fromkeys(letters, 0.0)
        for i, c in enumerate(text.lower()):
            if c in odd:  # how odd its neighbourhood is, 1 where no other text has it
                odd[c] = max(odd[c], max(by_text[i], by_text[i + 1]) / self._most)
        return [
            0.0, np.log1p(max(n - 1, 0)), max(n - there, 0) / self._cells, *usual,
            max(by_text, default=0.0), max(by_cell, default=0.0), max(rare, default=0.0),
            min(abs(len(text) - self._length) / self._spread, 5.0), *self._near(text, n),
            *odd.values(),
        ]  # fmt: skip

    def _near(self, text: str, n: int) -> tuple[float, float]:
        """Return how near the nearest text that is twice as common lies, and how much commoner."""
        reach = max(1, int(REACH * len(text)))
        found = process.extract(
            text, self._common, scorer=OSA.distance, score_cutoff=reach, limit=3, processor=None
        )
        for other, edits, _ in found:
            if other != text and self._counts[other] >= 2 * n:
                ratio = self._counts[other] / max(n, 1)
                return 1.0 - edits / max(len(text), 1), float(np.log10(ratio))
        return 0.0, 0.0


def _patterns(texts: pl.Series, *, collapsed: bool) -> list[str]:
    return pattern_of(texts, collapsed=collapsed).to_list()


def _pairs(text: str) -> list[str]:
    """Return the pairs of neighbouring characters, both ends marked."""
    marked = f"{START}{text.lower()}{END}"
    return [marked[i : i + 2] for i in range(len(marked) - 1)]


def _vote_signals(
    frame: pl.DataFrame, reference: pl.DataFrame, dependencies: Sequence[Dependency]
) -> Floats:
    """Return how many dependencies vote against a cell, for it, and whether it is alone."""
    found = np.zeros((frame.height, frame.width, len(VOTES)))
    codes, texts = {}, {}
    for name in frame.columns:
        codes[name], texts[name] = encoded(reference[name])
    for opinion in opinions_of(codes, dependencies):
        name = opinion.dependency.dependent
        place = frame.columns.index(name)
        voted = np.array([*texts[name], None], object)[opinion.votes.value]
        held = frame[name].to_numpy()
        differs = voted != held
        found[:, place, 0] += opinion.decided & differs
        found[:, place, 1] += opinion.decided & ~differs
        found[:, place, 2] += (opinion.votes.own <= 1) & (opinion.votes.size > 1)
    return np.asarray(np.log1p(found))


def _detector_signals(frame: pl.DataFrame, shown: pl.DataFrame) -> Floats:
    """Return the highest confidence of the detectors of each kind."""
    found = np.zeros((frame.height, frame.width, len(DETECTORS)))
    for row, column, rule, sure in shown.select("row", "column", "rule", "confidence").iter_rows():
        at = (row, frame.columns.index(column), DETECTORS.index(rule.split("-")[0]))
        found[at] = max(found[at], sure)
    return found
