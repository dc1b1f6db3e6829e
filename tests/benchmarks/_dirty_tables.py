"""Tables with their truth for clean-tables: read from a folder, or made up with a fixed seed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
SUBFOLDER = "DGov_NO"


@dataclass(frozen=True, slots=True)
class DirtyTable:
    """A table of texts and which of its cells are wrong.

    Attributes:
        name: Its folder.
        frame: Texts as found.
        wrong: Cells that differ from the clean table [rows, columns].
        judged: Rows that have a counterpart there [rows].
    """

    name: str
    frame: pl.DataFrame
    wrong: Bools
    judged: Bools


def data_folder(argument: Path | None) -> Path | None:
    """Return the folder of tables: the argument, or PENSTOCK_DATA (or its DGov_NO), or None."""
    folder = argument or (
        Path(os.environ["PENSTOCK_DATA"]) if os.environ.get("PENSTOCK_DATA") else None
    )
    if folder is None:
        return None
    inner = folder / SUBFOLDER
    return inner if inner.is_dir() else folder


def read_tables(folder: Path) -> list[DirtyTable]:
    """Return every subfolder with a dirty.csv and a clean.csv, by name.

    Raises:
        ValueError: There is none.
    """
    names = sorted(p.name for p in folder.iterdir() if (p / "dirty.csv").is_file())
    if not names:
        raise ValueError(f"{folder} holds no folders with dirty.csv and clean.csv; see --data")
    return [read_table(folder / name) for name in names]


def read_table(folder: Path) -> DirtyTable:
    """Return a table compared with its clean twin by position, as texts; empty equals missing."""
    dirty = pl.read_csv(folder / "dirty.csv", infer_schema=False)
    clean = pl.read_csv(folder / "clean.csv", infer_schema=False)
    ours, theirs = (f.fill_null("").to_numpy().astype(object) for f in (dirty, clean))
    if len(ours) == len(theirs):
        return DirtyTable(folder.name, dirty, ours != theirs, np.ones(len(ours), bool))
    partner = aligned(ours, theirs)
    judged = partner >= 0
    wrong = np.zeros(ours.shape, bool)
    wrong[judged] = ours[judged] != theirs[partner[judged]]
    return DirtyTable(folder.name, dirty, wrong, judged)


def aligned(ours: NDArray[np.object_], theirs: NDArray[np.object_]) -> NDArray[np.int64]:
    """Return the row of ``theirs`` for each of ``ours``, -1 for none, fewest cells differing.

    For tables in which a line break inside a cell has split rows.
    """
    n, m, width = len(ours), len(theirs), ours.shape[1]
    cost = (ours[:, None, :] != theirs[None, :, :]).sum(2)
    best = np.zeros((n + 1, m + 1), np.int64)
    best[0], best[:, 0] = np.arange(m + 1) * width, np.arange(n + 1) * width
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            best[i, j] = min(
                best[i - 1, j - 1] + cost[i - 1, j - 1],
                best[i - 1, j] + width,
                best[i, j - 1] + width,
            )
    partner, i, j = np.full(n, -1), n, m
    while i and j:
        if best[i, j] == best[i - 1, j - 1] + cost[i - 1, j - 1]:
            i, j = i - 1, j - 1
            partner[i] = j
        elif best[i, j] == best[i - 1, j] + width:
            i -= 1
        else:
            j -= 1
    return partner


def made_up_tables(seed: int, tables: int = 6, rows: int = 120) -> list[DirtyTable]:
    """Return tables of columns of every kind with 3 % wrong numbers in some of them."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(tables):
        length = rng.lognormal(4, 1, rows)
        columns = {
            "id": np.arange(1, rows + 1).astype(float),
            "year": np.full(rows, 2000.0 + k),
            "length": length.round(3),
            "area": (length**2 * rng.normal(1, 0.05, rows)).round(3),
            "share": rng.beta(5, 5, rows).round(2),
            "visits": rng.poisson(0.4, rows).astype(float),
            "temperature": rng.normal(15, 4, rows).round(1),
        }
        wrong = np.zeros((rows, len(columns) + 1), bool)
        for place, (name, values) in enumerate(columns.items()):
            if name in ("visits", "area"):
                continue
            hit = rng.choice(rows, max(1, rows * 3 // 100), replace=False)
            spread = max(values.std(), 0.2 * abs(values.mean()))
            values[hit] = (values[hit] + rng.choice([-1, 1], len(hit)) * spread * 8).round(3)
            wrong[hit, place] = True
        texts = {
            n: [f"{v:g}" if n != "area" else f"{v:.3f}" for v in c] for n, c in columns.items()
        }
        texts["town"] = rng.choice(["Leeds", "York", "Hull"], rows).tolist()
        made.append(DirtyTable(f"made-{k}", pl.DataFrame(texts), wrong, np.ones(rows, bool)))
    return made
