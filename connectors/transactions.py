"""From a file to checked transactions; the bad rows are on the disk before the good ones go on."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from connectors.files import read_table, write_quarantine
from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.ingest.checks import CheckedData, QuarantineLimitError, check

_log = logging.getLogger(__name__)


def load_transactions(
    path: Path,
    config: DatasetConfig,
    quarantine_folder: Path | None = None,
    *,
    labels_required: bool = True,
) -> CheckedData:
    """Read and check a transaction file.

    Args:
        path: Parquet or CSV file.
        config: What its columns mean.
        quarantine_folder: Where bad rows go, also when there are too many of them; ``None``
            keeps them in memory only.
        labels_required: Whether a file without the label column is refused; otherwise nothing is
            known of its rows, as of new transactions that are to be scored.

    Raises:
        InputFileError: When the file cannot be read.
        DataError: When its content cannot be used.
        QuarantineLimitError: When too many rows are bad.
    """
    table = read_table(path, text_columns=config.id_columns)
    if not labels_required:
        absent = {c for c in (config.label, config.label_time) if c not in table.column_names}
        config = replace(
            config,
            label="" if config.label in absent else config.label,
            label_time="" if config.label_time in absent else config.label_time,
        )
    try:
        checked = check(table, config, str(path))
    except QuarantineLimitError as error:
        if quarantine_folder is None or error.quarantine is None:
            raise
        part = write_quarantine(error.quarantine, quarantine_folder)
        message = f"{error}; the bad rows lie in {part}"
        raise QuarantineLimitError(message, error.report, error.quarantine) from error
    if quarantine_folder is not None:
        write_quarantine(checked.quarantine, quarantine_folder)
    report = checked.report
    _log.debug(
        "%s: %d rows in, %d used, %d quarantined",
        path,
        report.rows_in,
        report.rows_used,
        report.rows_quarantined,
    )
    return checked
