"""Results in files: JSON lines, CSV, and a folder of images by verdict.

Each can be killed at any time: what is half-written is cut off when it is opened again, and results
that it has already are known by their numbers.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from connectors.api.journal import last_line_end
from connectors.defects.inspect.journal import Journal, Result
from connectors.defects.inspect.sink import SinkError
from connectors.defects.inspect.uplink import image_bytes
from connectors.files import atomic_path

COLUMNS = (
    "event",
    "journal",
    "image",
    "digest",
    "time",
    "final",
    "settled",
    "edge_verdict",
    "edge_score",
    "edge_kind",
    "edge_model",
    "central_verdict",
    "central_score",
    "central_kind",
    "central_model",
    "refusal",
    "boxes",
    "like",
)
"""``boxes`` and ``like`` are of who decided."""
MARK = ".penstock-line"
"""File that says whose images a folder holds."""
MAX_LINE = 16 * 2**20
"""Bytes of a line beyond which it is none of ours."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_NUMBER = re.compile(rb'(?<=^{"event": )\d+')
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class _LinesSink(ABC):
    """Appends lines to a file; the newest event in it is read when it is opened."""

    batch = 200

    def __init__(self, path: Path, journal: str) -> None:
        """Open the file, or make it.

        Args:
            path: The file.
            journal: Id of the journal whose results it holds.

        Raises:
            OSError: It cannot be written.
            ValueError: It holds something else.
        """
        self._journal = journal
        self.name = f"{path.suffix.lstrip('.') or 'file'}:{path.resolve()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._size, self.position = self._mended()
        except BaseException:
            os.close(self._handle)
            raise

    def write(self, results: Sequence[Result]) -> None:
        """Append results that are not there yet, all or none of them."""
        new = [result for result in results if result.event > self.position]
        if not new:
            return
        data = b"".join(self._line(result) for result in new)
        if self._size == 0:
            data = self._head() + data
        try:
            written = os.write(self._handle, data)
            while written < len(data):  # a full disk takes a part before it refuses
                written += os.write(self._handle, data[written:])
            os.fsync(self._handle)
        except OSError as error:
            os.ftruncate(self._handle, self._size)
            raise SinkError(f"{self._path}: {error.strerror}") from error
        self._size += len(data)
        self.position = new[-1].event

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def _mended(self) -> tuple[int, int]:
        """Cut a half-written line off, if the file is ours; returns size and newest event."""
        size = os.fstat(self._handle).st_size
        end = last_line_end(self._handle, size)
        event = 0
        if end:
            start = last_line_end(self._handle, end - 1)
            line = os.pread(self._handle, min(end - start, MAX_LINE), start)
            event, journal = self._event(line)
            ours = journal in {"", self._journal}
        else:
            begun, begins = self._begun(os.pread(self._handle, 4_096, 0)), self._begins()
            ours = begun[: len(begins)] == begins[: len(begun)]
        if not ours:
            raise ValueError(
                f"{self._path} does not end with results of this line; name another file"
            )
        if end < size:
            os.ftruncate(self._handle, end)
        return end, event

    @abstractmethod
    def _begins(self) -> bytes:
        """Return what every file of this form begins with."""

    def _begun(self, content: bytes) -> bytes:
        """Return the beginning of a file without what differs between files."""
        return content

    def _head(self) -> bytes:
        return b""

    @abstractmethod
    def _line(self, result: Result) -> bytes:
        """Return a result as a line, with its end."""

    @abstractmethod
    def _event(self, line: bytes) -> tuple[int, str]:
        """Return event and journal of a line, -1 and "?" of one that is none of ours."""


