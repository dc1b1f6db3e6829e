"""Slices of a published run: every readable row, before and after, and files that say it."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from connectors.cleaning.decisions import undo_changes
from connectors.cleaning.run import clean_file, load_run
from connectors.cleaning.slices import DATA, PAGE, rows_of, slices_of_run, write_slices
from tasks.cleaning.clean import CleanConfig
from tasks.cleaning.contract.model import ColumnContract, Contract
from tasks.cleaning.contract.toml import from_toml
from tasks.cleaning.doubts import ReviewConfig
from tasks.cleaning.slices.figures import judged_labels
from tasks.cleaning.slices.groups import SliceError, slices_of
from tasks.cleaning.slices.search import worst_slices

CONTRACT = from_toml(
    """
name = "goods"
[columns.id]
[columns.shop]
domain = ["York", "Leeds"]
[columns.weight]
kind = "decimal"
unit_spellings = ["kg"]
maximum = 100
[columns.sold]
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run over 600 rows: Leeds writes units, and its heavy goods break the contract."""
    place = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    lines = ["id,shop,weight,sold", "0,York,1,yes,too many"]
    for i in range(600):
        shop = "Leeds" if i % 3 == 0 else "york"
        heavy = shop == "Leeds" and rng.random() < 0.3
        weight = f"{200 if heavy else rng.uniform(1, 90):.1f}{' kg' if shop == 'Leeds' else ''}"
        weight = "" if rng.random() < 0.1 else weight
        lines.append(f"n{i},{shop},{weight},{'no' if heavy else rng.choice(['yes', 'no'])}")
    (place / "goods.csv").write_text("\n".join(lines) + "\n")
    clean_file(place / "goods.csv", place / "goods.clean", CONTRACT)
    return place / "goods.clean"


def verdict(tables, heading, figure, name):
    frame = tables[heading].frame
    chosen = frame.filter((pl.col("figure") == figure) & (pl.col("slice") == name))
    return chosen["verdict"].item()


def test_every_readable_row_is_there_before_and_after(folder):
    rows = rows_of(load_run(folder))
    assert rows.came.height == rows.left.height == 600
    assert rows.numbers.tolist() == list(range(1, 601))
    assert rows.quarantined.sum() == load_run(folder).quarantine.num_rows - 1
    assert set(rows.came["shop"]) == {"york", "Leeds"}
    # Rows in quarantine are grouped by what they were repaired to, as clean ones are.
    assert set(rows.left["shop"]) == {"York", "Leeds"}
    assert not rows.left["weight"].drop_nulls().str.contains("kg").any()
    assert rows.left["weight"].filter(pl.Series(rows.quarantined)).cast(float).min() > 100


def test_cleaning_that_hits_one_group_harder_is_seen(folder):
    tables = slices_of_run(folder, ["shop"], target="sold")
    assert verdict(tables, "What cleaning did", "quarantined", "shop = Leeds") == "worse"
    assert verdict(tables, "What cleaning did", "cells changed", "shop = York") != "undecided"
    assert "missing weight" in set(tables["What is missing"].frame["figure"])
    told = set(tables["Target sold"].frame["figure"])
    assert {words.split(", ")[1] for words in told} == {"as it came", "clean rows"}
    assert "label wrong" in set(tables["Labels likely wrong"].frame["figure"])


def test_the_target_makes_no_groups_of_its_own(folder, tmp_path):
    # Some that are sold are labelled as not: wrong labels all read "no", among large ones.
    rng = np.random.default_rng(0)
    size = rng.uniform(0, 99, 1_500)
    sold = np.where((size > 50) & (rng.random(1_500) > 0.25), "yes", "no")
    town = rng.choice(["A", "B", "C"], 1_500)
    lines = [
        "town,size,sold",
        *(f"{a},{b:.2f},{c}" for a, b, c in zip(town, size, sold, strict=True)),
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    contract = from_toml("[columns.town]\n[columns.size]\n[columns.sold]")
    clean_file(tmp_path / "t.csv", tmp_path / "t.clean", contract)
    tables = slices_of_run(tmp_path / "t.clean", target="sold")
    slices = set(tables["Worst slices: label wrong"].frame["slice"])
    assert not any("sold" in name for name in slices)
    frame = rows_of(load_run(tmp_path / "t.clean")).left
    cut = worst_slices(judged_labels(frame, "sold"), slices_of(frame, pairs=True), name="wrong")
    assert any("sold" in name for name in cut.frame["slice"])
    with pytest.raises(SliceError, match="target 'sold' is among the columns to cut by"):
        slices_of_run(folder, ["shop", "sold"], target="sold")


def test_worst_slices_are_looked_for_where_no_column_is_named(folder):
    tables = slices_of_run(folder)
    assert "shop = Leeds" in set(tables["Worst slices: quarantined"].frame["slice"])
    with pytest.raises(SliceError, match="no column 'nowhere'"):
        slices_of_run(folder, ["nowhere"])
    with pytest.raises(SliceError, match="no column 'nowhere'"):
        slices_of_run(folder, ["shop"], target="nowhere")


def test_files_are_written_whole(folder, tmp_path):
    tables = slices_of_run(folder, ["shop"], pairs=True)
    write_slices(tables, "goods", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [PAGE, DATA]
    data = json.loads((tmp_path / "out" / DATA).read_text())
    assert data["source"] == "goods"
    assert set(data["tables"]) == set(tables)
    assert "shop = Leeds" in (tmp_path / "out" / PAGE).read_text()


def test_what_was_undone_was_not_changed(folder):
    run = load_run(folder)
    clean_rows = pl.col("row").is_in(run.rows.implode()) & (pl.col("column") == "weight")
    row = run.changes.filter(clean_rows)["row"][0]
    before = rows_of(run)
    place = before.numbers.tolist().index(row)
    undo_changes(folder, (pl.col("column") == "weight") & (pl.col("row") == row))
    after = rows_of(load_run(folder)).left["weight"][place]
    assert after == before.came["weight"][place] != before.left["weight"][place]


def test_wide_tables_are_looked_at_by_single_columns(tmp_path):
    rng = np.random.default_rng(1)
    frame = pl.DataFrame({f"c{i}": rng.choice(["a", "b"], 200) for i in range(40)})
    # What was changed lies in one group of the first column.
    spaced = pl.when(pl.col("c0") == "a").then(pl.col("c1") + " ").otherwise("c1").alias("c1")
    frame.with_columns(spaced).write_csv(tmp_path / "wide.csv")
    quiet = CleanConfig(review=ReviewConfig(detectors=False))
    contract = Contract(name="w", columns={name: ColumnContract() for name in frame.columns})
    clean_file(tmp_path / "wide.csv", tmp_path / "run", contract, config=quiet)
    tables = slices_of_run(tmp_path / "run")
    heading = "Worst slices of single columns (40 make too many pairs): cells changed"
    assert tables[heading].frame["slice"].to_list() == ["c0 = a"]
    with pytest.raises(SliceError, match="name fewer columns"):
        slices_of_run(tmp_path / "run", frame.columns, pairs=True)
