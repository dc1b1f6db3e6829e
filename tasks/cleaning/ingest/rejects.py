"""Rows that cannot be read, as quarantine records with their original bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import pyarrow as pa

from tasks.cleaning.quarantine import QUARANTINE_SCHEMA, Rule, empty_quarantine

VERSION = "ingest/1"
OBSERVED = 200
"""Characters of a refused row that its record shows; the payload holds all."""


def _rule(name: str, expected: str) -> Rule:
    return Rule(name, expected, detector_version=VERSION)


UNDECODABLE = _rule("undecodable", "bytes that spell text in the encoding of the file")
NUL_BYTE = _rule("nul-byte", "text without NUL characters")
BROKEN_QUOTES = _rule(
    "broken-quotes", "quotes that open at the start of a cell and close at its end"
)
TOO_FEW_CELLS = _rule("too-few-cells", "as many cells as the table has columns")
TOO_MANY_CELLS = _rule("too-many-cells", "as many cells as the table has columns")
CELL_TOO_LARGE = _rule("cell-too-large", "cells within the size limit")
INVALID_JSON = _rule("invalid-json", "one valid JSON object per line")
NOT_AN_OBJECT = _rule("not-an-object", "one JSON object per line")
DUPLICATE_KEY = _rule("duplicate-key", "every key once in an object, also after flattening")
UNKNOWN_KEY = _rule("unknown-key", "only keys that occur in the first block of the file")
TOO_DEEP = _rule("too-deep", "objects nested no deeper than is flattened")
RULES = (
    UNDECODABLE, NUL_BYTE, BROKEN_QUOTES, TOO_FEW_CELLS, TOO_MANY_CELLS, CELL_TOO_LARGE,
    INVALID_JSON, NOT_AN_OBJECT, DUPLICATE_KEY, UNKNOWN_KEY, TOO_DEEP,
)  # fmt: skip


class Reject(NamedTuple):
    """A row that could not be read.

    Attributes:
        row: Its number in the file.
        payload: Its original bytes, without the line end.
        rule: What it broke.
        expected: What would have been right; the rule's text if empty.
        column: The column at fault; empty for the whole row.
    """

    row: int
    payload: bytes
    rule: Rule
    expected: str = ""
    column: str = ""


def reject_table(rejects: Sequence[Reject], source: str, time: datetime) -> pa.Table:
    """Return the quarantine records of refused rows, in their order."""
    if not rejects:
        return empty_quarantine()
    n = len(rejects)
    return pa.table(
        [
            pa.array([r.payload for r in rejects], pa.binary()),
            pa.array([source] * n),
            pa.array([r.row for r in rejects], pa.int64()),
            pa.array([r.rule.name for r in rejects]),
            pa.array([r.column for r in rejects]),
            pa.array([_shown(r.payload) for r in rejects]),
            pa.array([r.expected or r.rule.expected for r in rejects]),
            pa.array([r.rule.severity for r in rejects]),
            pa.array([r.rule.detector_version for r in rejects]),
            pa.array([r.rule.confidence for r in rejects]),
            pa.array([time] * n, pa.timestamp("us", tz="UTC")),
        ],
        schema=QUARANTINE_SCHEMA,
    )


def _shown(payload: bytes) -> str:
    return payload[:OBSERVED].decode("utf-8", "backslashreplace")[:OBSERVED]
