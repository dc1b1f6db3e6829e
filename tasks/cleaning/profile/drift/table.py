"""A table beside a reference: one verdict per column, one for the table, and per segment.

Every aspect of every column is tested; the p-values of all are corrected together (Holm), so that
``alpha`` is the probability that a table without drift alarms at all. An aspect alarms where its
corrected p is at most ``alpha`` *and* its effect reaches the floor: what is sure but small is told
as ``slight``. PSI and Jensen-Shannon divergence stand beside and decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tasks.cleaning.contract.model import ColumnContract, Contract
from tasks.cleaning.profile.drift.columns import Check, DriftConfig, checks, moves
from tasks.cleaning.profile.drift.statistics import holm, smallest_gap
from tasks.cleaning.profile.table import plain
from tasks.cleaning.profile.values import Values, read_values

DRIFT: Mapping[str, Any] = {
    "segment": pl.String,  # null: the whole table
    "column": pl.String,
    "aspect": pl.String,  # values, shapes, unseen, missing, unreadable, column
    "verdict": pl.String,  # drifted, slight, stable, untested
    "test": pl.String,
    "effect": pl.Float64,  # size of the difference, 0..1
    "floor": pl.Float64,  # least effect that alarms
    "p": pl.Float64,
    "p_corrected": pl.Float64,
    "psi": pl.Float64,
    "js": pl.Float64,  # bits
    "reference": pl.String,  # what the reference shows, for people
    "current": pl.String,  # what the table shows; why nothing was tested
}
"""Polars schema of what drift finds: one row per aspect of a column."""

ORDER = ("drifted", "slight", "stable", "untested")
"""Verdicts, the gravest first."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a table has drifted.

    Attributes:
        findings: Frame of ``DRIFT``, the gravest first.
        columns: Column -> its verdict, in the table's order, lost columns last.
        reference_rows: Rows of the reference that were looked at.
        current_rows: Rows of the table.
        alpha: Probability of any alarm without drift.
        visible: Least gap between distributions that could have been told from chance in a column
            that is filled everywhere.
        segment: Column whose values were looked at one by one, "" for none.
    """

    findings: pl.DataFrame
    columns: Mapping[str, str]
    reference_rows: int
    current_rows: int
    alpha: float
    visible: float
    segment: str = ""

    @property
    def verdict(self) -> str:
        """Verdict on the table: the gravest of its columns."""
        said = set(self.columns.values())
        return next((one for one in ORDER if one in said), "untested")

    def as_record(self) -> dict[str, Any]:
        """Return everything as values of strict JSON."""
        return {
            "verdict": self.verdict,
            "columns": dict(self.columns),
            "reference_rows": self.reference_rows,
            "current_rows": self.current_rows,
            "alpha": self.alpha,
            "visible": self.visible,
            "segment": self.segment,
            "findings": plain(self.findings.to_dicts()),
        }


def drift(
    reference: pl.DataFrame,
    current: pl.DataFrame,
    config: DriftConfig | None = None,
    *,
    contract: Contract | None = None,
) -> Drift:
    """Compare a table with a reference.

    Args:
        reference: Texts; what the table should look like.
        current: Texts.
        config: What counts.
        contract: What columns hold; inferred from the reference if None.

    Returns:
        Verdicts; columns on one side alone count as drift, without a test.
    """
    config = config or DriftConfig()
    lines = dict(contract.columns) if contract else {}
    read = _read_both(reference, current, lines)
    tested = [(None, name, check) for name, both in read.items() for check in checks(*both, config)]
    alone = [
        *_alone(current.columns, reference.columns, "", "not in the reference"),
        *_alone(reference.columns, current.columns, "in the reference", "gone"),
    ]
    findings = _judged([*tested, *alone], config.alpha)
    grave = {one: i for i, one in enumerate(ORDER)}
    verdicts: dict[str, str] = {}
    for name, verdict in findings.select("column", "verdict").iter_rows():
        if grave[verdict] < grave.get(verdicts.get(name, ""), len(ORDER)):
            verdicts[name] = verdict
    names = [*current.columns, *(n for n in reference.columns if n not in current.columns)]
    number = sum(one.possible for _, _, check in tested if (one := check.outcome) is not None)
    return Drift(
        findings,
        {name: verdicts.get(name, "untested") for name in names},
        reference.height,
        current.height,
        config.alpha,
        smallest_gap(reference.height, current.height, config.alpha / (2 * number))
        if number and reference.height and current.height
        else 1.0,
    )


def drift_by_segment(
    reference: pl.DataFrame,
    current: pl.DataFrame,
    segment: str,
    config: DriftConfig | None = None,
    *,
    contract: Contract | None = None,
    most: int = 20,
) -> pl.DataFrame:
    """Compare every large segment of a table with the same segment of the reference.

    Args:
        reference: Texts.
        current: Texts.
        segment: Column whose values part the rows; new and lost ones show in its own column.
        config: What counts; ``alpha`` holds for all segments and columns together.
        contract: What columns hold; inferred from the reference if None.
        most: Most segments, the largest first.

    Returns:
        Frame of ``DRIFT``, the gravest first.

    Raises:
        ValueError: When a table lacks the column.
    """
    config = config or DriftConfig()
    for side, frame in (("reference", reference), ("table", current)):
        if segment not in frame.columns:
            raise ValueError(
                f"column {segment!r} is not in the {side}; there are {', '.join(frame.columns)}"
            )
    lines = dict(contract.columns) if contract else {}
    # What names rows or moves in the whole table does so in every segment.
    read = _read_both(reference.drop(segment), current.drop(segment), lines)
    read = {name: both for name, both in read.items() if not moves(*both)}
    shared = list(read)
    lines = {name: both[0].line for name, both in read.items()}
    tested = []
    for value in _segments(reference[segment], current[segment], config.least_rows, most):
        usual, now = (
            frame.filter(pl.col(segment) == value).select(shared) for frame in (reference, current)
        )
        for name, both in _read_both(usual, now, lines).items():
            tested += [(value, name, check) for check in checks(*both, config)]
    return _judged(tested, config.alpha)


def _segments(reference: pl.Series, current: pl.Series, least: int, most: int) -> list[str]:
    """Return the values that hold enough rows on both sides, the largest first."""
    counts = [
        one.drop_nulls().alias("value").value_counts(name="rows") for one in (reference, current)
    ]
    both = counts[0].join(counts[1], on="value")
    large = both.filter((pl.col("rows") >= least) & (pl.col("rows_right") >= least))
    ordered = large.sort("rows_right", "value", descending=[True, False])
    return [str(value) for value in ordered.head(most)["value"]]


def _read_both(
    reference: pl.DataFrame, current: pl.DataFrame, lines: Mapping[str, ColumnContract]
) -> dict[str, tuple[Values, Values]]:
    """Read the columns of both tables as the reference's hold; where empty, as the other's do."""
    read = {}
    for name in current.columns:
        if name not in reference.columns:
            continue
        first = read_values(reference[name], lines.get(name))
        line = lines.get(name) or (first.line if first.filled else None)
        second = read_values(current[name], line)
        if line is None:
            first = read_values(reference[name], second.line)
        read[name] = (first, second)
    return read


def _alone(
    columns: Sequence[str], others: Sequence[str], reference: str, current: str
) -> list[tuple[None, str, Check]]:
    return [
        (None, name, Check("column", None, 0.0, reference, current))
        for name in columns
        if name not in others
    ]


def _judged(tested: Sequence[tuple[str | None, str, Check]], alpha: float) -> pl.DataFrame:
    """Return the findings of all checks, their p-values corrected together."""
    p = [one.p for _, _, check in tested if (one := check.outcome) is not None and one.possible]
    corrected = iter(holm(np.array(p, np.float64)).tolist())
    rows = []
    for segment, name, check in tested:
        row: dict[str, Any] = {
            "segment": segment,
            "column": name,
            "aspect": check.aspect,
            "verdict": "drifted" if check.aspect == "column" else "untested",
            "reference": check.reference,
            "current": check.current,
        }
        if check.outcome is not None:
            one = check.outcome
            sure = next(corrected) if one.possible else 1.0
            verdict = "stable"
            if sure <= alpha:
                verdict = "drifted" if one.effect >= check.floor else "slight"
            row |= {
                "verdict": verdict,
                "test": one.test,
                "effect": one.effect,
                "floor": check.floor,
                "p": one.p,
                "p_corrected": sure,
                "psi": one.psi,
                "js": one.js,
            }
        rows.append(row)
    frame = pl.DataFrame(rows, schema=dict(DRIFT), orient="row")
    grave = pl.col("verdict").replace_strict({one: i for i, one in enumerate(ORDER)})
    keys = [grave, pl.col("effect").fill_null(1.0)]
    return frame.sort(keys, descending=[False, True], maintain_order=True)
