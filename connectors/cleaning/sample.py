"""Rows of a file drawn by chance in bounded memory, however large the file and its cells are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.tables import read_batches
from tasks.cleaning.ingest.options import MIB, ReadOptions


@dataclass(frozen=True, slots=True)
class SampleLimits:
    """How much of a file is kept.

    Attributes:
        rows: Most rows.
        cells: Most cells: wide tables keep fewer rows.
        bytes: Most bytes of text; where they are not enough, half the rows go, again and again.
        characters: Characters kept of a cell.
        seed: Of the draw.
    """

    rows: int = 100_000
    cells: int = 20_000_000
    bytes: int = 512 * MIB
    characters: int = 4_096
    seed: int = 7

    def __post_init__(self) -> None:
        """Reject limits that keep nothing."""
        for name in ("rows", "cells", "bytes", "characters"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of a file, in its order.

    Attributes:
        frame: Texts.
        rows: int64 [frame.height] number of each row in the file.
        rows_in: Rows of the file, unreadable ones among them.
        quarantined: Rule -> rows that could not be read.
        cut: Kept cells that were longer than ``characters``.
        note: How rows were chosen and cut, for people; "" where the file is there as it is.
    """

    frame: pl.DataFrame
    rows: NDArray[np.int64]
    rows_in: int
    quarantined: dict[str, int]
    cut: int
    note: str


def sample_file(
    path: Path, options: ReadOptions | None = None, limits: SampleLimits | None = None
) -> Sample:
    """Draw rows from a file, each with the same chance; all of them where they are few enough.

    Every row draws a number, and the rows with the smallest ones stay: a sample at every moment,
    so that it can shrink while the file is read. The same file gives the same rows.

    Args:
        path: As for ``connectors.tables.read_batches``.
        options: As there.
        limits: How much is kept.

    Raises:
        TableReadError: When the file as a whole cannot be read.
    """
    limits = limits or SampleLimits()
    rng = np.random.default_rng(limits.seed)
    kept = _Kept(limits)
    rows_in = 0
    rules: Counter[str] = Counter()
    for batch in read_batches(path, options):
        rows_in += batch.rows_in
        rules.update(batch.quarantine["rule"].to_pylist())
        kept.add(batch.frame, batch.rows, rng.random(batch.frame.height))
    frame, rows, cut = kept.finish()
    readable = rows_in - rules.total()
    told = []
    if frame.height < readable:
        told.append(
            f"{frame.height:,} of {readable:,} readable rows, drawn by chance (seed {limits.seed})"
        )
    if cut:
        told.append(f"{cut:,} cells cut to {limits.characters:,} characters")
    return Sample(frame, rows, rows_in, dict(rules), cut, "; ".join(told))


class _Kept:
    """The rows with the smallest numbers so far."""

    def __init__(self, limits: SampleLimits) -> None:
        self._limits = limits
        self._most = limits.rows
        self._bound = np.inf
        self._frames: list[pl.DataFrame] = []
        self._rows: list[NDArray[np.int64]] = []
        self._draws: list[NDArray[np.float64]] = []
        self._cut: list[NDArray[np.int64]] = []

    def add(self, frame: pl.DataFrame, rows: NDArray[np.int64], draws: NDArray[np.float64]) -> None:
        """Take a batch."""
        self._most = min(self._most, max(1, self._limits.cells // max(frame.width, 1)))
        low = draws < self._bound
        frame = frame.filter(low)
        long = frame.select(
            pl.sum_horizontal(
                (pl.all().str.len_chars() > self._limits.characters).fill_null(value=False)
            ).alias("cut")
        )
        self._cut.append(long["cut"].to_numpy().astype(np.int64))
        self._frames.append(_own(frame.select(pl.all().str.slice(0, self._limits.characters))))
        self._rows.append(rows[low])
        self._draws.append(draws[low])
        if self._height() > 2 * self._most or self._size() > self._limits.bytes:
            self._shrink()

    def finish(self) -> tuple[pl.DataFrame, NDArray[np.int64], int]:
        """Return rows, their numbers in the file, and how many of their cells were cut."""
        self._shrink()
        return self._frames[0], self._rows[0], int(self._cut[0].sum())

    def _shrink(self) -> None:
        """Let rows go until all limits hold; what is left is one piece."""
        self._pick(self._most)
        while self._size() > self._limits.bytes and self._height() > 1:
            self._most = self._height() // 2
            self._pick(self._most)

    def _pick(self, most: int) -> None:
        frame, draws = pl.concat(self._frames), np.concatenate(self._draws)
        rows, cut = np.concatenate(self._rows), np.concatenate(self._cut)
        if len(draws) > most:
            self._bound = float(np.partition(draws, most)[most])
            low = draws < self._bound
            frame, draws, rows, cut = _own(frame.filter(low)), draws[low], rows[low], cut[low]
        self._frames, self._draws, self._rows, self._cut = [frame], [draws], [rows], [cut]

    def _height(self) -> int:
        return sum(frame.height for frame in self._frames)

    def _size(self) -> int:
        return int(sum(frame.estimated_size() for frame in self._frames))


def _own(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a copy that holds its own texts and not the whole blocks that they were cut from."""
    if frame.height == 0:
        return pl.DataFrame(schema=frame.schema)
    copied = pl.from_arrow(frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
    assert isinstance(copied, pl.DataFrame)  # noqa: S101 - a table gives a frame
    return copied
