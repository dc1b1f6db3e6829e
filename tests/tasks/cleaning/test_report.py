"""The report's size is bounded, whatever the run did; what is left out is counted."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from tasks.cleaning.clean import Cleaned
from tasks.cleaning.contract.model import ColumnContract, Contract
from tasks.cleaning.findings import no_findings
from tasks.cleaning.quarantine import Rule, quarantine_rows
from tasks.cleaning.repair.bound import HarmBound
from tasks.cleaning.repair.changes import CHANGES
from tasks.cleaning.report.render import MAX_CHANGES, build_report, page_of

ROW = pa.table({"c0": ["y"]})
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def page(columns, each):
    """The page of a run that changed ``each`` cells in every column."""
    names = [f"c{i}" for i in range(columns)]
    cells = [(row, name) for name in names for row in range(each)]
    changes = pl.DataFrame(
        {
            "order": range(len(cells)),
            "row": [row for row, _ in cells],
            "column": [name for _, name in cells],
        }
    ).with_columns(
        pl.lit("x" * 500).alias("before"),
        pl.lit("y" * 500).alias("after"),
        pl.lit("unit").alias("rule"),
        pl.lit("p" * 500).alias("premise"),
        pl.lit(1.0).alias("confidence"),
        pl.lit("t/1").alias("detector_version"),
        pl.lit(1).alias("pass"),
    )
    done = Cleaned(
        frame=pl.DataFrame({name: ["y"] * each for name in names}),
        rows=pl.Series("row", range(1, each), pl.Int64),
        quarantine=quarantine_rows(ROW, np.array([0]), Rule("r", "e"), source="t.csv"),
        changes=changes.select(pl.col(name).cast(kind) for name, kind in CHANGES.items()),
        review=no_findings(),
        counts={"rows_in": each, "clean": each - 1, "repaired": each, "quarantined": 1},
        bounds={f"typo:{name}": HarmBound(0, each) for name in names},
        promised_harm=0.0,
        fixed=True,
    )
    contract = Contract(name="t", columns={name: ColumnContract() for name in names})
    return page_of(
        done, contract, source="t.csv", folder="t.clean", inferred=False, alpha=0.01, time=NOW
    )


@pytest.mark.parametrize(("columns", "each"), [(4, 3_000), (700, 9), (MAX_CHANGES + 5, 2)])
def test_the_page_is_bounded_and_says_what_it_leaves_out(columns, each):
    made = page(columns, each)
    shown = sum(len(one.rows) for one in made.changes)
    assert 0 < shown <= MAX_CHANGES
    assert len(made.changes) + made.columns_left_out == columns
    html = build_report(made)
    assert len(html) < 4_000_000
    assert "penstock clean open t.clean" in html
    assert ("more columns in" in html) == bool(made.columns_left_out)
    assert made.changed_aside == columns
    assert f"{columns:,} in quarantined rows" in html