class JsonLinesSink(_LinesSink):
    """One JSON object a line."""

    def _begins(self) -> bytes:
        return f'{{"event": , "journal": "{self._journal}"'.encode()

    def _begun(self, content: bytes) -> bytes:
        return _NUMBER.sub(b"", content, count=1)

    def _line(self, result: Result) -> bytes:
        return json.dumps(result.body, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    def _event(self, line: bytes) -> tuple[int, str]:
        try:
            said = json.loads(line)
            return int(said["event"]), str(said["journal"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return -1, "?"


class CsvSink(_LinesSink):
    """One row a line under a header; texts that a spreadsheet would run get an apostrophe."""

    def _head(self) -> bytes:
        return _row(COLUMNS)

    def _begins(self) -> bytes:
        return self._head()

    def _line(self, result: Result) -> bytes:
        body = result.body
        edge, central = body["edge"] or {}, body["central"] or {}
        refusal = body["quarantine"] or {}
        decided = central or edge
        return _row(
            (
                body["event"],
                body["journal"],
                _harmless(body["image"]),
                body["digest"],
                body["time"],
                body["final"],
                body["settled"],
                *(_cell(edge.get(name)) for name in ("verdict", "score", "kind", "model")),
                *(_cell(central.get(name)) for name in ("verdict", "score", "kind", "model")),
                _harmless(refusal.get("rule", "")),
                json.dumps(decided.get("boxes", []), ensure_ascii=False),
                _harmless("; ".join(decided.get("like", []))),
            )
        )

    def _event(self, line: bytes) -> tuple[int, str]:
        if line == _row(COLUMNS):
            return 0, ""
        event, _, rest = line.partition(b",")
        return (int(event), rest.split(b",", 1)[0].decode()) if event.isdigit() else (-1, "?")


class PictureFolderSink:
    """Copies images into ``OK``, ``NG``, ``REVIEW``, with heat map and JSON beside them.

    An image that a decision moves is written in its new folder before it leaves the old one.
    Quarantined files are not images that can be shown; they lie in the quarantine.
    """

    batch = 50
    position = None

    def __init__(self, target: Path, journal: Journal, source: Path) -> None:
        """Name the folders.

        Args:
            target: Where to sort to.
            journal: Has heat maps.
            source: Where the images are.

        Raises:
            OSError: The target cannot be written.
            ValueError: It holds the images of another line, whose numbers are the same.
        """
        self.name = f"folder:{target.resolve()}"
        self._target, self._journal, self._source = target, journal, source
        mark = target / MARK
        if not mark.exists():
            with atomic_path(mark) as temporary:
                temporary.write_text(journal.id)
        if mark.read_bytes()[:64] != journal.id.encode():
            raise ValueError(f"{target} holds the images of another line; name another folder")

    def write(self, results: Sequence[Result]) -> None:
        """Write the files of each result; doing it again changes nothing."""
        for result in results:
            if result.body["quarantine"] is None:
                try:
                    self._place(result)
                except OSError as error:
                    raise SinkError(f"{self._target}: {error.strerror or error}") from error

    def close(self) -> None:
        """Nothing is held."""

    def _place(self, result: Result) -> None:
        body = result.body
        name = Path(body["image"])
        stem = f"{result.seq:08d}_{_UNSAFE.sub('-', name.stem)[:80]}"
        folder = self._target / body["final"]
        content = image_bytes(self._source, body["image"], body["digest"])
        parts = {
            f"{stem}{name.suffix.lower()}": content,
            f"{stem}.heat.png": self._journal.heat(result.seq),
        }
        parts[f"{stem}.json"] = json.dumps(
            {**body, "image_copied": bool(content)}, ensure_ascii=False, indent=1
        ).encode()
        for file, data in parts.items():
            if data:
                with atomic_path(folder / file) as temporary:
                    temporary.write_bytes(data)
        for other in ("OK", "NG", "REVIEW"):
            if other != body["final"]:
                for file in parts:
                    self._move(self._target / other / file, folder / file)

    def _move(self, old: Path, new: Path) -> None:
        """Take a file out of a former folder; kept where the new one lacks it."""
        if old.is_file():
            if new.exists():
                old.unlink()
            else:
                old.replace(new)


def _row(cells: Sequence[object]) -> bytes:
    held = io.StringIO()
    csv.writer(held, lineterminator="\n").writerow(cells)
    return held.getvalue().encode()


def _cell(value: object) -> object:
    if value is None:
        return ""
    return _harmless(value) if isinstance(value, str) else value


def _harmless(text: str) -> str:
    """Return a text in one line that no spreadsheet takes for a formula."""
    text = text.replace("\n", " ").replace("\r", " ")
    return f"'{text}" if text.startswith(_FORMULA) else text
