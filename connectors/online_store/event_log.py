"""The log of a stream, read for audits: transactions and labels from JSON lines or Arrow.

A log is a file or a folder of files (``.jsonl``, ``.json``, ``.arrow``, ``.parquet``, ``.csv``);
names that begin with a dot or an underscore are unfinished and skipped. Rows pass the same checks
as training data; rows that break a rule were dead letters of the stream, too, and are counted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from connectors.files import read_table
from connectors.online_store.errors import StoreError
from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.ingest.checks import check
from tasks.fraud.ingest.parsing import DataError
from tasks.fraud.transactions import Transactions

logger = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".json", ".arrow", ".parquet", ".csv")


class EventLog(NamedTuple):
    """What a log says.

    Attributes:
        rows: Its good rows, in the order (time, event_id).
        refused: Lines and rows that were not used.
    """

    rows: Transactions
    refused: int


def read_transactions(path: Path, config: DatasetConfig) -> EventLog:
    """Return the transactions of a log.

    Raises:
        StoreError: When the log cannot be read or holds no good row.
    """
    return _read(path, config)


def read_labels(path: Path, config: DatasetConfig) -> EventLog:
    """Return the labels of a log as rows whose amount means nothing.

    Raises:
        StoreError: When the log cannot be read or holds no good row.
    """
    known = replace(
        config,
        label=config.label or "label",
        label_time=config.label_time or "label_time",
        numeric=(),
        categorical=(),
    )
    return _read(path, known, amountless=True)


def _read(path: Path, config: DatasetConfig, *, amountless: bool = False) -> EventLog:
    columns = config.columns
    tables, broken = [], 0
    for file in _files(path):
        table, bad = _read_file(file, columns, config)
        tables.append(table)
        broken += bad
    table = pa.concat_tables(tables, promote_options="permissive")
    absent = {c for c in (config.label, config.label_time) if c not in table.column_names}
    config = replace(
        config,
        label="" if config.label in absent else config.label,
        label_time="" if config.label_time in absent else config.label_time,
        max_quarantine_share=1.0,
    )
    if amountless and config.amount not in table.column_names:
        table = table.append_column(config.amount, pa.array([0] * len(table), pa.int64()))
    try:
        checked = check(table, config, str(path))
    except DataError as error:
        raise StoreError(f"log {error}", "Name the log of this dataset") from error
    refused = broken + len(checked.quarantine)
    if refused:
        logger.info("%s: %d of %d rows refused", path, refused, broken + len(table))
    return EventLog(checked.transactions, refused)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix in SUFFIXES and not any(p[0] in "._" for p in file.relative_to(path).parts)
    )
    if not found:
        raise StoreError(
            f"{path} holds no log", f"Name a file or a folder of {', '.join(SUFFIXES)}"
        )
    return found


def _read_file(file: Path, columns: Sequence[str], config: DatasetConfig) -> tuple[pa.Table, int]:
    """Return the named columns of a file as far as it has them, and the lines that are broken."""
    try:
        if file.suffix in {".jsonl", ".json"}:
            rows, broken = _lines(file)
            return _table(rows, columns, config.id_columns), broken
        if file.suffix == ".arrow":
            with pa.OSFile(str(file)) as source:
                table = pa.ipc.open_file(source).read_all()
        else:
            table = read_table(file, text_columns=config.id_columns)
    except (OSError, ValueError) as error:  # files of Arrow and of ours raise kinds of these
        raise StoreError(f"log {file} cannot be read ({error})", "Repair or leave it out") from (
            error
        )
    return table.select([c for c in columns if c in table.column_names]), 0


def _lines(file: Path) -> tuple[list[dict[str, Any]], int]:
    rows, broken = [], 0
    with file.open("rb") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                rows.append(row)
            else:
                broken += 1
    return rows, broken


def _table(rows: Sequence[dict[str, Any]], columns: Sequence[str], ids: Sequence[str]) -> pa.Table:
    """Return a column per name that occurs; values of mixed types become text."""
    made = {}
    for name in columns:
        if not any(name in row for row in rows):
            continue
        values = [row.get(name) for row in rows]
        if name in ids:
            made[name] = pa.array([None if v is None else str(v) for v in values], pa.string())
            continue
        try:
            made[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
            made[name] = pa.array(texts, pa.string())
    return pa.table(made)
