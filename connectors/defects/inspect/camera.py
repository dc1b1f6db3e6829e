"""Files of a folder in order, each when it is whole: once, or for as long as a camera writes.

A file counts as whole when nothing about it changed for a while, or when it is old. Those that are
written under another name and renamed come whole; hidden names and unknown endings are not looked
at. A file that is not whole holds back those behind it, so that the order stays, but not for ever.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from connectors.cleaning.image_files import ImageFile, ImageFolderError, list_images

logger = logging.getLogger(__name__)

OLD_SECONDS = 60.0
"""Files that nobody wrote to for so long are whole at the first look."""


@dataclass(frozen=True, slots=True)
class CameraTiming:
    """How long files are waited for.

    Attributes:
        settle: Seconds without a change after which a file is whole.
        patience: Seconds that a file which is not may hold back the others, and that a broken one
            is given to be finished.
        poll: Seconds between two looks into the folder.
    """

    settle: float = 0.3
    patience: float = 5.0
    poll: float = 0.2

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not (self.settle > 0 and self.poll > 0 and self.patience >= self.settle):
            raise ValueError(f"{self}: give positive seconds, and patience no less than settle")


class CameraFolder:
    """Yields the files of a folder that were not seen, and None whenever there is none to yield.

    Attributes:
        found: Files yielded or about to be, for a progress bar.
        unfinished: Files that were still being written when the last look ended.
    """

    def __init__(
        self,
        folder: Path,
        known: Callable[[str, str], bool],
        *,
        leave_out: Path | None = None,
        skip: frozenset[str] = frozenset(),
        timing: CameraTiming | None = None,
        watch: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        """Name the folder.

        Args:
            folder: Where the camera writes; its folders are looked into, too.
            known: Tells of a name and a stat whether that file is done with, since before.
            leave_out: A folder in it that holds results.
            skip: Files in it that are not to be judged, by their paths within.
            timing: How long files are waited for.
            watch: Go on looking until ``stop`` is set.
            stop: Ends the iteration.
        """
        self.timing = timing or CameraTiming()
        self.found = 0
        self.unfinished: list[str] = []
        self._folder, self._leave_out, self._watch = folder, leave_out, watch
        self._skip = skip
        self._stop = stop or threading.Event()
        self._known, self._seen = known, dict[str, str]()
        self._looks: dict[str, _Look] = {}
        self._trouble, self._watched = "", False

    def __iter__(self) -> Iterator[ImageFile | None]:
        """Yield files in the order of their paths, look by look.

        Raises:
            ImageFolderError: The folder cannot be read. A watch that could read it before looks
                again until it can.
        """
        while not self._stop.is_set():
            began = time.monotonic()
            new = self._new()
            self.found += len(new)
            held = yield from self._whole(new)
            yield None
            if not (held or self._watch):
                return
            # A folder of very many files is not listed all the time.
            pause = max(self.timing.poll, time.monotonic() - began if not new else 0.0)
            self._stop.wait(pause)

    def _whole(self, new: list[tuple[ImageFile, str]]) -> Generator[ImageFile, None, bool]:
        """Yield the files that are whole; returns whether some are waited for."""
        self.unfinished = []
        waited_for = False
        for place, (file, stat) in enumerate(new):
            if self._stop.is_set():
                self.found -= len(new) - place
                break
            look = self._look(file, stat)
            if not (file.trouble or self._settled(file, look)):
                if time.monotonic() - look.first < self.timing.patience:
                    self.found -= len(new) - place
                    waited_for = True
                    break
                # It hangs; the others need not wait for it any longer.
                self.found -= 1
                self.unfinished.append(file.name)
                continue
            self._seen[file.name] = stat
            del self._looks[file.name]
            yield file
        return waited_for

    def _new(self) -> list[tuple[ImageFile, str]]:
        """Return the files that are not done with; forgets those that are gone."""
        listed = (file for file in self._listed() if file.name not in self._skip)
        found = [(file, stat_of(file.path)) for file in listed]
        new = [(file, stat) for file, stat in found if stat and not self._done(file.name, stat)]
        names = {file.name for file, _ in found}
        for kept in (self._seen, self._looks):
            for name in kept.keys() - names:
                del kept[name]
        return new

    def _done(self, name: str, stat: str) -> bool:
        if self._seen.get(name) == stat:
            return True
        if self._known(name, stat):
            self._seen[name] = stat
            return True
        return False

    def _listed(self) -> tuple[ImageFile, ...]:
        """List the folder; none where a watch cannot reach it, as while a share is away."""
        try:
            files = list_images(self._folder, leave_out=self._leave_out).files
        except (ImageFolderError, OSError) as error:
            if not self._watched or _reached(self._folder):
                raise
            if not self._trouble:
                logger.warning("%s; the watch goes on when it is there again", error)
            self._trouble = str(error)
            return ()
        if self._trouble:
            logger.info("%s is there again", self._folder)
        self._trouble, self._watched = "", self._watch
        return files

    def _look(self, file: ImageFile, stat: str) -> _Look:
        now = time.monotonic()
        look = self._looks.get(file.name)
        if look is None:
            look = self._looks[file.name] = _Look(stat, now, now)
        elif look.stat != stat:
            look.stat, look.since = stat, now
        return look

    def _settled(self, file: ImageFile, look: _Look) -> bool:
        return time.monotonic() - look.since >= self.timing.settle or age(file.path) > OLD_SECONDS


@dataclass(slots=True)
class _Look:
    """What was seen of a file: its stat, since when it is that, when it was seen first."""

    stat: str
    since: float
    first: float


def _reached(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
    except OSError:
        return False
    return True


def stat_of(path: Path) -> str:
    """Return size, time and number of a file as one text, "" where it is gone."""
    try:
        status = os.lstat(path)
    except OSError:
        return ""
    return stat_text(status)


def stat_text(status: os.stat_result) -> str:
    """Return size, time and number of a file as one text."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def age(path: Path) -> float:
    """Return the seconds since a file was written to; 0 where it is gone or of the future."""
    try:
        return max(0.0, time.time() - path.lstat().st_mtime)
    except OSError:
        return 0.0
