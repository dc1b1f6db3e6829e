"""The demo's live step on a small bank: API and stream say the same of the same payments."""

from __future__ import annotations

import json
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.live_demo import run_live
from flows.live_traffic import divided
from infra.errors import ServiceError
from infra.settings import get_settings
from tasks.fraud.report.added import with_added
from tests.integrity.stream_banks import cards_bank

PAGE = "<nav><!-- live link --></nav><main><!-- live --></main>"


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    made = cards_bank(folder)
    pq.write_table(pa.Table.from_pylist(made.rows), folder / "bank.parquet")
    return folder / "bank.parquet", made


def test_the_past_ends_where_now_begins(bank):
    data, made = bank
    parts = divided(data, made.config, 200)
    assert [row["tx_id"] for row in parts.live] == [row["tx_id"] for row in made.rows[-200:]]
    assert "fraud" not in parts.live[0]
    assert parts.past.transactions.num_rows == len(parts.history)
    assert parts.past.times[-1] <= made.tx.time[-200]
    assert parts.past.known.max() <= made.tx.time[-1]
    with pytest.raises(ServiceError, match="more than"):
        divided(data, made.config, len(made.rows))


@pytest.mark.long
def test_api_and_stream_agree(bank, tmp_path):
    data, made = bank
    told = []
    found = run_live(
        get_settings(), data, made.bundle, tmp_path / "live", payments=150, tell=told.append
    )
    assert (found.payments, found.streamed) == (150, 150)
    assert sum(found.decisions.values()) == 150
    assert found.difference <= 1e-9
    assert found.examples[0]["score"] >= found.examples[-1]["score"]
    assert len(told) == 3
    kept = json.loads((tmp_path / "live" / "live.json").read_text())
    assert kept["payments"] == 150
    shown = {"f": asdict(found), "link": "live/live.json", "amount": made.config.amount}
    page = with_added(PAGE, "live", "Live", **shown)
    assert 'href="#live"' in page
    assert 'href="live/live.json"' in page
    assert with_added(page, "live", "Live", **shown) == page


def test_a_report_without_a_place_for_it_is_told():
    with pytest.raises(ValueError, match="no place"):
        with_added("<html></html>", "live", "Live")
