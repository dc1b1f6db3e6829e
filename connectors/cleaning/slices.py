"""The slice report of a published run: its rows before and after, by group, and its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from connectors.cleaning.run import Run, load_run
from connectors.cleaning.touched import rows_as_they_came
from connectors.files import atomic_path
from tasks.cleaning.repair.changes import apply
from tasks.cleaning.slices.figures import (
    RunRows,
    cleaning_figures,
    is_amount,
    judged_labels,
    missing_figures,
    target_figures,
)
from tasks.cleaning.slices.groups import SliceError, Slices, slices_of
from tasks.cleaning.slices.render import as_json, page
from tasks.cleaning.slices.search import worst_slices
from tasks.cleaning.slices.table import Figure, SliceConfig, SliceTable, slice_table

PAGE, DATA = "slices.html", "slices.json"


def rows_of(run: Run) -> RunRows:
    """Return all rows that a run could read, before and after its changes."""
    came, numbers, _ = rows_as_they_came(run)
    at = pl.DataFrame({"row": numbers, "_at": np.arange(len(numbers))})
    last = run.changes.sort("order").group_by("row", "column", maintain_order=True).last()
    here = last.join(at, on="row", how="inner").with_columns(pl.col("_at").alias("row"))
    aside = ~np.isin(numbers, run.rows.to_numpy())
    return RunRows(numbers, came, apply(came, here), aside)


def slices_of_run(
    folder: Path,
    by: Sequence[str] = (),
    *,
    target: str = "",
    pairs: bool = False,
    config: SliceConfig | None = None,
) -> dict[str, SliceTable]:
    """Measure by group what a run found and did.

    Args:
        folder: Folder of the run.
        by: Columns whose values, after cleaning, make the groups; if none are named, the worst
            slices of all columns that make groups, and of their pairs, are looked for. Where that
            makes too many pairs, single columns are looked at, and the headings say so.
        target: Column of labels or outcomes: its values by group before and after cleaning, and,
            for labels, how many are likely wrong.
        pairs: Whether groups of two columns are measured, too; looked-for slices always have them.
        config: How sure to be.

    Returns:
        Tables by heading.

    Raises:
        OutputError: When there is no run, or a file of it was altered.
        SliceError: For columns that make no groups, targets that cannot be measured, and a target
            that is cut by.
    """
    if target and target in by:
        raise SliceError(
            f"the target {target!r} is among the columns to cut by, so every group would have one "
            "value of it; take it out of one of the two"
        )
    rows = rows_of(load_run(folder))
    figures = cleaning_figures(rows)
    if not by:
        slices = slices_of(rows.left, pairs=True)
        worst = {
            f"{_heading(slices)}: {name}": worst_slices(figure, slices, config, name=name)
            for name, figure in figures.items()
            if figure.varies
        }
        if target and (wrong := judged_labels(rows.left, target)).varies:
            # Classes differ in how often they are mistaken: that is of the model, and no group.
            slices = slices_of(rows.left.drop(target), pairs=True)
            name = "label wrong"
            worst[f"{_heading(slices)}: {name}"] = worst_slices(wrong, slices, config, name=name)
        return worst
    slices = slices_of(rows.left, by, pairs=pairs)
    # A column's own groups say nothing of whether it is missing.
    missing = missing_figures(rows.came.drop(by))
    made: dict[str, dict[str, Figure]] = {"What cleaning did": figures}
    made |= {"What is missing": missing} if missing else {}
    if target:
        made[f"Target {target}"] = target_figures(rows, target)
        if not is_amount(rows.left[target]):
            made["Labels likely wrong"] = {
                "label wrong": judged_labels(rows.left, target, without=set(by))
            }
    # What is the same in every row has nothing to compare.
    varied = {
        head: {k: one for k, one in each.items() if one.varies} for head, each in made.items()
    }
    return {head: slice_table(each, slices, config) for head, each in varied.items() if each}


def _heading(slices: Slices) -> str:
    """Say over what slices the worst ones were looked for."""
    if len(slices.groupings) > 1 and not slices.pairs:
        return f"Worst slices of single columns ({len(slices.groupings)} make too many pairs)"
    return "Worst slices"


def write_slices(tables: Mapping[str, SliceTable], source: str, out: Path) -> None:
    """Write ``slices.html`` and ``slices.json`` into a folder, each in one step."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in ((DATA, as_json(tables, source)), (PAGE, page(tables, source))):
        with atomic_path(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
