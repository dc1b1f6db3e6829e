"""What a person decided about single cells, kept so that it outlives a cleaning anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from tasks.cleaning.findings import findings_of, no_findings
from tasks.cleaning.repair.changes import held

DECISIONS: Mapping[str, Any] = {
    "time": pl.Datetime("us", "UTC"),
    "user": pl.String,  # "" where the environment names nobody
    "decision": pl.String,  # one of the three below
    "row": pl.Int64,  # number of the row in its source, from 0
    "column": pl.String,
    "rule": pl.String,  # of the change or the finding
    "before": pl.String,  # what the cell held; null: missing
    "after": pl.String,  # undone, accepted: what it holds since; rejected: what was suggested
    "repairable": pl.Boolean,  # rejected: whether anything was suggested
}
"""Polars schema of decisions, in the order in which they were taken."""

ACCEPTED, REJECTED, UNDONE = "accepted", "rejected", "undone"
VERSION = "person/1"


def no_decisions() -> pl.DataFrame:
    """Return a frame of ``DECISIONS`` without rows."""
    return pl.DataFrame(schema=dict(DECISIONS))


def settled(decisions: pl.DataFrame) -> pl.DataFrame:
    """Return the decisions that say what a cell holds: for every cell the last one."""
    said = decisions.filter(pl.col("decision") != REJECTED)
    return said.unique(["row", "column"], keep="last", maintain_order=True)


def accepted_again(frame: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """Return findings that carry out what was accepted, where the cell holds what it held then.

    Args:
        frame: Texts, its rows numbered from 0 as the decisions are.
        decisions: Of ``DECISIONS``.
    """
    ours = settled(decisions).filter(pl.col("decision") == ACCEPTED)
    ours = ours.filter(held(frame, ours).eq_missing(ours["before"]))
    if ours.is_empty():
        return no_findings()
    return findings_of(
        ours.select(
            "row",
            "column",
            pl.format("accepted:{}", "rule").alias("rule"),
            pl.col("before").alias("observed"),
            pl.col("after").alias("suggestion"),
        ),
        repairable=True,
        expected="what a person accepted",
        premise="accepted by a person",
        confidence=1.0,
        detector_version=VERSION,
    )


def undecided(findings: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """Leave out what a person has decided.

    That is every finding on a cell that holds what somebody chose for it, and a rejected
    suggestion, whichever rule makes it. Without a suggestion the rule counts.
    """
    if decisions.is_empty():
        return findings
    cell = ["row", "column", "observed"]
    chosen = settled(decisions).select("row", "column", pl.col("after").alias("observed"))
    left = findings.join(chosen, on=cell, how="anti", nulls_equal=True)
    by = pl.when("repairable").then(pl.lit("")).otherwise("rule").alias("_by")
    given = ["row", "column", "before", "after"]
    accepted = decisions.filter(pl.col("decision") == ACCEPTED)  # by another rule, later
    rejected = decisions.filter(pl.col("decision") == REJECTED)
    rejected = rejected.join(accepted, on=given, how="anti", nulls_equal=True).select(
        "row",
        "column",
        pl.col("before").alias("observed"),
        pl.col("after").alias("suggestion"),
        "repairable",
        by,
    )
    same = [*cell, "suggestion", "repairable", "_by"]
    left = left.with_columns(by).join(rejected, on=same, how="anti", nulls_equal=True)
    return left.drop("_by")
