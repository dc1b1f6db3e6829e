"""The line: files in order through sandbox and model into the journal, in bounded memory."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from connectors.api.journal import JournalFullError
from connectors.cleaning.image_files import ImageFile, read_image_file
from connectors.defects.inspect.camera import CameraTiming, age, stat_of
from connectors.defects.inspect.heat_map import heat_png
from connectors.defects.inspect.inspector import (
    Decoder,
    Inspector,
    Opinion,
)
from connectors.defects.inspect.journal import VERDICTS, Inspected, Journal
from connectors.defects.inspect.monitor import Monitor
from infra.errors import PenstockError
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.cleaning.images.decode import Pixels as DecodedPixels
from tasks.defects.samples import eight_bits

logger = logging.getLogger(__name__)

AHEAD = 2
"""Images decoded ahead of the model, at most 150 MB each."""
BATCH, BATCH_BYTES = 16, 32 * 2**20
"""Images and bytes that are journalled together."""
FAILURES = 20
"""Images in a row over which the model fails, before it is the model that is to blame."""
HELD_BYTES = 256 * 2**20
"""Of files that are held back until it is known which of the two is to blame."""
FULL_SECONDS = 2.0
UNFINISHED = frozenset({"broken", "wrong-format", "empty"})
"""Refusals that a file which is still being written would earn as well."""


class ModelFailedError(PenstockError):
    """The model fails on one image after the other."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A file, read: its pixels, or why it has none."""

    name: str
    stat: str
    content: bytes
    outcome: DecodedPixels | ImageRefusedError


