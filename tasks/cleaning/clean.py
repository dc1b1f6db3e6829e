"""Clean a table: repair it, check it against its contract, set aside what stays bad.

Rows in = clean rows (repaired ones among them) + quarantined rows, always; a merged duplicate is
quarantined with ``duplicate-of``. A row is quarantined once, under the first declared rule that it
breaks; the payload is the row as it came, before any repair. A row that breaks an inferred line
only stays and is shown for review: nobody has vouched for the line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from tasks.cleaning.contract.model import Contract, ContractError
from tasks.cleaning.contract.rules import RowRule, row_rules
from tasks.cleaning.contract.table_checks import label_noise, require_fresh
from tasks.cleaning.contract.verdicts import verdicts
from tasks.cleaning.doubts import ReviewConfig, doubts_about, queue_of
from tasks.cleaning.duplicates.exact import first_equal_rows
from tasks.cleaning.duplicates.rows import merged_rows
from tasks.cleaning.findings import findings_of, joined
from tasks.cleaning.quarantine import Rule, empty_quarantine, quarantine_rows
from tasks.cleaning.repair.bound import HarmBound
from tasks.cleaning.repair.changes import no_changes
from tasks.cleaning.repair.decisions import no_decisions, undecided
from tasks.cleaning.repair.engine import RepairConfig, Repaired, repair

if TYPE_CHECKING:
    from tasks.cleaning.active.learner import LabelledRows

VERSION = "clean/1"
Mask = NDArray[np.bool_]


class QuarantineLimitError(ValueError):
    """More rows are bad than the contract allows: the contract or the delivery is wrong."""


@dataclass(frozen=True, slots=True)
class CleanConfig:
    """How a run works.

    Attributes:
        repair: How far repairs go by themselves.
        repairs: Whether anything is repaired at all.
        drop_copies: Whether rows that equal an earlier one in every column are quarantined.
        fresh: Whether the table must be as recent as its contract says; not so when it is cleaned
            again later.
        review: What is looked for beyond the contract, for a person.
    """

    repair: RepairConfig = field(default_factory=RepairConfig)
    repairs: bool = True
    drop_copies: bool = True
    fresh: bool = True
    review: ReviewConfig = field(default_factory=ReviewConfig)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a run made of a table.

    Attributes:
        frame: Clean rows as texts, in their order.
        rows: int64 [clean rows] number of each in its source.
        quarantine: Records of the rows set aside, in order of rows.
        changes: Every change, of quarantined rows too.
        review: Findings for a person, on clean rows.
        counts: Rows in, clean, repaired and quarantined; quarantined rows by rule; findings beyond
            those kept by rule (``unlisted:``).
        bounds: By rule, the bound on harm of every rule that changed something.
        promised_harm: Share of the correct filled cells that votes and typos changed at most.
        fixed: Whether the repair came to rest.
        notes: What was not looked for, and why.
    """

    frame: pl.DataFrame
    rows: pl.Series
    quarantine: pa.Table
    changes: pl.DataFrame
    review: pl.DataFrame
    counts: Mapping[str, int]
    bounds: Mapping[str, HarmBound]
    promised_harm: float
    fixed: bool
    notes: tuple[str, ...] = ()


