"""Tables of scores can be joined back to the user's data."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from connectors.files import read_table, write_table
from connectors.steps import score_table
from connectors.transactions import load_transactions
from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.workspace import load_transactions_file, save_transactions

CONFIG = DatasetConfig("shop", "when", "price", (EntityColumn("buyer"),), event_id="id")
BUNDLE = SimpleNamespace(
    thresholds={"alerts_per_day": {"100": 0.5}}, digest="0" * 64, active="tabular"
)


def scored(path: Path, table: pa.Table) -> pa.Table:
    """Check a table, keep the transactions on the disk as a run does, score the last two rows."""
    write_table(table, path / "shop.parquet")
    save_transactions(path, load_transactions(path / "shop.parquet", CONFIG).transactions)
    return score_table(BUNDLE, load_transactions_file(path), np.array([1, 2]), np.array([0.2, 0.9]))


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (["tx-b", "tx-c", "9e2-a"], pa.string()),
        (["3", "1", "2"], pa.int64()),
        ([3, 1, 2], pa.int64()),
    ],
)
def test_event_ids_are_those_of_the_data(tmp_path: Path, ids: list, kind: pa.DataType) -> None:
    when = ["2024-01-03", "2024-01-01", "2024-01-02"]
    data = pa.table({"id": ids, "when": when, "price": [1.0, 2.0, 3.0], "buyer": ["a", "b", "a"]})
    table = scored(tmp_path, data)
    assert table.schema.field("event_id").type == kind
    assert [str(i) for i in table["event_id"].to_pylist()] == [str(ids[2]), str(ids[0])]
    assert table["alert"].to_pylist() == [False, True]
    if data.schema.field("id").type == kind:
        assert data.join(table, "id", "event_id", join_type="inner").num_rows == 2
    again = read_table(write_table(table, tmp_path / "scores.csv"), text_columns=["event_id"])
    assert again["event_id"].to_pylist() == [str(ids[2]), str(ids[0])]
