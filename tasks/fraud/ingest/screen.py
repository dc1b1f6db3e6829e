"""For every row the first rule it breaks, and its quarantine record under the name users know."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.cleaning.contract.model import Contract
from tasks.cleaning.contract.rules import RowRule
from tasks.cleaning.contract.typed import repeats, typed_verdict
from tasks.cleaning.quarantine import Rule, empty_quarantine, quarantine_rows
from tasks.fraud.contract import RULES, VERSION, Names
from tasks.fraud.ingest.parsing import Mask
from tasks.fraud.ingest.read_columns import JudgedColumn


class Screen:
    """Sets rows of a table aside, each under the first rule it breaks.

    Attributes:
        bad: Rows set aside so far, bool [rows].
        by_rule: Name of a rule -> rows set aside under it.
    """

    def __init__(self, table: pa.Table, source: str, now: datetime) -> None:
        self.table, self.source, self.now = table, source, now
        self.bad = np.zeros(len(table), np.bool_)
        self.by_rule: dict[str, int] = {}
        self._parts: list[pa.Table] = []

    def judge(
        self, rule: RowRule, contract: Contract, columns: Mapping[str, JudgedColumn], called: Names
    ) -> None:
        """Set aside rows that break a rule over single rows.

        Args:
            rule: One of the contract's.
            contract: The contract.
            columns: Its columns.
            called: Names of the rule by fault; none: its own name.
        """
        read = {name: column.read for name, column in columns.items()}
        broken = typed_verdict(rule, contract, read)
        if not called:
            self.refuse(_own(rule, contract), rule.column, broken)
        for fault, name in called:
            rows = broken & columns[rule.column].faults[fault] if fault else broken
            self.refuse(RULES[name], rule.column, rows)

    def refuse_repeats(
        self, rule: RowRule, contract: Contract, columns: Mapping[str, JudgedColumn], called: Names
    ) -> None:
        """Set aside rows that repeat an earlier good one; arguments as for ``judge``."""
        among = [columns[name].read for name in rule.key]
        first = repeats(among, ~self.bad)
        record = RULES[called[0][1]] if called else _own(rule, contract)
        self.refuse(record, rule.column, first >= 0, first)

    def refuse(
        self, rule: Rule, column: str, broken: Mask, first: NDArray[np.int64] | None = None
    ) -> None:
        """Set rows aside; ``first`` names the row each one repeats."""
        rows = np.flatnonzero(broken & ~self.bad)
        if not len(rows):
            return
        self.bad[rows] = True
        self.by_rule[rule.name] = self.by_rule.get(rule.name, 0) + len(rows)
        self._parts.append(
            quarantine_rows(
                self.table,
                rows,
                rule,
                source=self.source,
                column=column,
                expected=None if first is None else [f"first in row {i}" for i in first[rows]],
                time=self.now,
            )
        )

    def quarantine(self) -> pa.Table:
        """Return all records in the order of rows."""
        parts = pa.concat_tables(self._parts) if self._parts else empty_quarantine()
        return parts.sort_by("row")


def _own(rule: RowRule, contract: Contract) -> Rule:
    """Return what the record says of a line that a person added."""
    version = f"{VERSION} {contract.detector_version}"
    return Rule(rule.name, rule.expected, detector_version=version)
