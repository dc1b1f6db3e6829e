"""The checks that a table's transaction rules ask for, each over all rows at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.findings import findings_of, joined
from tasks.cleaning.transactions import copies, currency, lateness, places
from tasks.cleaning.transactions.model import TransactionRules

Bools = NDArray[np.bool_]
VERSION = "transactions/1"


@dataclass(frozen=True, slots=True)
class TransactionCheck:
    """One thing that no good transaction does.

    Attributes:
        name: Id, for example ``near-copy:time``.
        line: Line of the rules that it enforces.
        column: Column at fault.
        expected: What a good transaction looks like, for people.
        columns: What it looks at.
        broken: Which rows break it [rows], of a frame of texts with those columns.
    """

    name: str
    line: str
    column: str
    expected: str
    columns: tuple[str, ...]
    broken: Callable[[pl.DataFrame], Bools]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A check: its name, its line, the column at fault, what must be given, what is expected."""

    name: str
    line: str
    column: str
    needs: tuple[str, ...]
    expected: str
    broken: Callable[[pl.DataFrame, TransactionRules], Bools]


def checks_of(rules: TransactionRules) -> list[TransactionCheck]:
    """Return the checks that the rules ask for, those that need no other row first."""
    return [
        TransactionCheck(
            f"{kind.name}:{getattr(rules, kind.column)}",
            kind.line,
            getattr(rules, kind.column),
            kind.expected.format(rules=rules),
            rules.columns,
            partial(_broken, kind.broken, rules),
        )
        for kind in KINDS
        if all(getattr(rules, need) for need in kind.needs)
    ]


def transaction_findings(frame: pl.DataFrame, rules: TransactionRules) -> pl.DataFrame:
    """Return ``FINDINGS`` of every check, those of inferred lines at most half sure.

    Args:
        frame: Texts, rows numbered from 0.
        rules: What is known of them.
    """
    parts = []
    for check in checks_of(rules):
        rows = np.flatnonzero(check.broken(frame))
        cells = pl.DataFrame({"row": rows, "observed": frame[check.column].gather(rows)})
        sure = rules.confidence.get(check.line)
        parts.append(
            findings_of(
                cells,
                column=check.column,
                rule=check.name,
                expected=check.expected,
                premise="declared" if sure is None else "inferred, not declared",
                confidence=1.0 if sure is None else min(sure, 0.5),
                detector_version=VERSION,
            )
        )
    return joined(parts)


def _broken(
    check: Callable[[pl.DataFrame, TransactionRules], Bools],
    rules: TransactionRules,
    frame: pl.DataFrame,
) -> Bools:
    return check(frame, rules)


def _unknown_currency(frame: pl.DataFrame, rules: TransactionRules) -> Bools:
    return frame.select(currency.is_unknown(pl.col(rules.currency))).to_series().to_numpy()


def _fine_amounts(frame: pl.DataFrame, rules: TransactionRules) -> Bools:
    broken = currency.has_too_many_decimals(pl.col(rules.amount), pl.col(rules.currency))
    return frame.select(broken).to_series().to_numpy()


KINDS = (
    _Kind("currency", "currency", "currency", ("currency",), "a code of ISO 4217",
          _unknown_currency),
    _Kind("decimals", "currency", "amount", ("currency", "amount"),
          "no more decimals than its currency has", _fine_amounts),
    _Kind("never-shown", "zone", "time", ("zone",), "a time that clocks of {rules.zone} showed",
          lateness.never_shown),
    _Kind("before-opening", "opened", "time", ("opened",), "a time after its account was opened",
          lateness.before_opening),
    _Kind("future", "ahead_seconds", "time", ("arrival",),
          "at most {rules.ahead_seconds:g} s after its arrival", lateness.before_it_happened),
    _Kind("early-label", "label_delay_seconds", "label_time", ("label_time",),
          "at least {rules.label_delay_seconds:g} s after the event", lateness.early_labels),
    _Kind("off-the-map", "latitude", "latitude", ("latitude",), "a place on the map",
          places.off_the_map),
    _Kind("repeated-id", "id", "id", ("id",), "a number that occurs once", copies.repeated_id),
    _Kind("near-copy", "near_seconds", "time", ("near_seconds",),
          "no equal payment in the {rules.near_seconds:g} s before", copies.near_copies),
    _Kind("late", "late_seconds", "time", ("late_seconds",),
          "at most {rules.late_seconds:g} s behind the newest before it", lateness.late),
    _Kind("too-far", "max_speed_kmh", "latitude", ("max_speed_kmh",),
          "within reach of the place before at {rules.max_speed_kmh:g} km/h", places.too_far),
)  # fmt: skip
"""Every check, in the order in which a row is set aside for them."""
