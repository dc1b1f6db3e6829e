"""Bodies that broke a rule, kept as quarantine records so that a mended rule can replay them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from connectors.api.journal import Journal, JournalError
from tasks.cleaning.quarantine import Rule

VERSION = "fraud-api/1"
DAY_MS = 86_400_000

MALFORMED = Rule("not-json", "a JSON object, UTF-8", detector_version=VERSION)
TOO_LARGE = Rule("too-large", "a body within the limit", detector_version=VERSION)
DUPLICATE = Rule(
    "duplicate-of", "a label that is new", severity="warning", detector_version=VERSION
)


class DeadLetters:
    """A journal of quarantine records with a daily allowance of bytes.

    A client that sends rubbish must not fill the disk: what goes beyond the allowance is counted
    in ``dropped`` and kept nowhere.

    Attributes:
        written: Records kept.
        dropped: Records beyond the allowance, or that could not be written.
    """

    def __init__(self, journal: Journal, *, daily_bytes: int, now_ms: Callable[[], int]) -> None:
        self.written = self.dropped = 0
        self._journal, self._now_ms = journal, now_ms
        self._daily, self._left, self._day = daily_bytes, daily_bytes, -1
        self._row = 0

    def add(
        self,
        payload: bytes,
        rule: Rule,
        source: str,
        *,
        column: str = "",
        observed: str | None = None,
    ) -> None:
        """Keep one body.

        Args:
            payload: The bytes as they came.
            rule: What they broke.
            source: The route.
            column: Member at fault.
            observed: Its value.
        """
        now = self._now_ms()
        if now // DAY_MS != self._day:
            self._day, self._left = now // DAY_MS, self._daily
        line = orjson.dumps(
            {
                "payload": base64.b64encode(payload).decode(),
                "source": source,
                "row": self._row,
                "rule": rule.name,
                "column": column,
                "observed": observed,
                "expected": rule.expected,
                "severity": rule.severity,
                "detector_version": rule.detector_version,
                "confidence": rule.confidence,
                "time": datetime.fromtimestamp(now / 1000, UTC).isoformat(),
                "sha256": hashlib.sha256(payload).hexdigest(),
            }
        )
        self._row += 1
        if len(line) > self._left:
            self.dropped += 1
            return
        try:
            self._journal.append([line])
        except JournalError:
            self.dropped += 1  # the request is refused with its own problem, whatever happens here
            return
        self._left -= len(line)
        self.written += 1
