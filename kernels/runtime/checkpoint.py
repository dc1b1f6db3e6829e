"""Checkpoints of a run: taken in a moment, written in the background, kept in up to three places.

The run stops only while its tensors are copied; a thread hashes and writes them, to shared memory
(it outlives a killed process), to the run's folder (it outlives the machine's restart) and to a
second folder (it outlives the disk), each at its own pace. CheckFreq (Mohan et al., 2021) and
Gemini (Wang et al., 2023) describe the idea.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kernels.runtime import checkpoint_files as files
from kernels.runtime.checkpoint_files import CheckpointError, Stored
from kernels.runtime.packing import pack

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the name of a run's folder is its own


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """When and where checkpoints are written; the last step always is.

    Attributes:
        every: Steps between two in the run's folder; 0 for the last step alone.
        memory_every: Steps between two in shared memory; 0 for none.
        second: A second folder, on another disk or a mounted object store.
        second_every: Steps between two there.
        keep_last: Newest checkpoints kept in the run's folder; two, so that one before is left
            when the newest is found torn.
        keep_best: Beside those, the best by the run's evaluation.
        background: Write while training goes on.
        failures: Checkpoints in a row that may fail to be written before the run ends.
    """

    every: int = 0
    memory_every: int = 0
    second: Path | None = None
    second_every: int = 0
    keep_last: int = 2
    keep_best: int = 0
    background: bool = True
    failures: int = 3

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        for name in ("every", "memory_every", "second_every", "keep_best", "failures"):
            if getattr(self, name) < 0:
                raise ValueError(f"checkpoint.{name} must not be negative")
        if self.keep_last < 1:
            raise ValueError(f"checkpoint.keep_last must be at least 1, got {self.keep_last}")
        if (self.second is None) != (self.second_every == 0):
            raise ValueError("give checkpoint.second and second_every together, or neither")


class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        blocked_seconds: How long the run has stood still for them.
        failed: Checkpoints that could not be written.
    """

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        steps: int,
        goal: Literal["min", "max"] = "min",
    ) -> None:
        self.folder, self.config = folder, config
        self._sign = 1 if goal == "min" else -1
        self.blocked_seconds = 0.0
        self.failed = 0
        self._steps = steps
        self._in_a_row = 0
        self._copies: dict[str, Tensor] = {}
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    @cached_property
    def memory(self) -> Path | None:
        """Folder in shared memory, None where it is not used.

        Its name lies in the run's folder: who deletes that begins anew.
        """
        if not self.config.memory_every:
            return None
        mark = self.folder / "in-memory"
        if not mark.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"penstock-run-{secrets.token_hex(8)}"
            draft = mark.with_name(f".{name}")
            draft.write_text(f"{name}\n", encoding="ascii")
            # Whole at once, and whoever comes second takes the first one's.
            with contextlib.suppress(FileExistsError):
                mark.hardlink_to(draft)
            draft.unlink()
        return SHARED_MEMORY / mark.read_text(encoding="ascii").strip()

    def due(self, step: int, *, wanted: bool = False) -> list[Path]:
        """Return the folders that get a checkpoint after ``step`` finished steps.

        Args:
            step: Finished steps.
            wanted: The run's folder gets one in any case.
        """
        config = self.config
        last = step == self._steps
        places = (
            (config.memory_every, self.memory, False),
            (config.every, self.folder, last or wanted),
            (config.second_every, config.second, last and config.second is not None),
        )
        return [
            folder
            for every, folder, anyway in places
            if folder is not None and (anyway or (every and step % every == 0))
        ]

    def save(
        self, folders: Iterable[Path], step: int, state: Any, metric: float | None = None
    ) -> None:
        """Save a state into folders; returns once it is copied, or written without a background.

        Raises:
            CheckpointError: When checkpoints before it failed too often.
        """
        began = time.perf_counter()
        self.wait()
        plain, tensors = pack(state)
        copies = self._copied(tensors)
        work = (list(folders), step, plain, copies, metric)
        if self.config.background:
            self._pending = self._writer.submit(self._write, *work)
        else:
            self._write(*work)
        self.blocked_seconds += time.perf_counter() - began

    def wait(self) -> None:
        """Wait for the one being written.

        Raises:
            CheckpointError: When too many failed in a row.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self, *, finished: bool) -> None:
        """Wait for the last one and end the thread.

        Args:
            finished: The run reached its end: what lies in shared memory is of no use any more.

        Raises:
            CheckpointError: As `wait`.
        """
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            self._copies.clear()
        if finished and self.memory is not None:
            shutil.rmtree(self.memory, ignore_errors=True)

    def newest(self) -> Stored | None:
        """Return the newest undamaged checkpoint of all places, None when there is none at all.

        Raises:
            CheckpointError: When there are some, and every one is damaged.
        """
        places = [p for p in (self.folder, self.config.second, self.memory) if p is not None]
        known = [each for place in places for each in files.stored_in(place)]
        torn = [p for place in places for p in place.glob(f"{files.PREFIX}*") if place.is_dir()]
        for each in sorted(known, key=lambda one: -one.step):
            wrong = files.damage(each.path)
            if not wrong:
                return each
            logger.warning("checkpoint %s is damaged: %s; trying one before", each.path, wrong)
        if torn:
            raise CheckpointError(
                f"all checkpoints of the run are damaged: {', '.join(str(p) for p in torn)}; "
                "delete them to begin anew"
            )
        return None

    def _copied(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors that training cannot change, in memory that is used again and again."""
        if not self.config.background:
            return {name: t.detach().cpu() for name, t in tensors.items()}
        self._copies = {
            name: self._copies[name] if _fits(self._copies.get(name), t) else _room_for(t)
            for name, t in tensors.items()
        }
        for name, t in tensors.items():
            self._copies[name].copy_(t, non_blocking=True)
        if any(t.is_cuda for t in tensors.values()):
            torch.cuda.synchronize()
        return self._copies

    def _write(
        self,
        folders: list[Path],
        step: int,
        plain: Any,
        tensors: Mapping[str, Tensor],
        metric: float | None,
    ) -> None:
        for folder in folders:
            try:
                files.write(folder, step, plain, tensors, metric)
                self._in_a_row = 0
            except CheckpointError as error:
                self.failed += 1
                self._in_a_row += 1
                if self._in_a_row > self.config.failures or step == self._steps:
                    raise
                logger.error("%s; the run goes on (%d in a row)", error, self._in_a_row)  # noqa: TRY400 - the message says it all
                continue
            keep = 1 if folder == self.memory else self.config.keep_last
            self._drop(folder, keep)

    def _drop(self, folder: Path, keep_last: int) -> None:
        """Remove what is neither new nor good."""
        found = files.stored_in(folder)
        kept = {each.path for each in found[-keep_last:]}
        judged = [e for e in found if e.metric is not None and math.isfinite(e.metric)]
        judged.sort(key=lambda each: (self._sign * (each.metric or 0.0), -each.step))
        kept |= {each.path for each in judged[: self.config.keep_best]}
        for each in found:
            if each.path not in kept:
                shutil.rmtree(each.path, ignore_errors=True)


def _fits(copy: Tensor | None, tensor: Tensor) -> bool:
    return copy is not None and copy.shape == tensor.shape and copy.dtype == tensor.dtype


def _room_for(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
