"""What happened, in a log whose lines hold each other: a changed or lost line is found.

Every line holds the digest of the line before it and its own. The digest of a request's line goes
back to the owner inside the signed answer, as a receipt: who rewrites the log from some line on
must also collect every receipt that was given since.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.private.client.documents import canonical
from infra.errors import ConfigurationError

FIRST = "0" * 64
"""Digest before the first line."""

_TAIL_BYTES = 64 * 1024
_REMEDY = "Look at it with 'penstock private audit', keep it, and begin a new one beside it"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a verifier found.

    Attributes:
        lines: Lines read.
        head: Digest of the last one.
        trouble: What is wrong, with its line; empty: nothing.
        missing: Receipts that no line has.
    """

    lines: int
    head: str
    trouble: str
    missing: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.trouble and not self.missing


class AuditLog:
    """Appends lines; one process at a time.

    Attributes:
        head: Digest of the last line.
        ended: Latest time in the last lines that this log was opened with, seconds since 1970.
    """

    def __init__(self, path: Path) -> None:
        """Go on where the log ends.

        Raises:
            ConfigurationError: When its last line is cut off or changed.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._number, self.head, self.ended = _end(path)
        self._file = path.open("ab", buffering=0)

    def note(self, event: str, **facts: Any) -> str:
        """Append a line and return its digest.

        Args:
            event: What happened.
            facts: JSON data: digests, ids, counts, verdicts; never contents.
        """
        line = {"n": self._number + 1, "event": event, "before": self.head, **facts}
        digest = _digest(line)
        text = _line(line, digest).encode("ascii")
        handle = self._file.fileno()
        size = os.fstat(handle).st_size
        if os.write(handle, text) < len(text):
            os.ftruncate(handle, size)  # a line in part would end the chain
            raise OSError(errno.ENOSPC, "the log could be written in part only")
        self._number, self.head = self._number + 1, digest
        return digest

    def sync(self) -> None:
        """Bring what was written to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """End."""
        self.sync()
        self._file.close()


def verify_log(path: Path, receipts: Iterable[str] = ()) -> AuditReport:
    """Check every line of a log, and that it has the lines of given receipts.

    Args:
        path: The log.
        receipts: Digests that answers held.
    """
    waited = set(receipts)
    before, number, trouble = FIRST, 0, ""
    with path.open(encoding="ascii", errors="replace") as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
                digest = line.pop("digest")
                right = (line["n"], line["before"], digest) == (number, before, _digest(line))
                right = right and text == _line(line, digest)
            except (KeyError, TypeError, ValueError, AttributeError):
                right = False
            if not right:
                trouble = f"line {number} was changed, or a line before it is missing"
                break
            before = digest
            waited.discard(digest)
    return AuditReport(number, before, trouble, tuple(sorted(waited)))


def _line(line: Mapping[str, Any], digest: str) -> str:
    return canonical({**line, "digest": digest}).decode("ascii") + "\n"


def _digest(line: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(line)).hexdigest()


def _end(path: Path) -> tuple[int, str, float]:
    """Return number and digest of the last line, and the latest time in the last lines."""
    if not path.is_file() or not path.stat().st_size:
        return 0, FIRST, 0.0
    with path.open("rb") as file:
        begins = max(0, path.stat().st_size - _TAIL_BYTES)
        file.seek(begins)
        lines = file.read().splitlines(keepends=True)
    last = lines[-1]
    try:
        line = json.loads(last)
        digest = line.pop("digest")
        sound = last.endswith(b"\n") and digest == _digest(line)
        # A line is written when its request ends, so times do not rise from line to line.
        times = [json.loads(one).get("at", 0) for one in lines[1 if begins else 0 :]]
        end = int(line["n"]), str(digest), max(times) / 1000
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{path}: the last line cannot be read ({error})", _REMEDY
        ) from error
    if not sound:
        raise ConfigurationError(f"{path}: the last line is cut off or changed", _REMEDY)
    return end
