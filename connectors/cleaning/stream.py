"""A cleaning run over a file of any size, in batches and bounded memory.

Rows are cleaned one by one (``tasks/cleaning/rows.py``), so the results are those of a run over the
whole table with the same contract; they are published in the same folder, by the same one rename.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from pyarrow import parquet

from connectors.cleaning.outputs import OutputFormat, OutputWriter, outputs
from connectors.cleaning.pipeline import Behind, ahead
from connectors.cleaning.run import (
    CHANGES,
    CONTRACT,
    REPORT,
    REVIEW,
    RUN,
    read_references,
    without_empty,
)
from connectors.tables import read_batches
from tasks.cleaning.clean import CleanConfig, Cleaned, require_few_bad, require_rows
from tasks.cleaning.contract.infer import infer
from tasks.cleaning.contract.model import Contract
from tasks.cleaning.contract.toml import to_toml
from tasks.cleaning.findings import no_findings
from tasks.cleaning.ingest.options import ReadOptions, TableBatch
from tasks.cleaning.quarantine import empty_quarantine
from tasks.cleaning.repair.changes import no_changes
from tasks.cleaning.report.render import (
    MAX_PER_COLUMN,
    MAX_QUARANTINE,
    MAX_REVIEW,
    build_report,
    page_of,
)
from tasks.cleaning.rows import RowCleaner, across_rows, without_across_rows

REFERENCE_ROWS = 100_000
"""Rows from which a contract is inferred where none is given: the first of the file."""
Progress = Callable[[int, int], None]
"""Called with rows read and rows quarantined so far."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Streamed:
    """What a streamed run has met so far.

    Attributes:
        counts: Rows in, clean, repaired and quarantined; quarantined rows by rule.
        changed: Changes by column.
        cells: Changed cells.
        reviews: Findings for review.
        bad: Rows that a rule of the contract set aside, those that could not be read apart.
        fixed: Whether every repair came to rest.
    """

    counts: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    cells: int = 0
    reviews: int = 0
    bad: int = 0
    fixed: bool = True

    def add(self, batch: TableBatch, done: Cleaned) -> None:
        """Count one more batch."""
        unread = batch.quarantine.num_rows
        self.counts.update(done.counts)
        self.counts.update({"rows_in": unread, "quarantined": unread})
        self.counts.update(f"quarantined:{rule}" for rule in batch.quarantine["rule"].to_pylist())
        self.changed.update(dict(done.changes["column"].value_counts().iter_rows()))
        self.cells += done.changes.select("row", "column").n_unique()
        self.reviews += done.review.height
        self.bad += done.counts["quarantined"]
        self.fixed &= done.fixed


def clean_stream(
    path: Path,
    folder: Path,
    contract: Contract | None = None,
    *,
    config: CleanConfig | None = None,
    kind: OutputFormat = "parquet",
    options: ReadOptions | None = None,
    now: datetime | None = None,
    tables: Path | None = None,
    progress: Progress | None = None,
) -> Streamed:
    """Clean a file in batches and publish the results.

    Args:
        path: Any file that ``connectors.tables`` reads.
        folder: Folder of the run; what was published there before is replaced in one step.
        contract: What each row must look like, without lines that look at other rows; if None it is
            inferred from the first ``REFERENCE_ROWS`` rows, such lines left out.
        config: How to clean; ``repair.across_rows`` is taken as off.
        kind: Format of the clean rows.
        options: What is known of the file.
        now: The present, for records.
        tables: Folder of the other tables that the contract's references name; the file's if None.
        progress: Told after every batch.

    Raises:
        TableReadError: When the file cannot be read at all; nothing is published.
        ContractError: When the table is not of the contract's kind, or the contract has lines that
            look at other rows.
        QuarantineLimitError: When too many rows are bad.
    """
    config, now = config or CleanConfig(), now or datetime.now(UTC)
    config = replace(config, repair=replace(config.repair, across_rows=False))
    options = options or ReadOptions(time=now)
    inferred = contract is None
    contract = contract or reference_contract(path, options)
    folder_of_tables = (tables or path.parent).resolve()
    cleaner = RowCleaner(contract, config, read_references(contract, folder_of_tables))
    facts = {
        "source": path.name,
        "inferred": inferred,
        "alpha": config.repair.alpha,
        "repairs": config.repairs,
        "across_rows": False,
        "tables": str(folder_of_tables),
    }
    with outputs(folder, path.name, kind) as writer:
        sinks = _Sinks(writer)
        seen = Streamed()
        with Behind() as behind:
            for batch in ahead(read_batches(path, options)):
                done = cleaner.clean(without_empty(batch.frame), batch.rows, path.name, now)
                seen.add(batch, done)
                behind(sinks.write, batch, done)
                if progress is not None:
                    progress(seen.counts["rows_in"], seen.counts["quarantined"])
        rows = seen.counts["clean"] + seen.bad
        require_rows(rows, contract)
        require_few_bad(seen.bad, rows, contract, path.name, _most(seen.counts))
        sinks.close()
        _attach(writer, sinks, seen, contract, facts, str(folder), now)
    return seen


