"""A file is sampled in bounded memory and profiled, whatever it is; page and record come whole."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from connectors.cleaning.profile import PAGE, RECORD, ProfileOptions, profile_file
from connectors.cleaning.sample import SampleLimits, sample_file
from tasks.cleaning.ingest.errors import TableReadError
from tasks.cleaning.ingest.options import ReadLimits, ReadOptions
from tests.benchmarks._hostile_tables import REFUSED, by_hand

SMALL = ReadOptions(limits=ReadLimits(block_bytes=4_096, cell_bytes=10_000, row_bytes=100_000))


def numbered(path, rows=5_000):
    pl.DataFrame({"id": range(rows), "x": [i % 7 for i in range(rows)]}).write_csv(path)
    return path


def test_a_small_file_is_taken_whole(tmp_path):
    found = sample_file(numbered(tmp_path / "a.csv", 50))
    assert found.frame["id"].to_list() == [str(i) for i in range(50)]
    assert (found.rows.tolist(), found.note) == (list(range(50)), "")


def test_a_sample_is_even_seeded_and_in_order(tmp_path):
    path = numbered(tmp_path / "a.csv")
    drawn = [sample_file(path, SMALL, SampleLimits(rows=400, seed=s)) for s in (1, 1, 2)]
    assert drawn[0].rows.tolist() == drawn[1].rows.tolist() != drawn[2].rows.tolist()
    assert drawn[0].frame["id"].cast(pl.Int64).to_list() == drawn[0].rows.tolist()
    assert (np.diff(drawn[0].rows) > 0).all()
    assert drawn[0].note == "400 of 5,000 readable rows, drawn by chance (seed 1)"
    means = [
        sample_file(path, SMALL, SampleLimits(rows=100, seed=s)).rows.mean() for s in range(30)
    ]
    assert abs(np.mean(means) - 2_499.5) < 4 * 1_443 / np.sqrt(3_000)


def test_a_sample_keeps_within_its_bytes_and_cells(tmp_path):
    pl.DataFrame({"id": range(300), "long": ["é" * 4_000] * 300}).write_csv(tmp_path / "a.csv")
    found = sample_file(tmp_path / "a.csv", SMALL, SampleLimits(bytes=50_000, characters=500))
    assert 1 <= found.frame.height < 60
    assert found.frame["long"].str.len_chars().max() == 500
    assert found.cut == found.frame.height
    assert "cells cut to 500 characters" in found.note
    assert sample_file(tmp_path / "a.csv", SMALL, SampleLimits(cells=20)).frame.height == 10
    with pytest.raises(ValueError, match="rows must be at least 1"):
        SampleLimits(rows=0)


def test_page_and_record_are_written_and_rows_count_in_the_file(tmp_path):
    values = np.random.default_rng(1).normal(50, 4, 3_000).round(1)
    values[2_900] = 88_888.0
    pl.DataFrame({"x": values}).write_csv(tmp_path / "a.csv")
    how = ProfileOptions(limits=SampleLimits(rows=2_999, seed=3))
    done = profile_file(tmp_path / "a.csv", tmp_path / "out", how=how)
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert [one["row"] for one in record["profile"]["outliers"]] == [2_900]
    assert record["sampled"].startswith("2,999 of 3,000 readable rows")
    assert record["sampled"] in (tmp_path / "out" / PAGE).read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [PAGE, RECORD]
    assert done.drift is None


def test_drift_and_segments_stand_on_the_page(tmp_path):
    rng = np.random.default_rng(2)
    for name, shift in (("old", 0), ("new", 2)):
        shop = rng.choice(["north", "south"], 500)
        amount = rng.normal(9, 2, 500) + shift * (shop == "south")
        pl.DataFrame({"shop": shop, "amount": amount.round(3)}).write_csv(tmp_path / f"{name}.csv")
    done = profile_file(
        tmp_path / "new.csv",
        tmp_path / "out",
        reference=tmp_path / "old.csv",
        how=ProfileOptions(segment="shop"),
    )
    html = done.page.read_text()
    assert (done.drift.verdict, done.drift.columns["amount"]) == ("drifted", "drifted")
    assert 'id="segments"' in html
    assert "against old.csv, 500 rows; 1 of 2 columns: amount" in html
    segments = json.loads(done.record.read_text())["segments"]
    assert {one["segment"] for one in segments if one["verdict"] == "drifted"} == {"south"}
    with pytest.raises(ValueError, match="name one"):
        profile_file(tmp_path / "new.csv", tmp_path / "o", how=ProfileOptions(segment="shop"))


HEAVY = {"large-cell.csv", "large-quoted.csv", "one-line.csv", "bomb.csv.gz", "bomb.csv.zst"}
HOSTILE = [one for one in by_hand() if one.name not in HEAVY]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda one: one.name)
def test_hostile_files_are_profiled_or_refused(tmp_path, hostile):
    path = tmp_path / hostile.name
    path.write_bytes(hostile.content)
    if hostile.rows == REFUSED:
        with pytest.raises(TableReadError):
            profile_file(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    done = profile_file(path, tmp_path / "out")
    assert done.sample.rows_in == sum(done.sample.quarantined.values()) + done.sample.frame.height
    assert "<script" not in done.page.read_text()


def test_a_failed_run_leaves_what_was_there(tmp_path, monkeypatch):
    profile_file(numbered(tmp_path / "a.csv", 50), tmp_path / "out")
    before = (tmp_path / "out" / PAGE).read_bytes()
    (tmp_path / "a.csv").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8)
    with pytest.raises(TableReadError):
        profile_file(tmp_path / "a.csv", tmp_path / "out")
    assert (tmp_path / "out" / PAGE).read_bytes() == before
