"""Made-up people whose rows are copied with slips of the keyboard: tests and smoke runs."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.duplicates.comparison import Comparison
from tasks.cleaning.duplicates.linkage import Linkage

PEOPLE = Linkage(
    (
        Comparison("given", "name"),
        Comparison("family", "name"),
        Comparison("born", "date"),
        Comparison("town", "text"),
        Comparison("account", "text"),
    ),
    swapped=("given", "family"),
)
PARTS = ("ba", "ren", "lo", "mi", "ka", "ste", "vo", "du", "an", "er", "si", "tho", "ga", "pel")


def people(n: int, copies: int, seed: int) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """Return rows of people in random order, and int64 [rows] who each of them is.

    Args:
        n: People.
        copies: Each has 0 to so many further rows, each with a slip or a gap in 30 % of its cells.
        seed: Of all chance.
    """
    draw = np.random.default_rng(seed)

    def words(count: int, length: int) -> list[str]:
        return ["".join(draw.choice(PARTS, length)) for _ in range(count)]

    given, family, town = words(n // 4 + 2, 2), words(n // 2 + 2, 3), words(40, 4)
    rows, who = [], []
    for person in range(n):
        day = f"{draw.integers(1930, 2005)}-{draw.integers(1, 13):02}-{draw.integers(1, 29):02}"
        row = [draw.choice(given), draw.choice(family), day, draw.choice(town)]
        row.append(str(draw.integers(10**7, 10**8)))
        rows.append([str(cell) for cell in row])
        who.append(person)
        for _ in range(draw.integers(0, copies + 1)):
            copy = [_slip(cell, draw) if draw.random() < 0.3 else cell for cell in rows[-1]]
            rows.append(copy)
            who.append(person)
    order = draw.permutation(len(rows))
    names = [its.column for its in PEOPLE.comparisons]
    frame = pl.DataFrame([rows[i] for i in order], schema=names, orient="row")
    return frame, np.array(who, np.int64)[order]


def _slip(cell: str | None, draw: np.random.Generator) -> str | None:
    if not cell or draw.random() < 0.3:
        return None
    at = int(draw.integers(0, len(cell)))
    other = str(draw.integers(0, 10)) if cell[at].isdigit() else str(draw.choice(list("aeorst")))
    return cell[:at] + other + cell[at + 1 :]
