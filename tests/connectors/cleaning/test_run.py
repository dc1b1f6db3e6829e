"""Cleaning runs over files: what is published, and what a person does with it."""

from __future__ import annotations

import json

import polars as pl
import pytest

from connectors.cleaning.decisions import Outcome, decide, requeue, undo_changes
from connectors.cleaning.outputs import OutputBusyError, OutputError, published
from connectors.cleaning.run import REPORT, clean_file, load_run
from tasks.cleaning.clean import CleanConfig
from tasks.cleaning.contract.toml import from_toml

GOODS = b"""id,weight,place
1,5 kg,a
2,6,b
3,x,c
4,7kg
5,8,
6,9 kg,d
6,9 kg,d
"""
CONTRACT = from_toml(
    """
[columns.id]
kind = "integer"
[columns.weight]
kind = "decimal"
unit_spellings = ["kg"]
[columns.place]
"""
)


LOOSE = from_toml(
    """
[columns.id]
kind = "integer"
[columns.weight]
kind = "decimal"
unit_spellings = ["kg"]
[columns.weight.confidence]
kind = 0.9
[columns.place]
"""
)
"""The same, but nobody vouches for the weights."""


@pytest.fixture
def goods(tmp_path):
    file = tmp_path / "goods.csv"
    file.write_bytes(GOODS)
    return file


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_run_publishes_rows_quarantine_changes_and_report(goods, tmp_path, kind):
    done = clean_file(goods, tmp_path / "run", CONTRACT, kind=kind)
    assert done.counts["rows_in"] == 7
    assert done.counts["clean"] == 4
    run = load_run(tmp_path / "run")
    assert run.frame.rows() == [
        ("1", "5", "a"),
        ("2", "6", "b"),
        ("5", "8", None),
        ("6", "9", "d"),
    ]
    assert run.rows.to_list() == [0, 1, 4, 5]
    aside = [(r["row"], r["rule"], r["payload"]) for r in run.quarantine.to_pylist()]
    assert aside == [
        (2, "kind:weight", b'{"id":"3","weight":"x","place":"c"}'),
        (3, "too-few-cells", b"4,7kg"),
        (6, "duplicate-of", b'{"id":"6","weight":"9 kg","place":"d"}'),
    ]
    changed = run.changes.select("row", "before", "after").rows()
    assert changed == [(0, "5 kg", "5"), (5, "9 kg", "9"), (6, "9 kg", "9")]
    page = run.place.attached(REPORT).read_text()
    assert "goods.csv" in page
    assert "4,7kg" in page
    assert run.contract == CONTRACT


