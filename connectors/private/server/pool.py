"""Processes that score, each watched: one that takes too long or dies costs one request."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from connectors.private.server.worker import ANSWER, JOB, REPLY
from infra.settings import CHECKOUT

logger = logging.getLogger(__name__)

START_SECONDS = 120.0
AGAIN_SECONDS = 1.0
MODULE = "connectors.private.server.worker"


class ScoringError(RuntimeError):
    """A request was not scored.

    Attributes:
        refused: Whether the process looked at it and refused; else it died or took too long.
    """

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


class BusyError(RuntimeError):
    """Too many requests wait."""


class GoneError(RuntimeError):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """How processes run.

    Attributes:
        workers: How many.
        memory_mib: What one may grow by.
        seconds: What one may take for a request.
        waiting: Most requests that wait for one.
        queue_seconds: How long one may wait.
    """

    workers: int = 1
    memory_mib: int = 1_024
    seconds: float = 30.0
    waiting: int = 64
    queue_seconds: float = 10.0


async def never_gone() -> bool:
    """Of a client that waits whatever happens."""
    return False


class Pool:
    """A fixed number of processes.

    Attributes:
        deaths: Processes that died or were killed over a request.
    """

    def __init__(self, folders: Sequence[Path], config: PoolConfig) -> None:
        self._folders, self._config = [str(folder) for folder in folders], config
        self._idle: asyncio.Queue[asyncio.subprocess.Process] = asyncio.Queue()
        self._all: set[asyncio.subprocess.Process] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self.deaths = 0

    async def start(self) -> None:
        """Start the processes and wait until one is ready for each place.

        Raises:
            ScoringError: When one does not start.
        """
        for process in await asyncio.gather(*(self._spawn() for _ in range(self._config.workers))):
            self._idle.put_nowait(process)

    async def score(
        self,
        model: str,
        packing: str,
        rows: int,
        content: bytes | memoryview,
        gone: Callable[[], Awaitable[bool]] = never_gone,
    ) -> bytes:
        """Score ciphertexts in one of the processes.

        Args:
            model: Digest of the model.
            packing: How rows lie in the ciphertexts.
            rows: How many.
            content: The ciphertexts.
            gone: Whether the client has gone, asked once a process is free: what one has begun is
                ended, since killing it over every closed connection would cost the others more.

        Raises:
            ScoringError: When they are refused, or the process dies or takes too long over them.
            BusyError: When too many wait already.
            GoneError: When the client went while the request waited.
        """
        if self._waiting >= self._config.waiting:
            raise BusyError(f"{self._waiting} requests wait already")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._config.queue_seconds):
                process = await self._idle.get()
        except TimeoutError:
            raise BusyError(
                f"no process was free within {self._config.queue_seconds:g} seconds"
            ) from None
        finally:
            self._waiting -= 1
        left = True
        try:
            left = await gone()
        finally:
            if left:
                self._idle.put_nowait(process)
        if left:
            raise GoneError("the client has gone")
        header = json.dumps({"model": model, "packing": packing, "rows": rows}).encode()
        try:
            async with asyncio.timeout(self._config.seconds):
                status, answer = await _ask(process, header, content)
        except BaseException as error:
            # Also when the client has gone: what is left of its answer must not reach another.
            self._replace(process)
            if isinstance(error, TimeoutError | OSError | asyncio.IncompleteReadError):
                self.deaths += 1
                raise ScoringError(_why(error, self._config), refused=False) from None
            raise
        self._idle.put_nowait(process)
        if status != ANSWER:
            raise ScoringError(answer.decode(errors="replace"), refused=True)
        return answer

    async def close(self) -> None:
        """End all processes."""
        for task in self._tasks:
            task.cancel()
        for process in self._all:
            _kill(process)
        for process in self._all:
            await process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        # It gets no secret of this process, not even through its environment.
        kept = ("PATH", "LANG", "HOME", "NUMBA_CACHE_DIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            MODULE,
            str(self._config.memory_mib),
            *self._folders,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=CHECKOUT,
            env={**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            limit=2**24,
            start_new_session=True,  # the end of its pipe stops it; Ctrl-C is for its parent
        )
        self._all.add(process)
        try:
            async with asyncio.timeout(START_SECONDS):
                await _read(process)
        except (TimeoutError, asyncio.IncompleteReadError) as error:
            _kill(process)
            raise ScoringError("a process that scores does not start", refused=False) from error
        return process

    def _replace(self, process: asyncio.subprocess.Process) -> None:
        """Kill a process and start another in its place."""
        _kill(process)

        async def again() -> None:
            await process.wait()
            self._all.discard(process)
            while True:
                with suppress(ScoringError, OSError):
                    self._idle.put_nowait(await self._spawn())
                    return
                logger.error("a process that scores does not start; trying again")
                await asyncio.sleep(AGAIN_SECONDS)

        task = asyncio.create_task(again())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _ask(
    process: asyncio.subprocess.Process, header: bytes, content: bytes | memoryview
) -> tuple[int, bytes]:
    pipe = process.stdin
    if pipe is None:
        raise BrokenPipeError("the process has no pipe")
    pipe.write(JOB.pack(len(header), len(content)) + header)
    pipe.write(content)
    await pipe.drain()
    return await _read(process)


async def _read(process: asyncio.subprocess.Process) -> tuple[int, bytes]:
    pipe = process.stdout
    if pipe is None:
        raise BrokenPipeError("the process has no pipe")
    status, length = REPLY.unpack(await pipe.readexactly(REPLY.size))
    return status, await pipe.readexactly(length)


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


def _why(error: BaseException, config: PoolConfig) -> str:
    if isinstance(error, TimeoutError):
        return f"scoring took more than {config.seconds:g} seconds"
    return f"scoring ended for want of memory (more than {config.memory_mib} MiB) or by a fault"