def reference_contract(path: Path, options: ReadOptions) -> Contract:
    """Infer a contract from the first rows of a file; lines that look at other rows are left out.

    Raises:
        TableReadError: When the file cannot be read at all.
    """
    frames, rows = [], 0
    for batch in read_batches(path, options):
        frames.append(batch.frame)
        rows += batch.frame.height
        if rows >= REFERENCE_ROWS:
            break
    reference = infer(without_empty(pl.concat(frames).head(REFERENCE_ROWS)), path.stem)
    if left := across_rows(reference):
        log.info("left out of the contract, since rows stream through: %s", ", ".join(left))
    return without_across_rows(reference)


class _Sinks:
    """Writes batches, and keeps the first rows of each for the page."""

    def __init__(self, writer: OutputWriter) -> None:
        self._writer = writer
        self._changes = _Growing(writer.attach(CHANGES), no_changes())
        self._review = _Growing(writer.attach(REVIEW), no_findings())
        self._order = 0
        self.head: dict[str, list[pl.DataFrame]] = {"changes": [], "review": []}
        self.aside: list[pa.Table] = []
        self._kept: Counter[str] = Counter()

    def write(self, batch: TableBatch, done: Cleaned) -> None:
        """Write a batch, its quarantine first."""
        quarantine = done.quarantine
        if batch.quarantine.num_rows:
            quarantine = pa.concat_tables([batch.quarantine, quarantine]).sort_by("row")
        self._writer.write(done.frame, quarantine, batch.rows_in)
        changes = done.changes.with_columns(pl.col("order") + self._order)
        self._order += changes.height
        self._changes.write(changes)
        self._review.write(done.review)
        self._keep(changes, done.review, quarantine)

    def close(self) -> None:
        """End the files."""
        self._changes.close()
        self._review.close()

    def _keep(self, changes: pl.DataFrame, review: pl.DataFrame, quarantine: pa.Table) -> None:
        for (name,), mine in changes.group_by("column", maintain_order=True):
            room = MAX_PER_COLUMN - self._kept[str(name)]
            if room > 0:
                self.head["changes"].append(mine.head(room))
                self._kept[str(name)] += min(room, mine.height)
        best = pl.concat([*self.head["review"], review])
        best = best.sort("confidence", descending=True, maintain_order=True)
        self.head["review"] = [best.head(MAX_REVIEW)]
        room = MAX_QUARANTINE - sum(part.num_rows for part in self.aside)
        if room > 0 and quarantine.num_rows:
            self.aside.append(quarantine.slice(0, room))

    def page_rows(self) -> tuple[pl.DataFrame, pl.DataFrame, pa.Table]:
        """Return the first changes, the surest findings and the first quarantined rows."""
        return (
            pl.concat([no_changes(), *self.head["changes"]]),
            pl.concat([no_findings(), *self.head["review"]]),
            pa.concat_tables([empty_quarantine(), *self.aside]),
        )


class _Growing:
    """A Parquet file that takes frames of one schema."""

    def __init__(self, path: Path, empty: pl.DataFrame) -> None:
        self._writer = parquet.ParquetWriter(path, empty.to_arrow().schema, compression="zstd")

    def write(self, frame: pl.DataFrame) -> None:
        if frame.height:
            self._writer.write_table(frame.to_arrow())

    def close(self) -> None:
        self._writer.close()


def _attach(
    writer: OutputWriter,
    sinks: _Sinks,
    seen: Streamed,
    contract: Contract,
    facts: dict[str, Any],
    folder: str,
    now: datetime,
) -> None:
    """Write what stands beside the rows: contract, figures, page."""
    changes, review, quarantine = sinks.page_rows()
    shown = Cleaned(
        pl.DataFrame(schema=dict.fromkeys(contract.columns, pl.String)),
        pl.Series("row", [], pl.Int64),
        quarantine,
        changes,
        review,
        seen.counts,
        {},
        0.0,
        seen.fixed,
    )
    page = page_of(
        shown,
        contract,
        source=facts["source"],
        folder=folder,
        inferred=facts["inferred"],
        alpha=facts["alpha"],
        time=now,
    )
    page = replace(
        page,
        changed=seen.cells,
        changed_aside=0,  # not known: the page has the first quarantined rows only
        reviews=seen.reviews,
        changes=[replace(one, total=seen.changed[one.name]) for one in page.changes],
    )
    record = facts | {
        "time": now.isoformat(),
        "counts": dict(seen.counts),
        "promised_harm": 0.0,
        "bounds": {},
        "fixed": seen.fixed,
        "rows": None,
    }
    writer.attach(CONTRACT).write_text(to_toml(contract), encoding="utf-8")
    writer.attach(RUN).write_text(json.dumps(record), encoding="utf-8")
    writer.attach(REPORT).write_text(build_report(page), encoding="utf-8")


def _most(counts: Mapping[str, int]) -> str:
    by_rule = {k: n for k, n in counts.items() if k.startswith("quarantined:")}
    return max(by_rule, key=by_rule.__getitem__, default="").removeprefix("quarantined:")
