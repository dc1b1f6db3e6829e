"""Decodes strangers' images in processes that may crash, hang or run out of memory.

One image that ends its worker costs that image alone: it is refused with the reason, and the next
one gets a fresh worker. What comes back is checked before it is believed.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.images import wire
from tasks.cleaning.images.decode import ImageRefusedError, Pixels
from tasks.cleaning.images.features import FEATURES, SIDE
from tasks.cleaning.images.limits import ImageLimits
from tasks.cleaning.images.worker import OUT_OF_MEMORY

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 60.0
GRACE_SECONDS = 2.0
"""After the worker's own timer, the parent waits that much longer before it kills."""
MAX_THUMBNAIL = 1 << 18

Given = TypeVar("Given")


@dataclass(frozen=True, slots=True)
class MeasuredImage:
    """An image that decodes.

    Attributes:
        facts: What the file says and holds: width, height, kind (gray, rgb), bits, format, mode,
            orientation, transparent, make, model, profile, profile_use, tables, digest (SHA-256 of
            the pixels).
        features: Numbers by the names of :data:`features.FEATURES`.
        small: uint8 [64, 64] the image at that size.
        faults: Of images to learn from: names of faults and the numbers with them.
    """

    facts: dict[str, Any]
    features: dict[str, float]
    small: NDArray[np.uint8] = field(repr=False)
    faults: tuple[tuple[str, dict[str, float]], ...] = field(default=(), repr=False)


class SandboxError(RuntimeError):
    """Workers cannot be started at all: nothing is wrong with the images."""


