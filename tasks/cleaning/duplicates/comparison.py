"""How two values of a column compare: a level from "nothing alike" to "equal", or missing.

Levels, not similarities, go into the model: it learns itself what each of them is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import OSA, JaroWinkler

MISSING_LEVEL = -1
Levels = NDArray[np.int8]
Codes = NDArray[np.int64]
Kind = Literal["exact", "name", "text", "date", "number"]
KINDS: tuple[str, ...] = get_args(Kind)

_NAME = np.array([0.8, 0.88, 0.94], np.float32)  # Jaro-Winkler similarity
_TEXT = np.array([0.6, 0.75, 0.88], np.float32)  # 1 - OSA distance / length of the longer text
_NUMBER = (0.1, 0.01)  # relative difference
_LEVELS: dict[Kind, int] = {"exact": 2, "name": 5, "text": 5, "date": 5, "number": 4}


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a column is compared.

    Attributes:
        column: Its name.
        kind: ``exact``; ``name`` (Jaro-Winkler: short words whose beginning counts); ``text``
            (edits, a swap of two neighbours is one: streets, places, ids, mail addresses);
            ``date`` (year, month, day as ISO or eight digits; day and month swapped);
            ``number`` (within 1 and 10 %).
        term_frequency: Whether equal values count by how rare they are.
    """

    column: str
    kind: Kind = "text"
    term_frequency: bool = True

    def __post_init__(self) -> None:
        """Reject a kind that does not exist."""
        if self.kind not in _LEVELS:
            raise ValueError(f"column {self.column!r}: kind {self.kind!r}, not one of {[*_LEVELS]}")

    @property
    def levels(self) -> int:
        """Number of levels, the highest is "equal"."""
        return _LEVELS[self.kind]


def cleaned(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return the columns trimmed, in lower case, single blanks inside, empty as null."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(f"no columns {missing} to compare: there are {frame.columns}")
    text = pl.col(list(columns)).cast(pl.String).str.to_lowercase()
    text = text.str.replace_all(r"\s+", " ").str.strip_chars()
    return frame.select(pl.when(text.str.len_chars() > 0).then(text))


def compare(
    comparison: Comparison, values: Sequence[str], left: Codes, right: Codes, *, workers: int = 2
) -> Levels:
    """Compare pairs of values; each distinct pair is computed once.

    Args:
        comparison: How.
        values: Distinct texts.
        left: int64 [pairs] positions in ``values``, -1 for a missing value.
        right: The same of the other side.
        workers: Threads.

    Returns:
        int8 [pairs] levels, ``MISSING_LEVEL`` where a side is missing.
    """
    levels = np.zeros(len(left), np.int8)
    levels[left == right] = comparison.levels - 1
    levels[(left < 0) | (right < 0)] = MISSING_LEVEL
    differ = np.flatnonzero(levels == 0)
    if comparison.kind == "exact" or len(differ) == 0:
        return levels
    low = np.minimum(left[differ], right[differ])
    high = np.maximum(left[differ], right[differ])
    packed, inverse = np.unique(low * len(values) + high, return_inverse=True)
    a, b = packed // len(values), packed % len(values)
    levels[differ] = _unequal(comparison.kind, values, a, b, workers)[inverse]
    return levels


def jaro_winkler(
    values: Sequence[str], left: Codes, right: Codes, *, workers: int = 2
) -> NDArray[np.float32]:
    """Return the Jaro-Winkler similarity of pairs, 0 where one is missing: float32 [pairs]."""
    similarity = np.zeros(len(left), np.float32)
    both = np.flatnonzero((left >= 0) & (right >= 0))
    if len(both):
        packed, inverse = np.unique(left[both] * len(values) + right[both], return_inverse=True)
        a, b = packed // len(values), packed % len(values)
        similarity[both] = _pairwise(JaroWinkler.similarity, values, a, b, workers)[inverse]
    return similarity


def _unequal(kind: Kind, values: Sequence[str], a: Codes, b: Codes, workers: int) -> Levels:
    if kind == "name":
        similarity = _pairwise(JaroWinkler.similarity, values, a, b, workers)
        return _level(_NAME, similarity)
    if kind == "text":
        similarity = _pairwise(OSA.normalized_similarity, values, a, b, workers)
        return _level(_TEXT, similarity)
    return _dates(values, a, b, workers) if kind == "date" else _numbers(values, a, b)


def _level(limits: NDArray[np.float32], similarity: NDArray[np.float32]) -> Levels:
    return np.searchsorted(limits, similarity, side="right").astype(np.int8)


def _pairwise(
    scorer: Callable[..., float], values: Sequence[str], a: Codes, b: Codes, workers: int
) -> NDArray[np.float32]:
    texts = np.array(values, object)
    made = process.cpdist(texts[a], texts[b], scorer=scorer, dtype=np.float32, workers=workers)
    return np.asarray(made, np.float32)


def _dates(values: Sequence[str], a: Codes, b: Codes, workers: int) -> Levels:
    """Levels of unequal dates: 3 one edit away or day and month swapped, 2 two edits, 1 year."""
    digits = pl.Series(values, dtype=pl.String).str.replace_all(r"\D", "")
    plain = digits.to_list()
    whole = (digits.str.len_chars() == 8).to_numpy()
    swapped = (digits.str.slice(0, 4) + digits.str.slice(6) + digits.str.slice(4, 2)).to_numpy()
    texts, years = np.array(plain, object), digits.str.slice(0, 4).to_numpy()
    edits = _pairwise(OSA.distance, plain, a, b, workers)
    level = np.where(edits <= 2, 2, np.where(years[a] == years[b], 1, 0))
    turned = whole[a] & whole[b] & (swapped[a] == texts[b])
    return np.asarray(np.where((edits <= 1) | turned, 3, level), np.int8)


def _numbers(values: Sequence[str], a: Codes, b: Codes) -> Levels:
    """Levels of unequal texts: 3 the same number, 2 within 1 %, 1 within 10 %."""
    number = pl.Series(values, dtype=pl.String).cast(pl.Float64, strict=False).to_numpy()
    x, y = number[a], number[b]
    size = np.maximum(np.abs(x), np.abs(y))
    with np.errstate(invalid="ignore"):
        apart = np.abs(x - y)
        level = (apart <= _NUMBER[0] * size).astype(np.int8)
        level += apart <= _NUMBER[1] * size
        level += apart == 0
    return np.asarray(level, np.int8)
