"""Which rows of a run are worth labelling next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from connectors.cleaning.labelling import labelled_rows, number_column
from connectors.cleaning.outputs import OutputError
from connectors.cleaning.run import load_run
from connectors.cleaning.touched import as_it_came
from tasks.cleaning.repair.engine import RepairConfig, repair


def rows_to_label(folder: Path, number: int, labels: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return the rows whose right values would tell most about all others.

    Args:
        folder: Folder of the run.
        number: How many.
        labels: Rows that were told already; they are not asked for again.

    Returns:
        Number of each row in the source and its texts as they came, the most telling first.

    Raises:
        OutputError: When there is no run.
        LabelFileError: When the labels are of another table.
    """
    from tasks.cleaning.active.learner import cells_of, next_rows, probabilities

    run = load_run(folder)
    frame, rows = as_it_came(run), run.rows.to_numpy()
    if frame.is_empty():
        raise OutputError(f"{folder}: no row is clean, so none can be labelled; mend the contract")
    labels = run.labels if labels is None else labels
    key = number_column(frame.columns)
    if labels is not None:  # told rows that were set aside since are asked for no more, either
        known = pl.col(key).cast(pl.Int64, strict=False).is_in(run.rows.implode())
        labels = labels.filter(known)
    told = None if labels is None else labelled_rows(labels, frame.columns, rows)
    done = repair(frame, run.contract, RepairConfig(alpha=run.facts["alpha"]))
    cells = cells_of(frame, done, run.contract)
    asked = np.empty(0, np.int64) if told is None else told.rows
    new = next_rows(cells, probabilities(cells, told), asked, number)
    numbers = pl.Series(key, rows[new].astype(str), pl.String)
    return pl.DataFrame([numbers, *frame[new.tolist()].get_columns()])