class Sandbox:
    """Worker processes, used from any thread; a context manager that ends them.

    Args:
        limits: What an image may be and cost.
        workers: Processes at a time; as many as cores, at most four, if None.

    Examples:
        >>> with Sandbox(workers=1) as sandbox:  # doctest: +SKIP
        ...     sandbox.pixels(Path("tile.png").read_bytes()).shape
        (200, 200)
    """

    def __init__(self, limits: ImageLimits | None = None, workers: int | None = None) -> None:
        self.limits = limits or ImageLimits()
        self.workers = workers or min(len(os.sched_getaffinity(0)), 4)
        if self.workers < 1:
            raise ValueError(f"workers is {workers}; it must be 1 or more")
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        self._all = [_Worker(self.limits) for _ in range(self.workers)]
        for worker in self._all:
            self._free.put(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers; a later call would start them again."""
        for worker in self._all:
            worker.end()

    def measure(self, data: bytes, *, faults: bool = False) -> MeasuredImage:
        """Decode and measure one image.

        Args:
            data: The bytes of a file.
            faults: Measure it spoilt as well, to learn from; takes a dozen times as long.

        Raises:
            ImageRefusedError: With the reason, for every image that cannot be used.
            SandboxError: When no worker can be started.
        """
        said, body = self._ask("faults" if faults else "measure", data, SIDE * SIDE)
        try:
            return MeasuredImage(
                _checked_facts(said),
                _checked_features(said["features"]),
                np.frombuffer(body, np.uint8).reshape(SIDE, SIDE),
                tuple((str(name), _checked_features(f)) for name, f in said.get("faults", ())),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _unbelievable() from error

    def pixels(self, data: bytes) -> Pixels:
        """Decode one image.

        Returns:
            uint8 or uint16 [height, width], or uint8 [height, width, 3], read-only.

        Raises:
            ImageRefusedError: As `measure`.
            SandboxError: As `measure`.
        """
        said, body = self._ask("pixels", data, self.limits.max_pixels * 3)
        facts = _checked_facts(said)
        shape = (facts["height"], facts["width"])
        try:
            kind = np.dtype({"|u1": "u1", "<u2": "<u2"}[said["dtype"]])
            whole = (*shape, 3) if facts["kind"] == "rgb" else shape
            return cast("Pixels", np.frombuffer(body, kind).reshape(whole))
        except (KeyError, TypeError, ValueError) as error:
            raise _unbelievable() from error

    def thumbnail(self, data: bytes) -> bytes:
        """Return one image as a small PNG that holds its pixels and nothing else.

        Raises:
            ImageRefusedError: As `measure`.
            SandboxError: As `measure`.
        """
        _, body = self._ask("thumbnail", data, MAX_THUMBNAIL)
        if not body.startswith(b"\x89PNG"):
            raise _unbelievable()
        return body

    def measure_all(
        self,
        items: Iterable[Given],
        read: Callable[[Given], bytes],
        *,
        faults: Callable[[Given], bool] = lambda _: False,
    ) -> Iterator[tuple[Given, MeasuredImage | ImageRefusedError]]:
        """Measure many images on all workers, in order, a few files in memory at a time.

        Args:
            items: What stands for the images.
            read: Gives the bytes of one; may raise `ImageRefusedError`.
            faults: Whether one is measured spoilt as well, as by `measure`.
        """

        def one(item: Given) -> MeasuredImage | ImageRefusedError:
            try:
                return self.measure(read(item), faults=faults(item))
            except ImageRefusedError as error:
                return error

        waiting: deque[tuple[Given, Future[MeasuredImage | ImageRefusedError]]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="images")
        try:
            for item in items:
                waiting.append((item, pool.submit(one, item)))
                if len(waiting) > 4 * self.workers:
                    first, done = waiting.popleft()
                    yield first, done.result()
            while waiting:
                first, done = waiting.popleft()
                yield first, done.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, want: str, data: bytes, max_body: int) -> tuple[dict[str, Any], bytes]:
        if len(data) > self.limits.max_bytes:  # not even sent
            raise ImageRefusedError(
                "too-large", f"{len(data):,} bytes", f"≤ {self.limits.max_bytes:,}"
            )
        worker = self._free.get()
        try:
            said, body = worker.ask({"want": want}, data, max_body)
        finally:
            self._free.put(worker)
        if "refused" in said:
            raise ImageRefusedError(*(str(said[k]) for k in ("refused", "observed", "expected")))
        return said, body


class _Worker:
    """One process, started when it is needed and again after it died."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self.filtered = False

    def ask(
        self, request: dict[str, Any], data: bytes, max_body: int
    ) -> tuple[dict[str, Any], bytes]:
        """Send one image and wait for the answer.

        A worker that died of something else than its time may have been worn out by images before:
        a fresh one tries once more.
        """
        used = self._process is not None
        try:
            return self._try(request, data, max_body)
        except ImageRefusedError as error:
            if used and error.rule in {"crashed", "out-of-memory"}:
                return self._try(request, data, max_body)
            raise

    def _try(
        self, request: dict[str, Any], data: bytes, max_body: int
    ) -> tuple[dict[str, Any], bytes]:
        process = self._process or self._start()
        late = threading.Event()
        timer = _killer(process, self._limits.wall_seconds + GRACE_SECONDS, late)
        try:
            wire.send(_pipe(process.stdin), request, data)
            answer = wire.receive(_pipe(process.stdout), max_body)
            if answer is not None:
                return answer
        except (BrokenPipeError, wire.WireError):
            pass
        finally:
            timer.cancel()
        code = self.end()
        raise _death(code, late=late.is_set(), limits=self._limits)

    def _start(self) -> subprocess.Popen[bytes]:
        kept = {k: v for k, v in os.environ.items() if k in {"PATH", "LD_LIBRARY_PATH"}}
        limits = json.dumps(asdict(self._limits))
        process = subprocess.Popen(
            [sys.executable, "-s", "-m", "tasks.cleaning.images.worker", limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={
                **kept,
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                # Each thread of a numeric library would take address space.
                **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1"),
            },
        )
        self._process = process
        timer = _killer(process, START_SECONDS, threading.Event())
        try:
            ready = wire.receive(_pipe(process.stdout), 0)
        except wire.WireError:
            ready = None
        finally:
            timer.cancel()
        if ready is None:
            code = self.end()
            raise SandboxError(
                f"the worker that decodes images ended with code {code} before its first image; "
                "python -m tasks.cleaning.images.worker says why; is Pillow installed, and memory "
                f"of {self._limits.memory_mib} MiB enough?"
            )
        self.filtered = ready[0].get("filtered") is True
        return process

    def end(self) -> int:
        """End the process; returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for stream in (process.stdin, process.stdout):
            try:
                _pipe(stream).close()  # the end of its input ends it
            except BrokenPipeError:
                continue
        try:
            return process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _killer(
    process: subprocess.Popen[bytes], seconds: float, late: threading.Event
) -> threading.Timer:
    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    return timer


def _pipe(stream: Any) -> BinaryIO:
    return cast("BinaryIO", stream)


def _death(code: int, *, late: bool, limits: ImageLimits) -> ImageRefusedError:
    """Return the reason why a worker ended."""
    if late or code == -signal.SIGALRM:
        what = f"more than {limits.wall_seconds:g} s"
        return ImageRefusedError("timeout", what, f"≤ {limits.wall_seconds:g} s")
    if code == -signal.SIGXCPU:
        what = f"more than {limits.cpu_seconds} CPU s"
        return ImageRefusedError("timeout", what, f"≤ {limits.cpu_seconds} CPU s")
    if code == OUT_OF_MEMORY:
        what = f"more than {limits.memory_mib} MiB"
        return ImageRefusedError("out-of-memory", what, f"≤ {limits.memory_mib} MiB")
    ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return ImageRefusedError("crashed", f"the decoder ended by {ended}", "a file that decodes")


def _checked_facts(said: dict[str, Any]) -> dict[str, Any]:
    """Return facts of the expected kinds.

    Raises:
        ImageRefusedError: Where they are not: the decoder was taken over, or is broken.
    """
    facts = said.get("facts")
    texts = ("format", "mode", "make", "model", "profile", "profile_use", "digest", "kind")
    if (
        not isinstance(facts, dict)
        or not all(isinstance(facts.get(name), str) for name in texts)
        or not all(isinstance(facts.get(name), int) for name in ("width", "height", "bits"))
        or facts["width"] < 1
        or facts["height"] < 1
    ):
        raise _unbelievable()
    return facts


def _checked_features(numbers: dict[str, Any]) -> dict[str, float]:
    """Return the numbers.

    Raises:
        ValueError: Where one is not finite; other errors where one is missing.
    """
    features = {name: float(numbers[name]) for name in FEATURES}
    if not all(math.isfinite(value) for value in features.values()):
        raise ValueError("a number is not finite")
    return features


def _unbelievable() -> ImageRefusedError:
    return ImageRefusedError(
        "crashed", "the decoder gave no sensible answer", "a file that decodes"
    )