def test_without_a_contract_one_is_inferred_and_kept_as_such(goods, tmp_path):
    clean_file(goods, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.facts["inferred"]
    assert run.contract.columns["id"].kind == "integer"
    assert run.contract.columns["id"].confidence["kind"] == 1.0
    assert "(inferred from this table)" in run.place.attached(REPORT).read_text()


def test_undo_puts_cells_back_and_what_is_left_can_be_undone_later(goods, tmp_path):
    folder = tmp_path / "run"
    clean_file(goods, folder, LOOSE)
    assert undo_changes(folder, pl.col("row") == 5) == Outcome(1, back=1)
    run = load_run(folder)
    # The copy keeps its change: it is none any more, until that is undone as well.
    assert run.frame["weight"].to_list() == ["5", "6", "x", "8", "9 kg", "9"]
    assert run.changes["row"].to_list() == [0, 6]
    assert run.facts["counts"]["repaired"] == 2
    assert undo_changes(folder, pl.lit(value=True)) == Outcome(2, {"duplicate-of": 1})
    assert load_run(folder).frame["weight"].to_list() == ["5 kg", "6", "x", "8", "9 kg"]
    with pytest.raises(OutputError, match="no change fits"):
        undo_changes(folder, pl.lit(value=True))


def test_an_altered_file_is_noticed_before_anything_is_undone(goods, tmp_path):
    clean_file(goods, tmp_path / "run", CONTRACT)
    place = published(tmp_path / "run")
    place.clean_path.write_text("id,weight,place\n1,5,z\n")
    with pytest.raises(OutputError, match="its content was changed since"):
        undo_changes(tmp_path / "run", pl.lit(value=True))


def test_a_mended_contract_brings_rows_back(goods, tmp_path):
    clean_file(goods, tmp_path / "run", CONTRACT)
    looser = from_toml("[columns.id]\n[columns.weight]\n[columns.place]")
    assert requeue(tmp_path / "run", looser).number == 1
    run = load_run(tmp_path / "run")
    assert run.frame["weight"].to_list() == ["5 kg", "6", "x", "8", "9 kg"]
    assert run.rows.to_list() == [0, 1, 2, 4, 5]
    assert [r["rule"] for r in run.quarantine.to_pylist()] == ["too-few-cells", "duplicate-of"]
    assert run.place.rows_in == 7
    # The same again changes nothing.
    assert requeue(tmp_path / "run") == Outcome(0)


def review_run(tmp_path):
    """A run with a suggestion for review: a rare town next to a common one, and no bound for it."""
    towns = ["Aldburgh"] * 30 + ["Dorchester"] * 30 + ["Aldbxrgh"]
    file = tmp_path / "towns.csv"
    file.write_text("town,n\n" + "".join(f"{town},{i}\n" for i, town in enumerate(towns)))
    clean_file(file, tmp_path / "run", from_toml("[columns.town]\n[columns.n]\nkind='integer'"))
    return tmp_path / "run"


def test_a_suggestion_is_accepted_or_rejected_by_a_person(tmp_path):
    folder = review_run(tmp_path)
    run = load_run(folder)
    assert run.changes.is_empty()
    assert run.review.select("row", "suggestion", "confidence").rows() == [(60, "Aldburgh", 0.5)]
    assert decide(folder, pl.col("rule") == "typo", accept=True).number == 1
    run = load_run(folder)
    assert run.frame["town"][60] == "Aldburgh"
    assert run.changes.select("row", "before", "after", "rule").rows() == [
        (60, "Aldbxrgh", "Aldburgh", "accepted:typo")
    ]
    assert run.review.is_empty()
    undo_changes(folder, pl.col("rule") == "accepted:typo")
    assert load_run(folder).frame["town"][60] == "Aldbxrgh"


def test_a_rejected_suggestion_is_gone_and_changes_nothing(tmp_path):
    folder = review_run(tmp_path)
    assert decide(folder, pl.lit(value=True), accept=False).number == 1
    run = load_run(folder)
    assert run.review.is_empty()
    assert run.frame["town"][60] == "Aldbxrgh"
    with pytest.raises(OutputError, match="no finding fits"):
        decide(folder, pl.lit(value=True), accept=True)


def test_what_has_no_suggestion_cannot_be_accepted(tmp_path):
    file = tmp_path / "c.csv"
    colours = ["red"] * 60 + ["green"] * 59 + ["ultramarine"]
    file.write_text("n,colour\n" + "".join(f"{i},{c}\n" for i, c in enumerate(colours)))
    clean_file(file, tmp_path / "run")
    with pytest.raises(OutputError, match="row 119, column 'colour' has no suggestion"):
        decide(tmp_path / "run", pl.lit(value=True), accept=True)


def test_a_run_of_the_same_file_is_the_same(goods, tmp_path):
    first = clean_file(goods, tmp_path / "a", CONTRACT)
    second = clean_file(goods, tmp_path / "b", CONTRACT, config=CleanConfig())
    assert first.frame.equals(second.frame)
    assert first.changes.equals(second.changes)
    one, two = (published(tmp_path / name) for name in "ab")
    assert one.digests["clean.csv"] == two.digests["clean.csv"]


def test_there_is_no_run_where_none_was_made(tmp_path):
    with pytest.raises(OutputError, match="no run is published there"):
        load_run(tmp_path)


def test_values_of_a_stranger_are_text_on_the_page(tmp_path):
    file = tmp_path / "x.csv"
    rows = ["<script>alert(1)</script>,1 kg", "b,2", "c,3 kg", "=cmd|' /C calc'!A0,4"]
    file.write_text("name,weight\n" + "\n".join(rows) + "\n")
    clean_file(
        file, tmp_path / "run", from_toml("[columns.name]\n[columns.weight]\nkind='integer'")
    )
    place = published(tmp_path / "run")
    page = place.attached(REPORT).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert json.loads(place.attached("run.json").read_text())["counts"]["quarantined"] == 2


def test_a_cell_of_blanks_is_missing_and_the_run_can_be_undone(tmp_path):
    file = tmp_path / "b.csv"
    file.write_text('a,b\n"   ",x\n y,z\n')
    clean_file(file, tmp_path / "run", from_toml("[columns.a]\n[columns.b]"))
    assert load_run(tmp_path / "run").frame["a"].to_list() == [None, "y"]
    assert undo_changes(tmp_path / "run", pl.col("column") == "a").number == 2
    assert load_run(tmp_path / "run").frame["a"].to_list() == ["   ", " y"]


def test_an_accepted_suggestion_is_a_change_of_its_own(tmp_path):
    file = tmp_path / "towns.csv"
    towns = [" Aldburgh"] + ["Aldburgh"] * 30 + ["Dorchester"] * 30 + ["Aldbxrgh"]
    file.write_text("town,n\n" + "".join(f"{town},{i}\n" for i, town in enumerate(towns)))
    folder = tmp_path / "run"
    clean_file(file, folder, from_toml("[columns.town]\n[columns.n]\nkind='integer'"))
    decide(folder, pl.col("row") == 61, accept=True)
    assert load_run(folder).changes["order"].to_list() == [0, 1]
    assert undo_changes(folder, pl.col("rule") == "accepted:typo").number == 1
    assert load_run(folder).frame["town"][0] == "Aldburgh"


def test_what_the_reader_refused_does_not_come_back_as_a_row(tmp_path):
    file = tmp_path / "j.jsonl"
    file.write_text('{"a":"1","b":"p"}\n{"a":"1","a":"2","b":"q"}\n')
    clean_file(file, tmp_path / "run", from_toml("[columns.a]\n[columns.b]"))
    assert requeue(tmp_path / "run") == Outcome(0)
    assert load_run(tmp_path / "run").frame.height == 1


def test_who_decides_on_results_that_another_has_changed_is_told_so(goods, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    clean_file(goods, folder, LOOSE)
    seen = load_run(folder)
    undo_changes(folder, pl.col("row") == 0)
    monkeypatch.setattr("connectors.cleaning.decisions.load_run", lambda _: seen)
    with pytest.raises(OutputBusyError, match="another process has changed the results"):
        undo_changes(folder, pl.col("row") == 5)
    monkeypatch.undo()
    assert load_run(folder).frame["weight"].to_list() == ["5 kg", "6", "x", "8", "9"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_odd_names_of_columns_do_no_harm(tmp_path, kind):
    names = ["count", '"e""f"', "*", "^.*$", "row", "value", "observed", "_at"]
    lines = [",".join(f"{word} {i % 7}" for word in "abcdefgh") for i in range(60)]
    (tmp_path / "odd.csv").write_text("\n".join([",".join(names), *lines, lines[0]]) + "\n")
    done = clean_file(tmp_path / "odd.csv", tmp_path / "run", kind=kind)
    assert done.frame.columns[:4] == ["count", 'e"f', "column_3", "column_4"]
    run = load_run(tmp_path / "run")
    assert run.frame.equals(done.frame)
    requeue(tmp_path / "run")
    assert load_run(tmp_path / "run").frame.equals(done.frame)
