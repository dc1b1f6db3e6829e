"""One run: detectors, near-duplicates and labels beside repair and contract."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tasks.cleaning.clean import CleanConfig, clean
from tasks.cleaning.contract.model import ContractError, Denial
from tasks.cleaning.contract.toml import from_toml, to_toml
from tasks.cleaning.detect.cells import DetectorBudget
from tasks.cleaning.doubts import ReviewConfig, queue_of
from tasks.cleaning.findings import findings_of
from tasks.cleaning.repair.changes import undo
from tasks.cleaning.repair.decisions import no_decisions

COLUMNS = "[columns.name]\n[columns.born]\n[columns.town]\n[columns.amount]\n"


def people(n=150, seed=1):
    draw = random.Random(seed)
    first = ["anna", "boris", "clara", "dmitri", "elena", "fritz", "greta", "hugo", "irene", "jan"]
    last = [
        "abel",
        "berger",
        "conrad",
        "dorn",
        "ebert",
        "fuchs",
        "gross",
        "huber",
        "jung",
        "keller",
    ]
    rows = [
        {
            "name": f"{draw.choice(first)} {draw.choice(last)}{draw.randint(10, 99)}",
            "born": f"19{draw.randint(30, 99)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}",
            "town": draw.choice(["ulm", "bonn", "kiel", "trier", "jena"]),
            "amount": f"{draw.uniform(10, 20):.2f}",
        }
        for _ in range(n)
    ]
    return pl.DataFrame(rows)


def at(row, column, value):
    """Return a column with one cell replaced."""
    return (
        pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value)).otherwise(column).alias(column)
    )


def twins(action, extra=""):
    frame = people()
    again = frame[[3, 40, 77]].with_columns(
        pl.col("name") + "1", pl.Series("amount", ["11.11", "12.12", "13.13"])
    )
    compared = "columns = { name = 'text', born = 'date', town = 'exact' }\n"
    lines = f"[duplicates]\naction = '{action}'\n{extra}{compared}"
    return pl.concat([frame, again]), from_toml(COLUMNS + lines)


def test_detectors_join_the_queue_and_set_nothing_aside():
    frame = people().with_columns(at(7, "amount", "91000.5"))
    done = clean(frame, from_toml(COLUMNS), "f")
    assert done.counts["quarantined"] == 0
    found = done.review.filter(pl.col("rule") == "outlier-spread")
    assert found.select("row", "column", "observed").rows() == [(7, "amount", "91000.5")]
    quiet = clean(frame, from_toml(COLUMNS), "f", CleanConfig(review=ReviewConfig(detectors=False)))
    assert quiet.review.is_empty()


def test_findings_carry_the_rows_of_the_table_where_others_are_set_aside():
    frame = people().with_columns(
        at(9, "amount", "91000.5"),
        pl.when(pl.int_range(pl.len()) < 4).then(None).otherwise("town").alias("town"),
    )
    contract = from_toml(COLUMNS.replace("[columns.town]", "[columns.town]\nnullable = false"))
    done = clean(frame, contract, "f")
    assert done.counts["quarantined"] == 4
    assert done.review.filter(pl.col("column") == "amount")["row"].to_list() == [9]


def test_the_queue_keeps_the_surest_once_per_cell_and_counts_the_rest():
    cells = pl.DataFrame({"row": [1, 1, 2, 3], "confidence": [0.4, 0.6, 0.9, 0.1]})
    found = findings_of(cells, column="a", rule="r")
    queue = queue_of([found], ReviewConfig(most=2), [])
    assert queue.findings.select("row", "confidence").rows() == [(1, 0.6), (2, 0.9)]
    assert queue.unlisted == {"r": 1}
    assert queue.notes == ("1 findings are not in the queue: the 2 surest are",)


def test_a_detector_beyond_its_budget_is_skipped_aloud(caplog):
    budget = DetectorBudget(cells=100)
    config = CleanConfig(review=ReviewConfig(budget=budget))
    done = clean(people(), from_toml(COLUMNS), "f", config)
    assert len(done.notes) == 5
    assert done.notes[0] == "outliers not looked for: more than 100 cells"
    assert "outliers not looked for" in caplog.text


def test_near_duplicates_are_shown():
    frame, contract = twins("review")
    done = clean(frame, contract, "f")
    assert done.counts["quarantined"] == 0
    found = done.review.filter(pl.col("rule") == "duplicate-of")
    assert found.select("row", "column", "expected").rows() == [
        (150, "", "first in row 3"),
        (151, "", "first in row 40"),
        (152, "", "first in row 77"),
    ]


def test_near_duplicates_are_set_aside_and_name_the_row_kept():
    frame, contract = twins("quarantine")
    numbers = np.arange(frame.height) + 1_000
    done = clean(frame, contract, "f", rows=numbers)
    assert done.counts["rows_in"] == done.counts["clean"] + done.counts["quarantined"] == 153
    records = done.quarantine.to_pylist()
    assert [(r["row"], r["rule"], r["expected"], r["severity"]) for r in records] == [
        (150, "duplicate-of", "first in row 1003", "warning"),
        (151, "duplicate-of", "first in row 1040", "warning"),
        (152, "duplicate-of", "first in row 1077", "warning"),
    ]
    assert all(0.5 < r["confidence"] <= 1 for r in records)


def test_kept_rows_are_filled_from_their_duplicates_only_where_declared():
    frame, contract = twins("quarantine", "fill = true\n")
    frame = frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 40).then(None).otherwise("amount").alias("amount")
    )
    done = clean(frame, contract, "f")
    assert done.frame["amount"][40] == "12.12"
    assert done.changes.select("row", "column", "after", "rule").rows() == [
        (40, "amount", "12.12", "duplicate-fill")
    ]
    assert undo(done.frame, done.changes)[0]["amount"][40] is None
    plain = replace(contract, duplicates=replace(contract.duplicates, fill=False))
    assert clean(frame, plain, "f").frame["amount"][40] is None


def lacking_amounts():
    """Return twins of which the rows kept, 3 and 40, lack their amounts."""
    frame, contract = twins("quarantine", "fill = true\n")
    lacking = pl.int_range(pl.len()).is_in([3, 40])
    return frame.with_columns(pl.when(~lacking).then("amount").alias("amount")), contract


def fills_of(done):
    filled = done.changes.filter(pl.col("rule") == "duplicate-fill")
    return filled.select("row", "column", "after").rows()


def test_fills_that_break_a_declared_rule_are_left_out():
    frame, contract = lacking_amounts()
    assert fills_of(clean(frame, contract, "f")) == [
        (3, "amount", "11.11"),
        (40, "amount", "12.12"),
    ]
    # The duplicate may hold it, the row kept may not.
    denial = Denial("d", f"amount = '11.11' AND name = '{frame['name'][3]}'")
    denied = replace(contract, denials=(denial,))
    done = clean(frame, denied, "f")
    assert fills_of(done) == [(40, "amount", "12.12")]
    assert done.frame["amount"][3] is None
    assert done.counts["quarantined"] == 3


def test_fills_that_break_a_key_are_left_out_wherever_the_other_row_stands():
    frame, contract = lacking_amounts()
    names = frame["name"]
    # Row 0 holds what row 3 would be filled with, row 149 what row 40 would.
    frame = frame.with_columns(at(0, "amount", "11.11"), at(0, "name", names[3]))
    frame = frame.with_columns(at(149, "amount", "12.12"), at(149, "name", names[40]))
    assert len(fills_of(clean(frame, contract, "f"))) == 2
    done = clean(frame, replace(contract, keys=(("name", "amount"),)), "f")
    assert fills_of(done) == []
    assert done.counts["quarantined"] == 3


def test_undone_fills_stay_undone():
    frame, contract = lacking_amounts()
    said = {
        "decision": ["undone"], "row": [40], "column": ["amount"], "rule": ["duplicate-fill"],
        "before": ["12.12"], "after": [None],
    }  # fmt: skip
    decisions = pl.concat([no_decisions(), pl.DataFrame(said)], how="diagonal_relaxed")
    done = clean(frame, contract, "f", decisions=decisions.select(no_decisions().columns))
    assert fills_of(done) == [(3, "amount", "11.11")]


def test_a_copy_names_the_row_that_it_is_equal_to():
    frame = pl.concat([people(5), people(5)[[2]]])
    done = clean(frame, from_toml(COLUMNS), "f")
    assert done.quarantine.to_pylist()[0]["expected"] == "a row that occurs once; equal to row 2"


def test_likely_wrong_labels_are_shown_with_the_label_expected():
    draw = np.random.default_rng(0)
    x = draw.normal(size=400)
    kind = np.where(x > 0, "good", "bad")
    kind[:6] = np.where(x[:6] > 0, "bad", "good")
    frame = pl.DataFrame(
        {"x": [f"{v:.4f}" for v in x], "kind": kind, "id": [f"n{i}" for i in range(400)]}
    )
    contract = from_toml("[columns.x]\n[columns.kind]\n[columns.id]\n[label]\ncolumn = 'kind'")
    done = clean(frame, contract, "f")
    found = done.review.filter(pl.col("rule") == "label-error")
    far = [row for row in range(6) if abs(x[row]) > 0.2]
    assert set(far) <= set(found["row"])
    assert found.height <= 12
    assert (found["suggestion"] != found["observed"]).all()
    few = clean(frame.head(8), contract, "f")
    assert few.notes == ("labels in kind not judged: fewer than two of them have 10 rows",)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("[duplicates]\naction = 'drop'", r"\[duplicates\]: action is 'drop'; give one of review"),
        ("[duplicates]\nprecision = 1.5", r"precision 1.5 must lie between"),
        ("[duplicates]\ncolumns = { town = 'sound' }", "'town' is compared as 'sound'"),
        ("[duplicates]\ncolumns = { other = 'text' }", "duplicates names 'other'"),
        ("[duplicates]\nfill = true", "say action = 'quarantine'"),
        ("[label]\ncolumn = 'other'", "label names 'other'"),
        ("[label]\nmax_noise = 0.1", r"\[label\]"),
        ("[label]\ncolumns = ['town']", r"\[label\] has no 'columns'"),
    ],
)
def test_lines_that_cannot_be_are_refused(lines, told):
    with pytest.raises(ContractError, match=told):
        from_toml(COLUMNS + lines)


def test_contracts_come_back_from_their_toml():
    lines = "[duplicates]\ncolumns = { name = 'text' }\nprecision = 0.9\naction = 'quarantine'\n"
    contract = from_toml(COLUMNS + lines + "[label]\ncolumn = 'town'\nfeatures = ['amount']\n")
    assert from_toml(to_toml(contract)) == contract