def clean(
    frame: pl.DataFrame,
    contract: Contract,
    source: str,
    config: CleanConfig | None = None,
    *,
    labels: LabelledRows | None = None,
    rows: NDArray[np.int64] | None = None,
    now: datetime | None = None,
    tables: Mapping[str, pl.DataFrame] | None = None,
    decisions: pl.DataFrame | None = None,
) -> Cleaned:
    """Clean a table.

    Args:
        frame: Texts, one column for each of the contract's.
        contract: What it must look like.
        source: Name of the file, for records.
        config: How.
        now: The present, with its zone: for records, and to tell how old the table is.
        tables: By name, the other tables that the contract's references name; texts.
        decisions: What a person decided about its cells (``repair/decisions.py``).
        labels: Rows whose right values somebody told.
        rows: int64 [rows] number of each in its source, where a text names one; from 0 if None.

    Raises:
        ContractError: When columns are missing or too many, the number of rows is out of bounds, a
            table of a reference is not there, the newest date is too old (``StaleTableError``) or
            too many labels are wrong (``LabelNoiseError``).
        QuarantineLimitError: When more rows are bad than the contract allows.
    """
    config, now = config or CleanConfig(), now or datetime.now(UTC)
    require_shape(frame, contract)
    numbers = np.arange(frame.height) if rows is None else rows
    decisions = no_decisions() if decisions is None else decisions
    repaired = _repaired(frame, contract, config, decisions, labels, tables)
    if config.fresh:
        require_fresh(repaired.frame, contract, now)
    across = config.repair.across_rows
    first = np.arange(frame.height)
    if config.drop_copies and across:
        first = first_equal_rows(repaired.frame)
    rules = row_rules(contract, tables)
    broken, shown = judged(repaired.frame, rules, contract, first)
    quarantine, bad = set_aside(
        frame, repaired.frame, broken, source, contract, now, first=numbers[first]
    )
    near = contract.duplicates if across else None
    merged = merged_rows(
        frame, repaired, ~bad, near, numbers, source, now, rules=rules, decisions=decisions
    )
    repaired, quarantine = merged.repaired, pa.concat_tables([quarantine, merged.records])
    bad[merged.rows] = True
    kept = np.flatnonzero(~bad)
    require_few_bad(int(bad.sum()), frame.height, contract, source, _most(quarantine))
    clean_rows = repaired.frame[kept.tolist()]
    found, notes = joined([]), list[str]()
    if across:
        found, notes = doubts_about(clean_rows, kept, contract, config.review)
        noise = label_noise(clean_rows, contract)
        found = joined([found, noise.with_columns(row=pl.lit(int(kept[:1].sum()), pl.Int64))])
    here = pl.col("row").is_in(pl.Series(kept).implode())
    parts = [repaired.review, *(undecided(p, decisions) for p in (shown, merged.findings, found))]
    queue = queue_of([part.filter(here) for part in parts], config.review, [*merged.notes, *notes])
    counts = counted(frame.height, kept, quarantine, repaired.changes)
    counts |= {f"unlisted:{rule}": n for rule, n in queue.unlisted.items()}
    return Cleaned(
        clean_rows,
        pl.Series("row", kept, pl.Int64),
        quarantine.sort_by("row"),
        repaired.changes,
        queue.findings,
        counts,
        repaired.bounds,
        repaired.promised_harm,
        repaired.fixed,
        queue.notes,
    )


COPY = RowRule(
    name="duplicate-of",
    column="",
    expected="a row that occurs once",
    broken=pl.lit(value=False),
    sql="",
    declared=True,
)


def require_shape(frame: pl.DataFrame, contract: Contract) -> None:
    """Refuse a table that is not of the contract's kind at all.

    Raises:
        ContractError: With the columns or the number of rows at fault.
    """
    require_columns(frame.columns, contract)
    require_rows(frame.height, contract)


def require_columns(columns: Sequence[str], contract: Contract) -> None:
    """Refuse other columns than the contract's.

    Raises:
        ContractError: With the columns at fault.
    """
    missing = [name for name in contract.columns if name not in columns]
    extra = [name for name in columns if name not in contract.columns]
    if missing:
        raise ContractError(
            f"columns {', '.join(missing)} are missing; the table has {', '.join(columns)}"
        )
    if extra and not contract.extra_columns:
        raise ContractError(
            f"columns {', '.join(extra)} are not in contract {contract.name!r}; name them there or "
            "set extra_columns = true"
        )


def require_rows(rows: int, contract: Contract) -> None:
    """Refuse a table that is too short or too long.

    Raises:
        ContractError: With the number of rows.
    """
    if rows < contract.min_rows or 0 < contract.max_rows < rows:
        raise ContractError(
            f"{rows:,} rows; contract {contract.name!r} asks for {contract.min_rows:,} to "
            f"{contract.max_rows or 'any number of'}"
        )


def require_few_bad(bad: int, rows: int, contract: Contract, source: str, most: str) -> None:
    """Refuse a result that sets more rows aside than the contract allows.

    Args:
        bad: Rows that were set aside.
        rows: Rows that came in.
        contract: The contract.
        source: Name of the file.
        most: The rule that most of them break.

    Raises:
        QuarantineLimitError: With the numbers.
    """
    if rows and bad / rows > contract.max_quarantine_share:
        raise QuarantineLimitError(
            f"{source}: {bad:,} of {rows:,} rows are bad, more than the allowed "
            f"{contract.max_quarantine_share:.0%}; most break {most}. Mend the contract, or raise "
            "max_quarantine_share"
        )


def _repaired(
    frame: pl.DataFrame,
    contract: Contract,
    config: CleanConfig,
    decisions: pl.DataFrame,
    labels: LabelledRows | None,
    tables: Mapping[str, pl.DataFrame] | None,
) -> Repaired:
    if not config.repairs:
        return Repaired(frame, no_changes(), joined([]), {}, fixed=True)
    done = repair(frame, contract, config.repair, decisions, tables)
    if labels is None:
        return done
    from tasks.cleaning.active.repair import repair_by_labels

    return repair_by_labels(frame, done, contract, labels, config.repair, decisions=decisions)


