"""Decisions about single cells: what they make the repair do, and not do."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from tasks.cleaning.contract.toml import from_toml
from tasks.cleaning.findings import FINDINGS
from tasks.cleaning.repair.decisions import DECISIONS, accepted_again, settled, undecided
from tasks.cleaning.repair.engine import repair

WEIGHTS = from_toml("[columns.weight]\nkind='decimal'\nunit_spellings=['kg']")


def said(*rows):
    """Decisions: what, row, before, after; on column ``weight``."""
    return pl.DataFrame(
        [
            (datetime(2026, 1, 1, tzinfo=UTC), "", what, row, "weight", "typo", before, after, True)
            for what, row, before, after in rows
        ],
        schema=dict(DECISIONS),
        orient="row",
    )


def found(*rows):
    """Findings: row, observed, suggestion, whether there is one."""
    return pl.DataFrame(
        [
            (row, "weight", "typo", held, new, able, "", "", 0.5, "t/1")
            for row, held, new, able in rows
        ],
        schema=dict(FINDINGS),
        orient="row",
    )


def test_of_several_decisions_about_a_cell_the_last_holds():
    both = said(("accepted", 0, "a", "b"), ("undone", 0, "b", "a"), ("rejected", 0, "a", "c"))
    assert settled(both).select("decision", "after").rows() == [("undone", "a")]


def test_what_was_accepted_is_carried_out_where_the_cell_holds_what_it_held():
    frame = pl.DataFrame({"weight": ["a", "x", None]})
    accepted = said(
        ("accepted", 0, "a", "b"), ("accepted", 1, "a", "b"), ("accepted", 2, None, "c")
    )
    again = accepted_again(frame, accepted)
    assert again.select("row", "suggestion", "rule").rows() == [
        (0, "b", "accepted:typo"),
        (2, "c", "accepted:typo"),
    ]
    assert repair(frame, WEIGHTS, decisions=accepted).frame["weight"].to_list() == ["b", "x", "c"]


def test_a_cell_that_was_put_back_is_left_as_it_is():
    frame = pl.DataFrame({"weight": ["5 kg", "6 kg"]})
    done = repair(frame, WEIGHTS, decisions=said(("undone", 0, "5", "5 kg")))
    assert done.frame["weight"].to_list() == ["5 kg", "6"]
    assert done.review.is_empty()
    # Where the cell holds something else, the decision says nothing.
    done = repair(frame, WEIGHTS, decisions=said(("undone", 0, "7", "7 kg")))
    assert done.frame["weight"].to_list() == ["5", "6"]


def test_a_rejected_suggestion_is_not_made_by_any_rule():
    rejected = said(("rejected", 0, "a", "b"))
    findings = found((0, "a", "b", True), (0, "a", "c", True), (1, "a", "b", True))
    left = undecided(findings.with_columns(rule=pl.lit("dependency:x")), rejected)
    assert left.select("row", "suggestion").rows() == [(0, "c"), (1, "b")]


def test_without_a_suggestion_the_rule_was_rejected():
    rejected = said(("rejected", 0, "a", None)).with_columns(repairable=pl.lit(value=False))
    findings = found((0, "a", None, False), (0, "a", None, True))
    assert undecided(findings, rejected)["repairable"].to_list() == [True]
    other = findings.with_columns(rule=pl.lit("pattern:weight"))
    assert undecided(other, rejected).height == 2
