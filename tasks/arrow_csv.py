"""CSV by pyarrow, without its own handling of Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv


def read_csv(source: Path | pa.NativeFile, **options: Any) -> pa.Table:
    """Return a table, as `pyarrow.csv.read_csv` does with the same options.

    While it reads, pyarrow (16.1) takes SIGINT itself to cancel the read. One that comes when the
    read is all but over cancels nothing, and Python is never told: the program runs on. So that is
    switched off for the process; Ctrl-C is then raised as soon as the read has ended.

    Raises:
        pyarrow.ArrowException: No readable CSV.
    """
    pa.enable_signal_handlers(False)  # noqa: FBT003 - it takes no name
    return csv.read_csv(source, **options)
