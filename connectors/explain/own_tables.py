"""The tables that a user brings beside a model: rows, and a background that names the features."""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from connectors.explain.model_files import first_line
from connectors.explain.own_model import OwnModel
from connectors.files import read_table, require_file
from tasks.explain.background import Background
from tasks.explain.errors import BackgroundError, ExplanationError
from tasks.explain.players import Players
from tasks.explain.record import RowFacts
from tasks.explain.subject import UNKNOWN

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class OwnTables:
    """What the tables hold.

    Attributes:
        names: Features in the model's order.
        rows: float32 ``[n, F]``.
        background: Frozen rows.
        facts: Of the rows; ``decided`` is not known yet.
        outcomes: int8 ``[n]``.
        entity: Codes of the entity column, or None.
        constant: Features that have one value in rows and background; they explain nothing.
    """

    names: tuple[str, ...]
    rows: NDArray[np.float32]
    background: Background
    facts: RowFacts
    outcomes: NDArray[np.int8]
    entity: NDArray[np.int64] | None
    constant: tuple[str, ...] = field(default=())


def read_tables(own: OwnModel) -> OwnTables:
    """Read rows and background, and check them against each other.

    Raises:
        ExplanationError: On columns that do not fit.
        InputFileError: On a file that cannot be read.
    """
    frozen = read_table(own.background)
    taken = {own.key, own.time, own.label, own.entity, *own.segments} - {""}
    names = tuple(c for c in frozen.column_names if c not in taken)
    data = read_table(own.data, text_columns=[c for c in (own.key, own.entity) if c])
    there = frozenset(data.column_names)
    absent = [c for c in (*names, *sorted(taken)) if c not in there]
    if absent:
        raise BackgroundError(
            f"{own.data.name} has no column {absent[0]!r} ({len(absent)} are missing), which the "
            f"background {own.background.name} or an option names: give a background of the "
            "model's own columns, all of them in the table"
        )
    rows, held = _matrix(data, names, own.data), _matrix(frozen, names, own.background)
    if len(held) > own.most_background:
        chosen = np.random.default_rng(own.seed).choice(
            len(held), own.most_background, replace=False
        )
        held = np.ascontiguousarray(held[np.sort(chosen)])
    same = (rows == held[0]).all(axis=0) & (held == held[0]).all(axis=0)
    constant = tuple(name for name, one in zip(names, same, strict=True) if one)
    if len(constant) == len(names):
        raise ExplanationError(
            f"all {len(names)} columns have one value in table and background: there is nothing "
            "to explain; take a background of other rows"
        )
    facts = _facts(own, data)
    entity = None
    if own.entity:
        _, codes = np.unique(_texts(data, own.entity), return_inverse=True)
        entity = codes.astype(np.int64)
    background = Background(names, held)
    return OwnTables(names, rows, background, facts, _outcomes(own, data), entity, constant)


def _facts(own: OwnModel, data: pa.Table) -> RowFacts:
    keys = _texts(data, own.key) if own.key else [str(i) for i in range(data.num_rows)]
    if len(set(keys)) != len(keys):
        twice = next(k for k, count in Counter(keys).items() if count > 1)
        raise ExplanationError(
            f"key {twice!r} occurs twice in column {own.key!r}: name a column that tells rows "
            "apart, or none"
        )
    segments = {s: tuple(_texts(data, s)) for s in own.segments}
    return RowFacts(tuple(keys), None, _times(own, data), segments)


def _times(own: OwnModel, data: pa.Table) -> NDArray[np.int64] | None:
    import pyarrow as pa

    if not own.time:
        return None
    column = data.column(own.time).combine_chunks()
    try:
        made = column.cast(pa.timestamp("ms"), safe=False)
    except pa.ArrowInvalid as error:
        raise ExplanationError(
            f"column {own.time!r} holds no instants ({first_line(error)}); write ISO 8601 times"
        ) from error
    if made.null_count:
        raise ExplanationError(f"column {own.time!r} lacks {made.null_count} instants; fill them")
    times: NDArray[np.int64] = made.cast(pa.int64()).to_numpy()
    return times


def _outcomes(own: OwnModel, data: pa.Table) -> NDArray[np.int8]:
    if not own.label:
        return np.full(data.num_rows, UNKNOWN, dtype=np.int8)
    values = [UNKNOWN if v is None else v for v in data.column(own.label).to_pylist()]
    found = np.array([int(v) if v in (0, 1, -1) else 9 for v in values], dtype=np.int8)
    if (found == 9).any():
        raise ExplanationError(
            f"column {own.label!r} holds {values[int(np.argmax(found == 9))]!r}; outcomes are 1, 0 "
            "or missing"
        )
    return found


def _matrix(table: pa.Table, names: tuple[str, ...], path: Path) -> NDArray[np.float32]:
    import pyarrow as pa

    columns = []
    for name in names:
        column = table.column(name).combine_chunks()
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
                or pa.types.is_boolean(column.type) or pa.types.is_null(column.type)):  # fmt: skip
            raise ExplanationError(
                f"{path.name}: column {name!r} holds {column.type}, the model reads numbers; "
                "encode it as in training, or leave it out of the background"
            )
        columns.append(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    if not columns:
        raise ExplanationError(f"{path.name} has no feature column; give the model's own columns")
    return np.ascontiguousarray(np.stack(columns, axis=1), dtype=np.float32)


def _texts(table: pa.Table, column: str) -> list[str]:
    return ["" if v is None else str(v) for v in table.column(column).to_pylist()]


def read_players(path: Path | None, names: tuple[str, ...]) -> Players:
    """Read a TOML file of groups; none: every feature stands alone."""
    if path is None:
        return Players.single(names)
    require_file(path)
    try:
        groups = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ExplanationError(f"{path} is no TOML: {error}; mend it there") from error
    for group, members in groups.items():
        if not isinstance(members, list) or not all(isinstance(m, str) for m in members):
            raise ExplanationError(f'{path}: write {group} = ["feature", "feature"]')
    return Players.grouped(names, groups)
