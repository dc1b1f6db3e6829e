"""What a branch has answered, on disk: a process that starts anew does not forget what it spent.

One line per vector, written and flushed before it leaves: digest of the plan, and task. The plan
bounds their number, and with it epsilon, however often branch or coordinator are restarted.

Moments are counted by the rows that they are of, whatever the plan: two sums of them over the same
rows of different branches would lay open what lies between.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray


class LedgerError(ValueError):
    """The ledger cannot be read or written: without it a branch answers nothing."""


class Ledger:
    """The vectors that left for one plan, and the moments that left of certain rows."""

    def __init__(self, path: Path, plan: bytes, rows: bytes) -> None:
        """Open the ledger, or begin one.

        Args:
            path: File; other plans' lines in it stay.
            plan: Digest of the plan.
            rows: Digest of the rows (`digest_of_rows`).

        Raises:
            LedgerError: When a line is none, which may hide one that was spent.
        """
        self._path, self._plan, self._rows = path, plan.hex(), rows.hex()
        self._spent: Counter[str] = Counter()
        self._lock = _held(path)
        try:
            self._count(path)
        except LedgerError:
            self.close()
            raise

    def _count(self, path: Path) -> None:
        """Count what was spent."""
        try:
            content = path.read_text("ascii") if path.exists() else ""
        except (OSError, ValueError) as error:
            raise LedgerError(f"{path} cannot be read ({error})") from error
        for number, line in enumerate(content.splitlines(), 1):
            words = line.split(" ")
            if len(words) != 2 or len(words[0]) != 64:
                raise LedgerError(
                    f"{path}:{number} is no line of a ledger; repair it, or begin a plan anew"
                    " (another seed makes another plan) and move the file away"
                )
            if words[0] == self._whose(words[1]):
                self._spent[words[1]] += 1

    def close(self) -> None:
        """Leave the ledger to others."""
        self._lock.close()

    def spent(self, task: str) -> int:
        """Return how many vectors have left for a task."""
        return self._spent[task]

    def spend(self, task: str) -> None:
        """Write down that one leaves.

        Raises:
            LedgerError: When it cannot be written; then it must not leave.
        """
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(f"{self._whose(task)} {task}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be written ({error})") from error
        self._spent[task] += 1

    def _whose(self, task: str) -> str:
        """Return the digest that a task is counted under."""
        return self._rows if task == "moments" else self._plan


def digest_of_rows(columns: Sequence[str], x: NDArray[np.float32]) -> bytes:
    """Return the SHA-256 of features [n, F] and their columns."""
    hashed = hashlib.sha256(json.dumps(list(columns)).encode())
    hashed.update(np.ascontiguousarray(x, "<f4").data)
    return hashed.digest()


def _held(path: Path) -> BinaryIO:
    """Hold a ledger for this process alone: two that count would each count half."""
    try:
        lock = path.with_name(f".{path.name}.lock").open("ab")
    except OSError as error:
        raise LedgerError(f"{path} cannot be read ({error})") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise LedgerError(f"another process of this branch uses {path}; stop it first") from error
    return lock
