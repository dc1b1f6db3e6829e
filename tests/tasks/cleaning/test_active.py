"""A few labelled rows: what they change, what they may not harm, and that none changes nothing."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.cleaning.active.learner import (
    LabelledRows,
    cells_of,
    next_row,
    next_rows,
    probabilities,
    refuted_rules,
    texts_of,
)
from tasks.cleaning.active.repair import RULE, repair_by_labels
from tasks.cleaning.active.rewrites import Cut, cut_of, learned, standins
from tasks.cleaning.contract.model import Reference
from tasks.cleaning.contract.toml import from_toml
from tasks.cleaning.repair.changes import undo
from tasks.cleaning.repair.decisions import no_decisions
from tasks.cleaning.repair.engine import RepairConfig, repair

CONTRACT = from_toml("name = 'goods'\n[columns.size]\n[columns.town]\n[columns.number]")
ALPHA = 0.02
TOWNS = ["aldburgh", "bexhill", "carlisle", "dorchester", "exminster", "falmouth"]


def spoilt(rows=300, seed=3, share=0.1):
    """Return a table with "#" in the place of letters and sizes with a remark, and its truth."""
    draw = random.Random(seed)
    truth = [
        {"size": str(draw.randint(1, 40)), "town": draw.choice(TOWNS), "number": str(i)}
        for i in range(rows)
    ]
    dirty = [dict(row) for row in truth]
    for row in dirty:
        if draw.random() < share:
            row["size"] += ".0 oz. can"
        if draw.random() < share:
            at = draw.randrange(len(row["town"]))
            row["town"] = f"{row['town'][:at]}#{row['town'][at + 1 :]}"
    return pl.DataFrame(dirty), pl.DataFrame(truth)


def asked(dirty, truth, number):
    done = repair(dirty, CONTRACT)
    cells, rows = cells_of(dirty, done, CONTRACT), []
    for _ in range(number):
        told = LabelledRows(np.array(rows, np.int64), truth[rows])
        rows.append(next_row(probabilities(cells, told), np.array(rows, np.int64)))
    return done, cells, LabelledRows(np.array(rows, np.int64), truth[rows])


@pytest.fixture(scope="module")
def labelled():
    dirty, truth = spoilt()
    return dirty, truth, *asked(dirty, truth, 40)


def test_labels_find_and_mend_what_the_repair_alone_does_not(labelled):
    dirty, truth, done, cells, told = labelled
    wrong = texts_of(dirty) != texts_of(truth)
    others = np.setdiff1d(np.arange(dirty.height), told.rows)
    found = (probabilities(cells, told) > 0.5)[others]
    after = repair_by_labels(dirty, done, CONTRACT, told, RepairConfig(alpha=ALPHA))
    before_right = (texts_of(done.frame) == texts_of(truth))[others]
    after_right = (texts_of(after.frame) == texts_of(truth))[others]
    assert (found & wrong[others]).sum() / wrong[others].sum() > 0.9
    assert (found & ~wrong[others]).sum() <= 3
    assert after_right.sum() > before_right.sum() + 15
    # No cell that was right is wrong now.
    assert not (~after_right & ~wrong[others]).any()
    assert after.frame[told.rows.tolist()].equals(told.truth)
    assert 0 < after.bounds[RULE].rate <= ALPHA


def test_every_change_by_labels_is_on_record_and_undone_exactly(labelled):
    dirty, _, done, cells, told = labelled
    after = repair_by_labels(dirty, done, CONTRACT, told, RepairConfig(alpha=ALPHA), cells)
    assert after.changes["order"].is_unique().all()
    assert {"labelled", RULE} <= set(after.changes["rule"])
    assert undo(after.frame, after.changes)[0].equals(dirty)
    # What was told is not overruled by what was learned from it.
    learned_rows = after.changes.filter(pl.col("rule") == RULE)["row"]
    assert not set(learned_rows) & set(told.rows.tolist())
    left = after.review.join(after.changes, on=["row", "column"], how="semi")
    assert left.filter(pl.col("rule") == RULE).is_empty()


def test_what_a_person_has_undone_or_rejected_stays_so(labelled):
    dirty, _, done, cells, told = labelled
    config = RepairConfig(alpha=ALPHA)
    after = repair_by_labels(dirty, done, CONTRACT, told, config, cells)
    mine = after.changes.filter(pl.col("rule").is_in(["labelled", RULE]))
    undone = mine.with_columns(decision=pl.lit("undone"), after="before", repairable=True)
    again = repair_by_labels(dirty, done, CONTRACT, told, config, cells, decided(undone))
    assert again.frame.equals(done.frame)
    assert again.changes.equals(done.changes)
    strict = repair_by_labels(dirty, done, CONTRACT, told, cells=cells)
    waiting = strict.review.filter(pl.col("rule") == RULE)
    rejected = waiting.with_columns(
        decision=pl.lit("rejected"), before="observed", after="suggestion"
    )
    left = repair_by_labels(
        dirty, done, CONTRACT, told, cells=cells, decisions=decided(rejected)
    ).review
    assert waiting.height > 0
    assert left.filter(pl.col("rule") == RULE).is_empty()


def decided(cells):
    """Return decisions on cells."""
    whole = pl.concat([no_decisions(), cells], how="diagonal_relaxed")
    return whole.select(no_decisions().columns)


def test_without_labels_and_with_too_few_nothing_is_changed_elsewhere(labelled):
    dirty, truth, done, cells, told = labelled
    nothing = LabelledRows(np.empty(0, np.int64), truth[[]])
    assert repair_by_labels(dirty, done, CONTRACT, nothing) is done
    after = repair_by_labels(dirty, done, CONTRACT, told, cells=cells)
    # Some ninety correct cells cannot show that less than one in a hundred is harmed.
    assert RULE not in after.bounds
    assert RULE in set(after.review["rule"])
    assert set(after.changes["rule"]) - set(done.changes["rule"]) <= {"labelled"}


def test_a_rule_that_labels_refute_is_taken_back():
    dirty = pl.DataFrame({"size": ["5 kg", "6"] * 30, "town": ["a", "b"] * 30,
                          "number": [str(i) for i in range(60)]})  # fmt: skip
    contract = from_toml(
        "[columns.size]\nkind = 'decimal'\nunit_spellings = ['kg']\n"
        "[columns.town]\n[columns.number]"
    )
    done = repair(dirty, contract)
    assert done.frame["size"][0] == "5"
    told = LabelledRows(np.array([0, 2, 4]), dirty[[0, 2, 4]])
    cells = cells_of(dirty, done, contract)
    assert refuted_rules(cells, told) == [("size", "unit")]
    assert repair_by_labels(dirty, done, contract, told).frame.equals(dirty)


def test_rows_asked_for_together_are_not_alike(labelled):
    dirty, _, _, cells, all_told = labelled
    told = all_told.without(np.arange(40) >= 3)
    chance = probabilities(cells, told)
    rows = next_rows(cells, chance, told.rows, 5)
    assert len(set(rows.tolist()) | set(told.rows.tolist())) == 8
    assert len(next_rows(cells, chance, told.rows, 10_000)) == dirty.height - 3
    with pytest.raises(ValueError, match="every row has a label"):
        next_row(chance, np.arange(dirty.height))


@pytest.mark.parametrize(
    ("before", "after", "cut"),
    [
        ("12.0 oz. can", "12", Cut(" oz. can", tidy=True)),
        ("0.05%", "0.05", Cut("%")),
        ("Bend OR", "Bend", Cut(" OR")),
        ("nr. 417", "417", Cut("nr. ", tail=False)),
        ("abc", "xyz", None),
    ],
)
def test_cuts(before, after, cut):
    assert cut_of(before, after) == cut
    if cut is not None:
        assert cut(before) == after


@given(st.text(max_size=12), st.text(max_size=12))
def test_a_cut_makes_the_right_text_of_the_wrong_one(before, after):
    cut = cut_of(before, after) if before != after else None
    assert cut is None or cut(before) in {after, None}


def test_what_would_change_a_right_text_is_not_learned():
    cuts = learned([("5 kg", "5")], ["7 kg"], frozenset(), {})
    assert cuts.suggest("6 kg") is None
    assert learned([("5 kg", "5")], ["7"], frozenset(), {}).suggest("6 kg") == ("cut", "6")


def test_stand_ins_are_looked_up_and_lost_digits_are_not():
    found = standins([("b#ad", "bead"), ("#oad", "road"), ("be#t", "beat"), ("cat", "cab")])
    assert found == {"#"}
    known = learned([], [], found, {"new road": 9, "12 roads": 3, "15 roads": 3, "old lane": 5})
    assert known.suggest("new ro#d") == ("stand-in", "new road")
    assert known.suggest("old ro#d") == ("stand-in", "old road")
    assert known.suggest("1# roads") is None  # 12 or 15
    assert known.suggest("77 road#") == ("stand-in", "77 roads")
    assert known.suggest("new road") is None


def test_labels_that_do_not_fit_are_refused():
    frame = pl.DataFrame({"a": ["1"]})
    with pytest.raises(ValueError, match="2 labelled rows have 1 truths"):
        LabelledRows(np.array([0, 1]), frame)
    with pytest.raises(ValueError, match="labelled twice"):
        LabelledRows(np.array([0, 0]), pl.concat([frame, frame]))


def test_references_are_no_hindrance(labelled):
    dirty, _, done, cells, _ = labelled
    referring = replace(CONTRACT, references=(Reference(("town",), "towns.csv", ("name",)),))
    assert (cells_of(dirty, done, referring).doubted == cells.doubted).all()