def judged(
    frame: pl.DataFrame,
    rules: Iterable[RowRule],
    contract: Contract,
    first: NDArray[np.int64] | None = None,
) -> tuple[list[tuple[RowRule, Mask]], pl.DataFrame]:
    """Return the rows that break each declared rule, and findings of the inferred ones.

    Args:
        frame: Texts, after repair.
        rules: Of ``row_rules``.
        contract: Where they come from.
        first: int64 [rows] the first row that is equal to each; None where copies are no fault.
    """
    rules = list(rules)
    copies = np.zeros(frame.height, bool) if first is None else first != np.arange(frame.height)
    told = verdicts(frame, rules, ~pl.lit(pl.Series(copies))).collect()
    broken, shown = [(COPY, copies)], []
    for i, rule in enumerate(rules):
        mask = told[f"{i}"].to_numpy()
        if rule.declared:
            broken.append((rule, mask))
        elif mask.any():
            rows = np.flatnonzero(mask)
            cells = pl.DataFrame({"row": rows, "observed": frame[rule.column].gather(rows)})
            sure = contract.columns[rule.column].confidence.get(rule.name.split(":")[0], 0.5)
            shown.append(
                findings_of(
                    cells,
                    column=rule.column,
                    rule=rule.name,
                    expected=rule.expected,
                    premise="inferred, not declared",
                    confidence=min(sure, 0.5),
                    detector_version=f"{VERSION} {contract.detector_version}",
                )
            )
    return broken, joined(shown)


def set_aside(
    frame: pl.DataFrame,
    repaired: pl.DataFrame,
    broken: list[tuple[RowRule, Mask]],
    source: str,
    contract: Contract,
    now: datetime,
    *,
    first: NDArray[np.int64] | None = None,
) -> tuple[pa.Table, Mask]:
    """Return the records, each row under the first rule that it breaks, and which rows are bad.

    Args:
        frame: Texts as they came.
        repaired: Texts after repair.
        broken: Rules with the rows that break each [rows].
        source: Name of the file, for records.
        contract: What the rules come from.
        now: The present, for records.
        first: int64 [rows] number in the source of the first row that is equal to each, if known.
    """
    bad = np.zeros(frame.height, bool)
    parts = [empty_quarantine()]
    original = frame.to_arrow() if any(mask.any() for _, mask in broken) else None
    for rule, mask in broken:
        new = mask & ~bad
        if original is None or not new.any():
            continue
        record = Rule(
            rule.name,
            rule.expected,
            severity="warning" if rule.name == COPY.name else "error",
            detector_version=f"{VERSION} {contract.detector_version}",
        )
        expected = None
        if rule is COPY and first is not None:
            expected = [f"{rule.expected}; equal to row {row}" for row in first[new]]
        part = quarantine_rows(original, new, record, source=source, expected=expected, time=now)
        if rule.column:
            # The payload is the row as it came; what the rule saw is the repaired value.
            seen = repaired[rule.column].gather(np.flatnonzero(new)).to_arrow().cast(pa.string())
            at = part.schema.get_field_index("observed")
            part = part.set_column(at, part.schema.field(at), seen)
            at = part.schema.get_field_index("column")
            part = part.set_column(at, part.schema.field(at), pa.repeat(rule.column, len(part)))
        parts.append(part)
        bad |= new
    return pa.concat_tables(parts).sort_by("row"), bad


def counted(
    rows: int, kept: NDArray[np.int64], quarantine: pa.Table, changes: pl.DataFrame
) -> dict[str, int]:
    """Return rows in, clean, repaired and quarantined, and quarantined rows by rule.

    Raises:
        AssertionError: When a row was lost or doubled.
    """
    repaired = set(changes["row"].unique().to_list()) & set(kept.tolist())
    by_rule = dict(
        pl.Series(quarantine["rule"].to_pylist(), dtype=pl.String).value_counts().iter_rows()
    )
    if rows != len(kept) + quarantine.num_rows:
        raise AssertionError(
            f"{rows} rows came in, {len(kept)} are clean and {quarantine.num_rows} quarantined"
        )
    return {
        "rows_in": rows,
        "clean": len(kept),
        "repaired": len(repaired),
        "quarantined": quarantine.num_rows,
        **{f"quarantined:{rule}": n for rule, n in sorted(by_rule.items())},
    }


def _most(quarantine: pa.Table) -> str:
    counts = pl.Series(quarantine["rule"].to_pylist(), dtype=pl.String).value_counts(sort=True)
    return str(counts[0, 0]) if counts.height else ""
