"""Reads the files that a detector was kept as: sizes first, one error for every fault."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tasks.defects.detect.config import DetectError


@dataclass(frozen=True, slots=True)
class StoredKind:
    """What a kind of detector is kept as.

    Attributes:
        what: As it is called in errors.
        format: Of the files this version writes and reads.
        numbers: Name of the file of arrays.
        facts: Name of the JSON file.
        most: Bytes of each of them at most.
    """

    what: str
    format: str
    numbers: str
    facts: str
    most: int


@contextmanager
def reading(files: Mapping[str, bytes], kind: StoredKind) -> Iterator[dict[str, Any]]:
    """Give the facts of a detector's files; what is wrong with them or the block is one error.

    Args:
        files: By name.
        kind: What they should be.

    Raises:
        DetectError: Files are missing, too large, of another format, or not what the block needs.
    """
    from safetensors import SafetensorError

    names = kind.numbers, kind.facts
    if missing := set(names) - set(files):
        raise DetectError(f"{kind.what} needs {', '.join(sorted(missing))}, too")
    if any(len(files[name]) > kind.most for name in names):
        raise DetectError(f"the files of {kind.what} hold at most {kind.most} bytes each")
    try:
        yield _facts_of(files[kind.facts], kind)
    except DetectError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise DetectError(f"not the files of {kind.what}: {error!r:.300}") from error


def _facts_of(content: bytes, kind: StoredKind) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(content)
    if facts["format"] != kind.format:
        raise DetectError(f"format {facts['format']!r}; this version reads {kind.format!r}")
    return facts
