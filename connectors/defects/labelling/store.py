"""Keeps labels in the folder of the images: a history that only grows, and an index of what holds.

``labels.jsonl`` is the truth. Each decision is appended under a lock and is on the disk before it
is told as done, so that several pages write at once and a crash costs at most the line that it cut,
which nobody was told of. ``labels.csv`` is made from it after every decision, in the form of
a dataset's index. The images are never touched.
"""

from __future__ import annotations

import csv
import fcntl
import getpass
import logging
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from connectors.defects.labelling.history import (
    MAX_LINE,
    Decision,
    History,
    LabelError,
    Said,
    Undo,
    parsed,
)
from connectors.files import atomic_path
from tasks.defects.samples import Box, Label, Sample

LOG = logging.getLogger(__name__)
HISTORY, INDEX = "labels.jsonl", "labels.csv"
COLUMNS = (
    "image", "label", "kind", "mask", "part", "left", "top", "right", "bottom",
    "who", "when", "drawn",
)  # fmt: skip
MAX_BYTES = 256 << 20


class LabelConflictError(LabelError):
    """Somebody else said something of the image since it was shown; nothing was written."""


class LabelStore:
    """The labels of one folder; used from any thread, and by several processes at once.

    Args:
        folder: Folder of the images.

    Raises:
        LabelError: When the history cannot be read, or an index lies there that is not of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._history, self._read = History(), 0
        if (folder / INDEX).exists() and not (folder / HISTORY).exists():
            raise LabelError(
                f"{folder / INDEX} was not made by this page, which would write over it; "
                "give it another name"
            )
        self.history()

    def history(self) -> History:
        """Return what was said up to now, by all pages."""
        with self._lock:
            if (self.folder / HISTORY).exists():
                with (self.folder / HISTORY).open("rb") as handle:
                    self._catch_up(handle.fileno())
            return self._history.copy()

    def say(
        self,
        image: str,
        said: Said,
        *,
        kind: str = "",
        boxes: Sequence[Box] = (),
        drawn: bool = False,
        seen: str | None = None,
    ) -> Decision:
        """Write down what a person says of an image.

        Args:
            image: Path within the folder.
            said: ``ok``, ``ng`` or ``unsure``.
            kind: Type of the defect.
            boxes: Rectangles of defects.
            drawn: Whether it was shown because a random draw came to it.
            seen: Id of the decision that the person saw, "" for none; None to write over any.

        Raises:
            LabelConflictError: When another decision holds by now.
            LabelError: When it contradicts itself.
        """
        made = decision(image, said, kind, boxes, drawn=drawn)
        self.say_all([made], None if seen is None else {image: seen})
        return made

    def say_all(self, decisions: Sequence[Decision], seen: dict[str, str] | None = None) -> None:
        """Write down decisions on several images, all or none.

        Args:
            decisions: With ids of their own.
            seen: By image, id of the decision that the person saw, "" for none.

        Raises:
            LabelConflictError: When another decision on one of them holds by now.
        """
        with self._writing() as descriptor:
            for decision in decisions:
                before = self._history.holds(decision.image)
                if seen is not None and seen[decision.image] != (before.id if before else ""):
                    raise LabelConflictError(
                        f"{decision.image} was labelled elsewhere since this page was shown"
                    )
            self._append(descriptor, decisions)

    def undo(self, decisions: Sequence[str]) -> list[Decision]:
        """Take decisions back, all or none; returns them.

        Raises:
            LabelError: When one is not there, or was taken back before.
        """
        with self._writing() as descriptor:
            held, decisions = self._history, list(dict.fromkeys(decisions))
            there = held.decisions.keys() - held.undone
            if not decisions or not there.issuperset(decisions):
                raise LabelError("nothing to undo: that decision is not there, or undone already")
            self._append(descriptor, [Undo(one, _user(), _now()) for one in decisions])
            return [held.decisions[one] for one in decisions]

    @contextmanager
    def _writing(self) -> Iterator[int]:
        """Hold the history against threads and processes, read up to its end."""
        with self._lock:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self.folder / HISTORY, flags, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # ends with the process, however it ends
                self._catch_up(descriptor)
                if os.fstat(descriptor).st_size > self._read:  # the line that a crash cut
                    os.ftruncate(descriptor, self._read)
                yield descriptor
            finally:
                os.close(descriptor)

    def _append(self, descriptor: int, entries: Sequence[Decision | Undo]) -> None:
        data = "".join(entry.line() for entry in entries).encode()
        if max((len(entry.line()) for entry in entries), default=0) > MAX_LINE:
            raise LabelError("too much for one image: shorten names, or draw fewer boxes")
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:  # nothing is told as done that is not whole on the disk
            os.ftruncate(descriptor, self._read)
            raise
        for entry in entries:
            self._history.add(entry)
        self._read += len(data)
        try:
            with atomic_path(self.folder / INDEX) as temporary:
                write_index(self._history, temporary)
        except OSError as error:  # the history has it; the next decision makes the index anew
            LOG.warning("%s is not up to date: %s", self.folder / INDEX, error)

    def _catch_up(self, descriptor: int) -> None:
        """Read the whole lines that were added since."""
        size = os.fstat(descriptor).st_size
        if size > MAX_BYTES:
            raise LabelError(f"{self.folder / HISTORY}: larger than {MAX_BYTES >> 20} MiB")
        if size < self._read:
            raise LabelError(
                f"{self.folder / HISTORY} was cut since it was read; open the page again"
            )
        data = os.pread(descriptor, size - self._read, self._read)
        whole = data[: data.rfind(b"\n") + 1]
        path = str(self.folder / HISTORY)
        for entry in parsed(whole, path):
            try:
                self._history.add(entry)
            except LabelError as error:
                raise LabelError(f"{path}: {error}; put back the file's last copy") from error
        self._read += len(whole)


def write_index(history: History, path: Path) -> None:
    """Write what holds as the index of a dataset: a row for each image, one more for each box.

    Images that a person was unsure of stand in the history alone.
    """
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in history.holding().values():
            if one.said == "unsure":
                continue
            told = (one.who, one.when, "yes" if one.drawn else "")
            writer.writerow([one.image, one.said, one.kind, "", "", *[""] * 4, *told])
            for box in one.boxes:
                corners = (f"{v:g}" for v in (box.left, box.top, box.right, box.bottom))
                row = [one.image, one.said, box.kind or one.kind, "", "", *corners, *told]
                writer.writerow(row)


def read_labels(folder: Path, samples: Sequence[Sample]) -> list[Sample]:
    """Return samples with what people said of them on the page.

    What was said there goes before what the folder says otherwise: boxes given replace boxes and
    mask; an ng without any keeps those there are. Samples that nobody was sure of lose their label.

    Args:
        folder: Folder of the images.
        samples: Named by their paths in it.

    Raises:
        LabelError: When the history cannot be read.
    """
    holding = LabelStore(folder).history().holding()
    return [_merged(sample, holding.get(sample.name)) for sample in samples]


def _merged(sample: Sample, said: Decision | None) -> Sample:
    if said is None:
        return sample
    if said.said != "ng":
        label: Label | None = "ok" if said.said == "ok" else None
        return replace(sample, label=label, kind="", mask=None, boxes=())
    boxes = tuple(box if box.kind else replace(box, kind=said.kind) for box in said.boxes)
    if boxes:
        return replace(sample, label="ng", kind=said.kind, mask=None, boxes=boxes)
    return replace(sample, label="ng", kind=said.kind or sample.kind)


def decision(
    image: str, said: Said, kind: str = "", boxes: Sequence[Box] = (), *, drawn: bool = False
) -> Decision:
    """Return a decision of the person who runs this process, now, with an id of its own."""
    key = secrets.token_hex(8)
    return Decision(key, image, said, kind, tuple(boxes), _user(), _now(), drawn)


def _user() -> str:
    try:
        return getpass.getuser()[:64]
    except (KeyError, OSError):  # no entry in the password database
        return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
