"""The owner's tables: rows in from CSV or NumPy files, scores out as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.privacy.readout import Readout

Reals = NDArray[np.float64]


class TableError(ValueError):
    """A table cannot be read; says where."""


def read_rows(path: Path, columns: Sequence[str]) -> Reals:
    """Read the columns of a model.

    Args:
        path: ``.npy`` with the columns in their order, or CSV with their names in its first line.
        columns: Names.

    Returns:
        float64 [n, F]; NaN where a cell is no number, which is refused when it is encrypted.

    Raises:
        TableError: When columns are missing, or the file is no table.
    """
    if path.suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except ValueError as error:
            raise TableError(f"{path}: {error}") from None
        if array.ndim != 2 or array.shape[1] != len(columns) or array.dtype.kind not in "fiu":
            raise TableError(
                f"{path} holds {array.dtype} {list(array.shape)}, not numbers [n, {len(columns)}]"
            )
        numbers: Reals = array.astype(np.float64)
        return numbers
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            found = _numbers(csv.reader(file), columns, path)
    except (csv.Error, UnicodeDecodeError) as error:
        raise TableError(f"{path} is no CSV file ({error})") from error
    return np.array(found, np.float64).reshape(len(found), len(columns))


def _numbers(lines: Iterator[list[str]], columns: Sequence[str], path: Path) -> list[list[float]]:
    names = next(lines, [])
    missing = [column for column in columns if column not in names]
    if missing:
        raise TableError(
            f"{path} lacks {len(missing)} columns of the model, such as {missing[0]!r}"
        )
    places = [names.index(column) for column in columns]
    return [
        [_number(line[place] if place < len(line) else "") for place in places]
        for line in lines
        if line
    ]


def write_scores(
    path: Path, scores: Reals, readout: Readout, refused: dict[int, str], *, values: bool
) -> None:
    """Write what came of every row.

    Args:
        path: CSV; columns ``row``, the outcomes, ``band`` and ``refused``.
        scores: float64 [n, O], NaN where a row was refused.
        readout: What to make of them.
        refused: Row -> why.
        values: Whether outcomes are written, or bands alone.
    """
    outcome = readout.outcome(scores)
    named = {"probability": ["probability"], "value": ["score"]}.get(readout.kind, [])
    if len(named) != scores.shape[1]:
        named = [f"{readout.kind}_{i}" for i in range(scores.shape[1])]
    if readout.kind == "class":
        bands = [str(i) for i in np.argmax(np.nan_to_num(outcome), axis=1)]
    else:
        bands = readout.bands(np.nan_to_num(outcome[:, 0]))
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["row", *(named if values else []), "band", "refused"])
        for row, (numbers, band) in enumerate(zip(outcome.tolist(), bands, strict=True)):
            why = refused.get(row, "")
            shown = ["" if why else repr(number) for number in numbers] if values else []
            lines.writerow([row, *shown, "" if why else band, why])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
