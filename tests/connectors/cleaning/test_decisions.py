"""What a person decides about a cleaning run: it is kept, holds again, and spoils no clean row."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.cleaning.decisions import Outcome, decide, requeue, undo_changes
from connectors.cleaning.outputs import OutputBusyError, OutputError
from connectors.cleaning.run import clean_file, load_run
from connectors.cleaning.stream import clean_stream
from tasks.cleaning.contract.toml import from_toml

EVERYTHING = pl.lit(value=True)
TOWNS = """
[columns.n]
kind = "integer"
[columns.town]
[columns.weight]
kind = "decimal"
unit_spellings = ["kg"]
{more}
"""


def towns(more="", weight_declared=False):
    """A contract of towns and weights; nobody vouches for the weights unless told so."""
    vague = "" if weight_declared else "[columns.weight.confidence]\nkind = 0.9\n"
    return from_toml(TOWNS.format(more=vague + more))


def made(folder, contract, rows=()):
    """A run with a typo that waits for review in row 60, and two weights with units."""
    names = ["Aldburgh"] * 30 + ["Dorchester"] * 30 + ["Aldbxrgh"]
    weights = ["5 kg", "6 kg"] + ["7"] * 59
    lines = [f"{i},{t},{w}" for i, (t, w) in enumerate(zip(names, weights, strict=True))]
    file = folder / "towns.csv"
    file.write_text("\n".join(["n,town,weight", *lines, *rows]) + "\n")
    clean_file(file, folder / "run", contract)
    return folder / "run"


def whole(run):
    """Rows in = clean + quarantined, in the files as in the counts."""
    counts = run.facts["counts"]
    assert counts["clean"] == run.frame.height == len(run.rows)
    assert counts["quarantined"] == run.quarantine.num_rows
    numbers = run.rows.to_list() + run.quarantine["row"].to_pylist()
    assert sorted(numbers) == list(range(run.place.rows_in))
    return run


def test_an_undone_cell_stays_undone_when_the_run_is_cleaned_again(tmp_path):
    folder = made(tmp_path, towns())
    assert undo_changes(folder, pl.col("row") == 0) == Outcome(1)
    assert requeue(folder) == Outcome(0)
    run = whole(load_run(folder))
    assert run.frame["weight"][:2].to_list() == ["5 kg", "6"]
    assert run.changes["row"].to_list() == [1]
    assert "5 kg" not in run.review.filter(pl.col("rule") == "unit")["observed"].to_list()


def test_an_accepted_suggestion_is_carried_out_again(tmp_path):
    folder = made(tmp_path, towns())
    decide(folder, pl.col("rule") == "typo", accept=True)
    requeue(folder, towns("pattern = 0.5"))
    run = whole(load_run(folder))
    assert run.frame["town"][60] == "Aldburgh"
    [change] = run.changes.filter(pl.col("row") == 60).to_dicts()
    assert (change["before"], change["rule"]) == ("Aldbxrgh", "accepted:typo")


def test_a_rejected_suggestion_stays_hidden(tmp_path):
    folder = made(tmp_path, towns())
    assert decide(folder, EVERYTHING, accept=False) == Outcome(1)
    requeue(folder)
    run = whole(load_run(folder))
    assert run.review.is_empty()
    assert run.frame["town"][60] == "Aldbxrgh"


def test_decisions_say_who_when_and_what(tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "ada")
    folder = made(tmp_path, towns())
    decide(folder, EVERYTHING, accept=False)
    monkeypatch.delenv("USER")
    monkeypatch.delenv("LOGNAME", raising=False)
    undo_changes(folder, pl.col("row") == 0)
    one, two = load_run(folder).decisions.to_dicts()
    assert one["user"] == "ada"
    assert two["user"] == ""
    assert one["time"] < two["time"]
    said = ["decision", "row", "column", "rule", "before", "after"]
    assert [one[name] for name in said] == [
        "rejected", 60, "town", "typo", "Aldbxrgh", "Aldburgh",
    ]  # fmt: skip
    assert [two[name] for name in said] == ["undone", 0, "weight", "unit", "5", "5 kg"]


def test_forgetting_cleans_as_if_nobody_had_decided(tmp_path):
    folder = made(tmp_path, towns())
    first = load_run(folder)
    undo_changes(folder, pl.col("row") == 0)
    decide(folder, EVERYTHING, accept=True)
    requeue(folder, forget=pl.col("decision") == "undone")
    run = load_run(folder)
    assert run.frame["weight"][0] == "5"
    assert run.frame["town"][60] == "Aldburgh"
    requeue(folder, forget=EVERYTHING)
    run = load_run(folder)
    assert run.frame.equals(first.frame)
    assert run.changes.equals(first.changes)
    assert run.review.equals(first.review)
    with pytest.raises(OutputError, match="no decision fits"):
        requeue(folder, forget=EVERYTHING)


def test_a_row_that_breaks_a_rule_by_undoing_is_set_aside_with_the_reason(tmp_path):
    folder = made(tmp_path, towns(weight_declared=True))
    done = undo_changes(folder, pl.col("row") == 0)
    assert done == Outcome(1, {"kind:weight": 1})
    assert done.aftermath == "1 row breaks kind:weight now and was set aside"
    run = whole(load_run(folder))
    assert run.rows[0] == 1
    [record] = run.quarantine.to_pylist()
    assert record["payload"] == b'{"n":"0","town":"Aldburgh","weight":"5 kg"}'
    assert (record["rule"], record["observed"]) == ("kind:weight", "5 kg")
    # What was decided holds again, so the row stays there until the contract allows it.
    assert requeue(folder).number == 0
    assert requeue(folder, towns()) == Outcome(1)
    assert whole(load_run(folder)).frame["weight"][0] == "5 kg"


def test_a_row_that_breaks_a_rule_by_accepting_comes_back_by_undoing(tmp_path):
    contract = towns("[[denial]]\nname = 'two'\nforbidden = \"town = 'Aldburgh' AND n = '60'\"")
    folder = made(tmp_path, contract)
    done = decide(folder, pl.col("rule") == "typo", accept=True)
    assert done == Outcome(1, {"denial:two": 1})
    assert whole(load_run(folder)).quarantine["row"].to_pylist() == [60]
    done = undo_changes(folder, pl.col("row") == 60)
    assert done == Outcome(1, {}, back=1)
    assert done.aftermath == "1 row came back"
    assert whole(load_run(folder)).frame["town"][60] == "Aldbxrgh"


def test_a_repair_that_put_a_row_into_quarantine_is_undone_and_the_row_comes_back(tmp_path):
    contract = from_toml(
        "[columns.a]\nkind='integer'\n[columns.b]\nmissing=['none']\nnullable=false"
    )
    file = tmp_path / "b.csv"
    file.write_text("a,b\n1,x\n2,none\n3,z\n")
    clean_file(file, tmp_path / "run", contract)
    assert load_run(tmp_path / "run").rows.to_list() == [0, 2]
    assert undo_changes(tmp_path / "run", pl.col("row") == 1) == Outcome(1, {}, back=1)
    run = whole(load_run(tmp_path / "run"))
    assert run.frame.rows() == [("1", "x"), ("2", "none"), ("3", "z")]


def test_of_two_rows_that_become_alike_the_one_that_was_touched_goes(tmp_path):
    contract = from_toml("keys = [['n', 'town']]\n" + TOWNS.format(more=""))
    folder = made(tmp_path, contract, rows=["60,Aldburgh,8"])
    assert load_run(folder).quarantine.num_rows == 0
    done = decide(folder, pl.col("rule") == "typo", accept=True)
    assert done == Outcome(1, {"key:n+town": 1})
    assert whole(load_run(folder)).quarantine["row"].to_pylist() == [60]


PAYMENTS = """
[columns.id]
[columns.t]
[columns.card]
[columns.amount]
[[transactions]]
time = "t"
id = "id"
account = "card"
amount = "amount"
near_seconds = 60.0
late_seconds = 3600.0
"""


def run_of(folder, text, contract):
    """A run over a file of some text."""
    file = folder / "made.csv"
    file.write_text(text)
    clean_file(file, folder / "run", from_toml(contract))
    return folder / "run"


def aside(run):
    return {one["row"]: one["rule"] for one in run.quarantine.to_pylist()}


def test_payments_set_aside_do_not_come_back_by_undoing_something_else(tmp_path):
    day = "2026-01-0"
    lines = [
        f"0,{day}1T00:00:00Z,A,5.0", f"1, {day}1T00:00:10Z,A,5.0", f"2,{day}1T09:00:00Z,B,7.0",
        f"2, {day}2T09:00:00Z,B,8.0", f"4, {day}2T07:00:00Z,B,9.0", f"5,{day}3T07:00:00Z,B,9.5",
    ]  # fmt: skip
    folder = run_of(tmp_path, "\n".join(["id,t,card,amount", *lines]) + "\n", PAYMENTS)
    # The number is judged before the time: row 3 is no newer payment that row 4 is late behind.
    bad = {1: "near-copy:t", 3: "repeated-id:id"}
    assert aside(load_run(folder)) == bad
    assert undo_changes(folder, EVERYTHING) == Outcome(3)
    assert aside(whole(load_run(folder))) == bad
    assert requeue(folder) == Outcome(0)


def test_a_late_payment_stays_aside_where_it_stood_in_the_file(tmp_path):
    lines = [f"{i}, 2026-01-0{day}T09:00:00Z,{i},5" for i, day in enumerate([1, 3, 2, 4])]
    folder = run_of(tmp_path, "\n".join(["id,t,card,amount", *lines]) + "\n", PAYMENTS)
    assert aside(load_run(folder)) == {2: "late:t"}
    for row in (2, 1):
        assert undo_changes(folder, pl.col("row") == row) == Outcome(1)
        assert aside(whole(load_run(folder))) == {2: "late:t"}


def test_a_copy_comes_back_when_its_original_changes_or_leaves(tmp_path):
    weights = "[columns.w]\nkind = 'integer'\nunit_spellings = ['kg']\n[columns._at]\n"
    folder = run_of(tmp_path, "w,_at\n5 kg,1\n5,1\n5,1\n6 kg,2\n6,2\n", weights)
    assert aside(load_run(folder)) == dict.fromkeys([1, 2, 4], "duplicate-of")
    assert undo_changes(folder, pl.col("row") == 0) == Outcome(1, {"kind:w": 1}, back=1)
    run = whole(load_run(folder))
    assert aside(run) == {0: "kind:w", 2: "duplicate-of", 4: "duplicate-of"}
    assert run.rows.to_list() == [1, 3]
    # The record names the row that stays now.
    assert run.quarantine["expected"].to_pylist()[1].endswith("equal to row 1")
    assert requeue(folder).number == 0


PEOPLE = """
[columns.name]
[columns.born]
[columns.street]
[columns.n]
{more}
[duplicates]
columns = {{ name = "name", born = "date", street = "text" }}
action = "{action}"
"""


def people(folder, action, more=""):
    """A run over persons, of whom every tenth is in the table twice, spelled in two ways."""
    first = ["Anna", "Bela", "Carl", "Dora", "Emil", "Fritz", "Greta", "Hugo", "Ida", "Jan"]
    last = ["Becker", "Fischer", "Hoffmann", "Koch", "Meyer", "Richter", "Schulz", "Wagner"]
    rows = []
    for i in range(80):
        name = f"{first[i % 10]} {last[i % 8 - i // 40]}"
        born, street = f"19{30 + i % 67}-{1 + i % 12:02}-{1 + i % 28:02}", f"{last[i % 7]} Way {i}"
        rows.append(f"{name},{born},{street},{i} kg")
        if i % 10 == 0:
            rows.append(f"{name.replace(' ', '')},{born}, {street},{i}")
    text = "\n".join(["name,born,street,n", *rows]) + "\n"
    return run_of(folder, text, PEOPLE.format(action=action, more=more))


def test_near_duplicates_stay_aside_while_the_row_kept_for_them_is_clean(tmp_path):
    folder = people(tmp_path, "quarantine", "kind = 'integer'\nunit_spellings = ['kg']")
    first = load_run(folder)
    found = aside(first)
    assert set(found) == {11 * i + 1 for i in range(8)}
    assert set(found.values()) == {"duplicate-of"}
    blank = pl.col("row").is_in(list(found))
    assert first.changes.filter(blank).height == len(found)
    assert undo_changes(folder, blank) == Outcome(len(found))
    run = whole(load_run(folder))
    assert run.quarantine.equals(first.quarantine)
    assert requeue(folder) == Outcome(0)
    assert undo_changes(folder, pl.col("row") == 0) == Outcome(1, {"kind:n": 1}, back=1)
    assert aside(whole(load_run(folder))) == {0: "kind:n"} | {
        row: rule for row, rule in found.items() if row != 1
    }
    assert requeue(folder) == Outcome(0)


def test_a_near_duplicate_has_nothing_to_accept(tmp_path):
    folder = people(tmp_path, "review")
    shown = load_run(folder).review.filter(pl.col("rule") == "duplicate-of")
    assert shown.height > 5
    with pytest.raises(OutputError, match=r"row 1 has no suggestion; choose others, or reject it"):
        decide(folder, EVERYTHING, accept=True)
    decide(folder, pl.col("rule") == "duplicate-of", accept=False)


def test_more_rows_than_the_contract_allows_are_not_set_aside(tmp_path):
    strict = "max_quarantine_share = 0.02\n" + TOWNS.format(more="")
    folder = made(tmp_path, from_toml(strict))
    before = load_run(folder).place.generation
    with pytest.raises(OutputError, match=r"2 rows would break kind:weight.*allowed 2%"):
        undo_changes(folder, EVERYTHING)
    assert load_run(folder).place.generation == before


def test_who_saw_another_generation_is_told_so(tmp_path):
    folder = made(tmp_path, towns())
    seen = load_run(folder).place.generation
    undo_changes(folder, pl.col("row") == 0, seen=seen)
    for act in (
        lambda: undo_changes(folder, pl.col("row") == 1, seen=seen),
        lambda: decide(folder, EVERYTHING, accept=True, seen=seen),
        lambda: requeue(folder, seen=seen),
    ):
        with pytest.raises(OutputBusyError, match="another process has changed the results"):
            act()


DECLARED = towns("[[denial]]\nname = 'two'\nforbidden = \"town = 'Aldburgh' AND n = '60'\"", True)
step = st.tuples(
    st.sampled_from(["undo", "accept", "reject", "requeue"]),
    st.sampled_from([0, 1, 60, None]),
)


@settings(max_examples=5, deadline=None)
@given(st.lists(step, max_size=3))
def test_no_decision_loses_a_row_or_publishes_one_that_breaks_a_rule(steps):
    with tempfile.TemporaryDirectory() as name:
        folder = made(Path(name), DECLARED, rows=["61,Dorchester,heavy"])
        first = load_run(folder)
        for verb, row in steps:
            chosen = EVERYTHING if row is None else pl.col("row") == row
            try:
                if verb == "undo":
                    undo_changes(folder, chosen)
                elif verb == "requeue":
                    requeue(folder)
                else:
                    decide(folder, chosen, accept=verb == "accept")
            except OutputError as error:
                assert "fits" in str(error)  # noqa: PT017 - nothing to do is no fault here
            run = whole(load_run(folder))
            assert not run.frame.select(pl.col("weight").str.contains("[a-z]").any()).item()
            assert run.frame.filter(town="Aldburgh", n="60").is_empty()
        if load_run(folder).decisions.height:
            requeue(folder, forget=EVERYTHING)
        run = whole(load_run(folder))
        assert run.frame.equals(first.frame)
        assert run.changes.equals(first.changes)
        assert run.review.equals(first.review)
        same = ["payload", "row", "rule", "column", "observed"]
        assert run.quarantine.select(same).equals(first.quarantine.select(same))


def test_decisions_on_a_run_whose_rows_streamed_through(tmp_path):
    file = tmp_path / "s.csv"
    file.write_text("a,b\n1,5 kg\n2,6 kg\nx,7\n4\n5,8 kg\n")
    contract = from_toml(
        "[columns.a]\nkind='integer'\n[columns.b]\nkind='decimal'\n"
        "unit_spellings=['kg']\n[columns.b.confidence]\nkind=0.9"
    )
    clean_stream(file, tmp_path / "run", contract)
    whole(load_run(tmp_path / "run"))
    assert undo_changes(tmp_path / "run", pl.col("row") == 4).number == 1
    run = whole(load_run(tmp_path / "run"))
    assert run.rows.to_list() == [0, 1, 4]
    assert run.frame["b"][2] == run.decisions["after"][0]
    requeue(tmp_path / "run")
    assert whole(load_run(tmp_path / "run")).frame["b"][2] == run.frame["b"][2]
