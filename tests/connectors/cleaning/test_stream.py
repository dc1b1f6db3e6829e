"""A file that streams through gives what it gives as a whole, in bounded memory or not at all."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import polars as pl
import pytest

from connectors.cleaning.outputs import published
from connectors.cleaning.pipeline import Behind, ahead
from connectors.cleaning.run import CHANGES, REPORT, REVIEW, RUN, clean_file
from connectors.cleaning.stream import clean_stream, reference_contract
from tasks.cleaning.clean import CleanConfig, QuarantineLimitError
from tasks.cleaning.contract.model import ColumnContract, Contract, ContractError
from tasks.cleaning.ingest.options import ReadLimits, ReadOptions
from tasks.cleaning.repair.engine import RepairConfig

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SMALL = ReadOptions(limits=ReadLimits(block_bytes=1 << 15), time=NOW)
CONTRACT = Contract(
    name="goods",
    columns={
        "id": ColumnContract(pattern="[0-9]+"),
        "weight": ColumnContract(kind="decimal", unit_spellings=("kg",), maximum=19_000),
        "colour": ColumnContract(domain=("red", "blue"), confidence={"domain": 0.9}),
    },
)
ROWS_ONLY = CleanConfig(repair=RepairConfig(across_rows=False))


@pytest.fixture
def goods(tmp_path):
    """Return a file of 20,000 rows, with broken ones, odd ones and some to be rewritten."""
    lines = ["id,weight,colour"]
    for i in range(20_000):
        weight = f"{i}.50 kg" if i % 3 else f"{i}"
        lines.append(f"{i},{weight},{('red', 'blue', 'RED', 'green')[i % 4]}")
        if i % 2_000 == 0:
            lines.append("one,cell,too,many")
    path = tmp_path / "goods.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_stream_publishes_what_the_whole_table_does(goods, tmp_path, kind):
    told = []
    seen = clean_stream(
        goods, tmp_path / "a", CONTRACT, kind=kind, options=SMALL, now=NOW,
        progress=lambda *numbers: told.append(numbers),
    )  # fmt: skip
    whole = clean_file(goods, tmp_path / "b", CONTRACT, config=ROWS_ONLY, kind=kind, now=NOW)
    assert dict(seen.counts) == dict(whole.counts)
    assert len(told) > 2
    assert told[-1] == (20_010, seen.counts["quarantined"])
    a, b = published(tmp_path / "a", check=True), published(tmp_path / "b", check=True)
    if kind == "csv":
        assert a.clean_path.read_bytes() == b.clean_path.read_bytes()
    else:
        assert pl.read_parquet(a.clean_path).equals(pl.read_parquet(b.clean_path))
    assert pl.read_parquet(a.quarantine_path).equals(pl.read_parquet(b.quarantine_path))
    order = ["row", "pass", "column"]
    changes, wanted = (pl.read_parquet(p.attached(CHANGES)).drop("order") for p in (a, b))
    assert changes.sort(order).equals(wanted.sort(order))
    assert pl.read_parquet(a.attached(REVIEW)).equals(pl.read_parquet(b.attached(REVIEW)))
    assert changes.height == seen.cells == sum(seen.changed.values())
    page = a.attached(REPORT).read_text()
    assert f"{seen.cells:,}" in page
    assert "weight: 13,3" in page  # all of the column's cells are counted, 500 shown
    assert json.loads(a.attached(RUN).read_text())["across_rows"] is False


def test_a_contract_is_inferred_from_the_first_rows(goods, tmp_path):
    contract = reference_contract(goods, SMALL)
    assert contract.columns["weight"].unit_spellings == ("kg",)
    assert not contract.columns["id"].unique
    seen = clean_stream(goods, tmp_path / "a", options=SMALL, now=NOW)
    assert seen.counts["clean"] == 20_000
    assert seen.cells >= 13_333


def test_nothing_is_published_when_it_ends_badly(goods, tmp_path):
    folder = tmp_path / "a"
    strict = Contract(name="g", columns=CONTRACT.columns, max_quarantine_share=0.01)
    with pytest.raises(QuarantineLimitError, match="maximum:weight"):
        clean_stream(goods, folder, strict, options=SMALL, now=NOW)
    with pytest.raises(ContractError, match="asks for 90,000"):
        clean_stream(
            goods, folder, Contract(name="g", columns=CONTRACT.columns, min_rows=90_000), now=NOW
        )
    with pytest.raises(ContractError, match="key:id"):
        clean_stream(goods, folder, Contract(name="g", columns=CONTRACT.columns, keys=(("id",),)))
    other = {"id": ColumnContract(), "none": ColumnContract()}
    with pytest.raises(ContractError, match="columns none are missing"):
        clean_stream(goods, folder, Contract(name="g", columns=other))
    assert published(folder) is None


def test_what_a_thread_raises_is_raised_in_its_place():
    def items():
        yield 1
        raise KeyError("second")

    reader = ahead(items())
    assert next(reader) == 1
    with pytest.raises(KeyError, match="second"):
        next(reader)

    def fail():
        raise OSError("disk")

    done = []

    def written(*works):
        with Behind() as behind:
            for work in works:
                behind(work)

    with pytest.raises(OSError, match="disk"):
        written(lambda: done.append(1), fail)
    with pytest.raises(OSError, match="disk"):
        written(fail, lambda: done.append(2))
    assert done == [1]