class Line:
    """Judges files and keeps what was decided.

    Attributes:
        counts: Files of this run by verdict; ``again`` and ``unqueued`` as of the journal.
        read: Files taken from the source.
    """

    def __init__(
        self,
        journal: Journal,
        inspector: Inspector,
        decoder: Decoder,
        *,
        queued: bool,
        timing: CameraTiming | None = None,
        monitor: Monitor | None = None,
        told: Callable[[Counter[str]], None] = lambda _: None,
        kept: Callable[[], None] = lambda: None,
    ) -> None:
        """Put the parts together.

        Args:
            journal: Where decisions are kept.
            inspector: The model.
            decoder: Decodes the files.
            queued: Whether doubtful images go to the review queue.
            timing: How long a broken file is given to be finished.
            monitor: Watches for changes of the line.
            told: Called with the counts after each image.
            kept: Called after something was journalled.
        """
        self.counts: Counter[str] = Counter()
        self.read = 0
        self._journal, self._inspector, self._decoder = journal, inspector, decoder
        self._queued, self._timing = queued, timing or CameraTiming()
        self._monitor, self._told, self._kept = monitor, told, kept
        self._batch: list[Inspected] = []
        self._failures = 0

    def run(
        self, source: Iterable[ImageFile | None], stop: threading.Event | None = None
    ) -> Counter[str]:
        """Judge every file of a source; None in it means that nothing else is there for now.

        Args:
            source: Files in order.
            stop: Where given, a full disk is waited out until it is set; else it ends the run.

        Returns:
            The counts.

        Raises:
            ModelFailedError: The model fails on every image.
            JournalError: Decisions cannot be kept. What was not kept is judged again.
        """
        waiting: deque[Future[_Loaded]] = deque()
        with ThreadPoolExecutor(self._decoder.workers, thread_name_prefix="decode") as pool:
            try:
                for file in source:
                    if file is not None:
                        self.read += 1
                        waiting.append(pool.submit(self._load, file))
                    while len(waiting) > (AHEAD if file is not None else 0):
                        self._judge(waiting.popleft().result(), stop)
                    if file is None and not self._failures:
                        self._keep(stop)
                while waiting:
                    self._judge(waiting.popleft().result(), stop)
                self._keep(stop)
            finally:
                for left in waiting:
                    left.cancel()
        verdicts = sum(self.counts[name] for name in VERDICTS)
        if verdicts + self.counts["again"] != self.read:
            raise AssertionError(f"{self.read} files in, but {dict(self.counts)} told")
        return self.counts

    def _load(self, file: ImageFile) -> _Loaded:
        """Read and decode a file; one that may still be written gets time to become whole."""
        limit = self._decoder.limits.max_bytes
        deadline = time.monotonic() + self._timing.patience
        while True:
            stat, content = stat_of(file.path), b""
            outcome: DecodedPixels | ImageRefusedError
            try:
                content = read_image_file(file, limit)
                outcome = self._decoder.pixels(content)
            except ImageRefusedError as error:
                outcome = error
            if not (isinstance(outcome, ImageRefusedError) and outcome.rule in UNFINISHED):
                return _Loaded(file.name, stat, content, outcome)
            while stat_of(file.path) == stat:
                if age(file.path) >= self._timing.patience or time.monotonic() >= deadline:
                    return _Loaded(file.name, stat, content, outcome)
                time.sleep(self._timing.poll)

    def _judge(self, loaded: _Loaded, stop: threading.Event | None) -> None:
        digest = hashlib.sha256(loaded.content).hexdigest() if loaded.content else ""
        one = Inspected(loaded.name, loaded.stat, digest, loaded.content)
        if isinstance(loaded.outcome, ImageRefusedError):
            one = replace(one, refusal=loaded.outcome)
        else:
            one = self._asked(one, loaded.outcome)
        self._batch.append(one)
        size = sum(len(each.content) for each in self._batch)
        # Where the model is to blame, images that it fails on must not be set aside for good.
        if size >= HELD_BYTES or (
            not self._failures and (len(self._batch) >= BATCH or size >= BATCH_BYTES)
        ):
            self._keep(stop)

    def _asked(self, one: Inspected, pixels: DecodedPixels) -> Inspected:
        began = time.perf_counter()
        try:
            seen = eight_bits(pixels, self._inspector.bits)
            judgement = self._inspector.judge(seen)
        except Exception as error:
            self._failures += 1
            if self._failures >= FAILURES:
                raise ModelFailedError(
                    f"the model fails on {FAILURES} images in a row, {one.name} the last: {error}",
                    "Check that --model is the file that penstock exported",
                ) from error
            logger.warning("%s: the model fails on it (%s)", one.name, error)
            what = f"{type(error).__name__}: {error}"[:300]
            refusal = ImageRefusedError("not-judged", what, "an image that the model can judge")
            return replace(one, refusal=refusal)
        self._failures = 0
        milliseconds = 1000 * (time.perf_counter() - began)
        opinion = Opinion.of(judgement, self._inspector)
        doubtful = opinion.verdict == "REVIEW"
        return replace(
            one,
            opinion=opinion,
            content=one.content if doubtful else b"",
            heat=b"" if opinion.verdict == "OK" else heat_png(judgement.heat, seen),
            milliseconds=milliseconds,
            view=self._monitor.view(seen, opinion) if self._monitor else None,
        )

    def _keep(self, stop: threading.Event | None) -> None:
        """Journal what was decided."""
        full = False
        while self._batch:
            try:
                also = self._monitor.take if self._monitor else None
                counts = self._journal.record(self._batch, queued=self._queued, also=also)
            except JournalFullError as error:
                if stop is None or stop.is_set():
                    raise
                if not full:  # once: the log may lie on the same disk
                    logger.error("%s; the line waits", error)  # noqa: TRY400 - told, not a fault
                full = True
                stop.wait(FULL_SECONDS)
                continue
            if counts["unqueued"]:
                logger.warning(
                    "the review queue is full: %d doubtful images wait in the folder alone",
                    counts["unqueued"],
                )
            self.counts += counts
            self._batch.clear()
            if self._monitor:
                self._monitor.kept()
            self._told(self.counts)
            self._kept()
