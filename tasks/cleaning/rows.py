"""Cleaning row by row: every row by itself, so that a table of any size streams through in batches.

The same rewritings and rules as in :mod:`tasks.cleaning.clean`, and the same result whatever the
batches, but without what looks at other rows: votes, typos, copies, keys. A contract that asks for
such a thing is refused. Rows that need no rewriting, mostly all of them, are told apart by one pass
of expressions; only the others go through the repair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from tasks.cleaning.clean import (
    CleanConfig,
    Cleaned,
    counted,
    judged,
    require_columns,
    set_aside,
)
from tasks.cleaning.contract.model import Contract, ContractError
from tasks.cleaning.contract.rules import row_rules
from tasks.cleaning.findings import joined, no_findings
from tasks.cleaning.repair.changes import apply, no_changes
from tasks.cleaning.repair.engine import Repaired, repair
from tasks.cleaning.repair.normalise import ends_in, normalisers


def across_rows(contract: Contract) -> list[str]:
    """Return the lines of a contract that look at other rows, as messages name them."""
    lines = [f"unique:{name}" for name, column in contract.columns.items() if column.unique]
    lines += [f"impute:{name}" for name, column in contract.columns.items() if column.impute]
    lines += [f"key:{'+'.join(key)}" for key in contract.keys]
    lines += [f"dependency:{one.name}" for one in contract.dependencies]
    lines += [f"sensor:{one.column}" for one in contract.sensors]
    lines += ["transactions"] * bool(contract.transactions)
    lines += ["newest"] * bool(contract.newest) + ["label"] * (contract.label is not None)
    lines += ["duplicates"] * (contract.duplicates is not None)
    return lines + [
        f"suffix_of:{name} (without a domain of {column.suffix_of})"
        for name, column in contract.columns.items()
        if column.suffix_of and not contract.columns[column.suffix_of].domain
    ]


def without_across_rows(contract: Contract) -> Contract:
    """Return a contract without the lines that look at other rows."""
    columns = {
        name: replace(
            column,
            unique=False,
            impute="",
            suffix_of=column.suffix_of
            if column.suffix_of and contract.columns[column.suffix_of].domain
            else "",
        )
        for name, column in contract.columns.items()
    }
    contract = replace(contract, columns=columns, dependencies=(), keys=())
    contract = replace(contract, sensors=(), transactions=(), duplicates=None)
    return replace(contract, newest="", max_age_days=0.0, label=None)


class RowCleaner:
    """Cleans batches of one table.

    Args:
        contract: What each row must look like.
        config: How; ``repair.across_rows`` must be off, it is what it says.
        tables: By name, the other tables that the contract's references name; texts.

    Raises:
        ContractError: When the contract has lines that look at other rows.
    """

    def __init__(
        self,
        contract: Contract,
        config: CleanConfig,
        tables: Mapping[str, pl.DataFrame] | None = None,
    ) -> None:
        if config.repair.across_rows:
            raise ValueError("rows are cleaned by themselves: set RepairConfig(across_rows=False)")
        if lines := across_rows(contract):
            raise ContractError(
                f"{', '.join(lines)}: these look at other rows, and rows stream through one by "
                "one; take them out of the contract, or clean the table as a whole"
            )
        self.contract = contract
        self.config = config
        self._rules = row_rules(contract, tables)
        self._steps = [normalisers(name, column) for name, column in contract.columns.items()]
        self._checked = False

    def clean(
        self, frame: pl.DataFrame, numbers: NDArray[np.int64], source: str, now: datetime
    ) -> Cleaned:
        """Clean some rows.

        Args:
            frame: Texts, one column for each of the contract's.
            numbers: int64 [rows] number of each in the source.
            source: Name of the file, for records.
            now: The present, for records.

        Returns:
            The same as for a whole table, rows numbered as in the source.

        Raises:
            ContractError: When columns are missing or too many.
        """
        if not self._checked:
            require_columns(frame.columns, self.contract)
            self._checked = True
        repaired = self._repaired(frame)
        broken, shown = judged(repaired.frame, self._rules, self.contract)
        quarantine, bad = set_aside(frame, repaired.frame, broken, source, self.contract, now)
        kept = np.flatnonzero(~bad)
        review = joined([repaired.review, shown])
        if bad.any():
            review = review.filter(~pl.col("row").is_in(np.flatnonzero(bad).tolist()))
        place = pl.Series("row", numbers, pl.Int64)
        at = quarantine.schema.get_field_index("row")
        known = pa.array(numbers[quarantine["row"].to_numpy()], pa.int64())
        return Cleaned(
            repaired.frame.filter(~bad) if bad.any() else repaired.frame,
            place.gather(kept),
            quarantine.set_column(at, quarantine.schema.field(at), known),
            _renumbered(repaired.changes, place),
            _renumbered(review, place),
            counted(frame.height, kept, quarantine, repaired.changes),
            {},
            0.0,
            repaired.fixed,
        )

    def _repaired(self, frame: pl.DataFrame) -> Repaired:
        rest = Repaired(frame, no_changes(), no_findings(), {}, fixed=True)
        if not (self.config.repairs and frame.height):
            return rest
        rows = np.flatnonzero(self._rewritten(frame))
        if not len(rows):
            return rest
        done = repair(frame[rows.tolist()], self.contract, self.config.repair)
        place = pl.Series("row", rows, pl.Int64)
        changes = _renumbered(done.changes, place)
        last = changes.unique(["row", "column"], keep="last", maintain_order=True)
        return Repaired(
            apply(frame, last), changes, _renumbered(done.review, place), {}, fixed=done.fixed
        )

    def _rewritten(self, frame: pl.DataFrame) -> NDArray[np.bool_]:
        """Return the rows in which a repair may change something, a few others among them [rows].

        A row that no rewriting touches as it stands stays as it is: each later one sees the text
        that the ones before left untouched.
        """
        touched = pl.any_horizontal(step.touches for steps in self._steps for step in steps)
        mask = np.asarray(frame.select(touched.fill_null(value=False).alias("t"))["t"])
        for name, column in self.contract.columns.items():
            if column.suffix_of:
                mask = mask | ends_in(frame, name, column.suffix_of, self.contract)
        return mask


def _renumbered(frame: pl.DataFrame, numbers: pl.Series) -> pl.DataFrame:
    if frame.is_empty():
        return frame
    return frame.with_columns(numbers.gather(frame["row"]).alias("row"))
