"""The count of a check: rows in, used and set aside, by rule, and what was tolerated."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.fraud.ingest.parsing import DataError
from tasks.fraud.transactions import UNKNOWN, Transactions

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check saw; ``rows_in == rows_used + rows_quarantined``.

    Attributes:
        source: Where the table came from.
        rows_in: Rows of the table.
        rows_used: Rows that became transactions.
        rows_quarantined: Rows set aside.
        by_rule: Rule name -> rows set aside.
        unsorted: Used rows that lie after a later one in the file (they are sorted).
        labelled: Used rows whose label is known.
        frauds: Used rows labelled 1.
        first_time: Earliest used event time, ISO 8601 UTC ("" when no row is used).
        last_time: Latest used event time.
        days: Calendar days (UTC) between them, both included.
        days_without_fraud: Days of these without a known fraud.
        entities: Kind -> distinct entities in used rows.
        missing: Extra column -> missing values in used rows.
    """

    source: str
    rows_in: int
    rows_used: int
    rows_quarantined: int
    by_rule: dict[str, int] = field(default_factory=dict)
    unsorted: int = 0
    labelled: int = 0
    frauds: int = 0
    first_time: str = ""
    last_time: str = ""
    days: int = 0
    days_without_fraud: int = 0
    entities: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)

    @property
    def unlabelled(self) -> int:
        """Used rows whose label is not known."""
        return self.rows_used - self.labelled

    @property
    def quarantine_share(self) -> float:
        """Share of rows set aside."""
        return self.rows_quarantined / max(1, self.rows_in)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for artifacts."""
        return {
            **asdict(self),
            "unlabelled": self.unlabelled,
            "quarantine_share": self.quarantine_share,
        }


class QuarantineLimitError(DataError):
    """Too many bad rows; carries the report and the quarantine so that they can be kept."""

    def __init__(
        self, message: str, report: CheckReport | None = None, quarantine: pa.Table | None = None
    ) -> None:
        super().__init__(message)
        self.report = report
        self.quarantine = quarantine


def summarise(
    source: str, rows_in: int, by_rule: dict[str, int], tx: Transactions, unsorted: int
) -> CheckReport:
    """Count what a check saw."""
    fraud = tx.label == 1
    days = fraud_days = 0
    first = last = ""
    if len(tx):
        days = int(tx.time[-1] // DAY_MS - tx.time[0] // DAY_MS) + 1
        fraud_days = len(np.unique(tx.time[fraud] // DAY_MS))
        first, last = (_iso(tx.time[0]), _iso(tx.time[-1]))
    missing = {name: int(np.isnan(values).sum()) for name, values in tx.numeric.items()}
    missing |= {name: int((codes < 0).sum()) for name, codes in tx.categorical.items()}
    return CheckReport(
        source=source,
        rows_in=rows_in,
        rows_used=len(tx),
        rows_quarantined=sum(by_rule.values()),
        by_rule=by_rule,
        unsorted=unsorted,
        labelled=int((tx.label != UNKNOWN).sum()),
        frauds=int(fraud.sum()),
        first_time=first,
        last_time=last,
        days=days,
        days_without_fraud=days - fraud_days,
        entities={kind: len(ids) for kind, ids in tx.index.items()},
        missing=missing,
    )


def _iso(ms: np.int64) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(ms))).isoformat()


def enforce_limit(report: CheckReport, quarantine: pa.Table, limit: float) -> None:
    """Raise ``QuarantineLimitError`` when too many rows are bad, or all of them."""
    share = report.quarantine_share
    if report.rows_used and share <= limit:
        return
    ranked = sorted(report.by_rule.items(), key=lambda item: -item[1])
    rules = ", ".join(f"{name} {count}" for name, count in ranked)
    why = f"above max_quarantine_share {limit:g}" if share > limit else "so nothing is left"
    raise QuarantineLimitError(
        f"{report.source}: {report.rows_quarantined} of {report.rows_in} rows ({share:.1%}) are "
        f"bad, {why} ({rules}); mend the data or the config",
        report,
        quarantine,
    )
