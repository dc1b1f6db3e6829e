"""The demo's encrypted step on a small bank: the same decisions, by who saw nothing."""

from __future__ import annotations

import json
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq

from flows.private_demo import run_private
from infra.settings import get_settings
from tasks.fraud.report.added import with_added
from tests.integrity.stream_banks import cards_bank

PAGE = "<nav><!-- private link --></nav><main><!-- private --></main>"


def test_decisions_are_the_same(tmp_path):
    made = cards_bank(tmp_path)
    pq.write_table(pa.Table.from_pylist(made.rows), tmp_path / "bank.parquet")
    told = []
    found = run_private(
        get_settings(),
        tmp_path / "bank.parquet",
        made.bundle,
        tmp_path / "private",
        rows=300,
        tell=told.append,
    )
    assert (found.rows, found.same) == (300, 300)
    assert 0 < found.difference <= found.proved < 1e-3
    assert len(told) == 3
    assert json.loads((tmp_path / "private" / "private.json").read_text())["rows"] == 300
    page = with_added(PAGE, "private", "Scored unseen", f=asdict(found), link="private.json")
    assert 'href="#private"' in page
    assert "300 of 300" in page
