"""From a file to checked transactions; the bad rows are on the disk before the good ones go on.

Beside each part of the quarantine lies the contract that its rows broke, to read, edit and compare
(``penstock clean diff``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from connectors.files import atomic_path, read_fields, read_table, write_quarantine
from tasks.cleaning.contract.model import Contract
from tasks.cleaning.contract.rules import row_rules
from tasks.cleaning.contract.toml import to_toml
from tasks.cleaning.quarantine import row_payloads
from tasks.fraud.contract import contract_of
from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.ingest.checks import CheckedData, QuarantineLimitError, check

_log = logging.getLogger(__name__)


def load_transactions(
    path: Path,
    config: DatasetConfig,
    quarantine_folder: Path | None = None,
    *,
    own: Contract | None = None,
    labels_required: bool = True,
) -> CheckedData:
    """Read and check a transaction file.

    Args:
        path: Parquet or CSV file.
        config: What its columns mean.
        quarantine_folder: Where bad rows go, also when there are too many of them; ``None``
            keeps them in memory only.
        own: Lines that a person adds to the config's contract.
        labels_required: Whether a file without the label column is refused; otherwise nothing is
            known of its rows, as of new transactions that are to be scored.

    Raises:
        ContractError: When ``own`` contradicts the config.
        InputFileError: When the file cannot be read.
        DataError: When its content cannot be used.
        QuarantineLimitError: When too many rows are bad.
    """
    contract_of(config, own)  # a contradiction is told before a large file is read
    table = read_table(path, text_columns=[*config.id_columns, *_own_texts(config, own)])
    if not labels_required:
        absent = {c for c in (config.label, config.label_time) if c not in table.column_names}
        config = replace(
            config,
            label="" if config.label in absent else config.label,
            label_time="" if config.label_time in absent else config.label_time,
        )
        own = _without(own, absent)
    contract = contract_of(config, own)
    try:
        checked = check(table, config, str(path), own=own)
    except QuarantineLimitError as error:
        if quarantine_folder is None or error.quarantine is None:
            raise
        kept = as_in_the_file(error.quarantine, path, table.column_names)
        part = _write_refused(kept, quarantine_folder, contract)
        message = f"{error}; the bad rows lie in {part}"
        raise QuarantineLimitError(message, error.report, kept) from error
    kept = as_in_the_file(checked.quarantine, path, table.column_names)
    if quarantine_folder is not None:
        _write_refused(kept, quarantine_folder, contract)
    report = checked.report
    _log.debug(
        "%s: %d rows in, %d used, %d quarantined",
        path,
        report.rows_in,
        report.rows_used,
        report.rows_quarantined,
    )
    return replace(checked, quarantine=kept)


def write_contract(contract: Contract, path: Path) -> Path:
    """Write a contract as TOML, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(to_toml(contract), encoding="utf-8")
    return path


def _own_texts(config: DatasetConfig, own: Contract | None) -> list[str]:
    """Return columns that a person says are text, so that ``007`` stays ``007``."""
    columns = {} if own is None else own.columns
    return [n for n, c in columns.items() if c.kind == "text" and n not in config.columns]


def _without(own: Contract | None, absent: set[str]) -> Contract | None:
    """Return a person's lines but for those on columns that need not be there."""
    if own is None or not absent & set(own.columns):
        return own
    columns = {name: column for name, column in own.columns.items() if name not in absent}
    if not columns:
        return None
    rules = [rule for rule in row_rules(own) if rule.name.startswith("denial:")]
    named = [rule.broken.meta.root_names() for rule in rules]
    return replace(
        own,
        columns=columns,
        denials=tuple(
            one for one, names in zip(own.denials, named, strict=True) if absent.isdisjoint(names)
        ),
        keys=tuple(key for key in own.keys if absent.isdisjoint(key)),
    )


def _write_refused(quarantine: pa.Table, folder: Path, contract: Contract) -> Path | None:
    """Write a part of the quarantine and the contract beside it."""
    part = write_quarantine(quarantine, folder)
    if part is not None:
        write_contract(contract, part.with_suffix(".toml"))
    return part


def as_in_the_file(quarantine: pa.Table, path: Path, columns: Sequence[str]) -> pa.Table:
    """Return quarantine records whose payload and observed value are the text of a CSV file.

    Reading gives columns types (``-1.50`` becomes -1.5, times are rewritten); what was refused
    must be kept as it came. Records from typed files stay as they are.
    """
    if quarantine.num_rows == 0:
        return quarantine
    fields = read_fields(path, quarantine.column("row").to_pylist(), columns)
    if fields is None:
        return quarantine
    at_fault = quarantine.column("column").to_pylist()
    observed = [
        fields.column(name)[row].as_py() or None if name else None
        for row, name in enumerate(at_fault)
    ]
    for name, values in (("payload", row_payloads(fields)), ("observed", observed)):
        place = quarantine.schema.get_field_index(name)
        kind = quarantine.schema.field(place)
        quarantine = quarantine.set_column(place, kind, pa.array(values, kind.type))
    return quarantine
