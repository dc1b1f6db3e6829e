"""What ONNX files cost where they run: bytes, milliseconds, memory of a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.compression.sessions import open_session
from tasks.compress.device import CompressError, Device

Inputs = Mapping[str, NDArray[Any]]
_CHILD = Path(__file__).with_name("memory_probe.py")
_PATIENCE = 120


@dataclass(frozen=True, slots=True)
class Footprint:
    """Cost of a file.

    Attributes:
        mb: Megabytes (10^6 bytes) of the file.
        ms: Median milliseconds of one item, wall clock; files that are compared took turns.
        cpu_ms: Median CPU milliseconds on one thread, which other programs hardly change.
        memory_mb: Peak resident megabytes (2^20 bytes) of a process that runs it.
    """

    mb: float
    ms: float
    cpu_ms: float
    memory_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingConfig:
    """How times are taken.

    Attributes:
        rounds: Turns that count.
        burst: Runs of a turn; the first finds cold caches and does not count.
        rest: Seconds before a turn, so that threads of the file before are asleep.
    """

    rounds: int = 12
    burst: int = 6
    rest: float = 0.02

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.rounds < 1 or self.burst < 2 or self.rest < 0:
            raise CompressError("timing needs rounds >= 1, burst >= 2 and rest >= 0")


def footprints(
    models: Mapping[str, bytes], fed: Inputs, device: Device, config: TimingConfig | None = None
) -> dict[str, Footprint]:
    """Return the cost of files that answer to the same inputs, timed in turns.

    Args:
        models: Files by name.
        fed: Inputs of one item.
        device: Says how many threads, and what memory a process gets.
        config: How times are taken.

    Raises:
        CompressError: When a file cannot run within the device's memory; says which.
    """
    config = config or TimingConfig()
    wall = _milliseconds(models, fed, device.threads, time.perf_counter, config)
    cpu = _milliseconds(models, fed, 1, time.process_time, config)
    return {
        name: Footprint(
            len(model) / 1e6, wall[name], cpu[name], peak_memory(name, model, fed, device)
        )
        for name, model in models.items()
    }


def peak_memory(name: str, model: bytes, fed: Inputs, device: Device) -> float:
    """Return peak resident megabytes of a process that opens a file and runs it once.

    The process may use no more address space than the device has.

    Raises:
        CompressError: When that does not suffice.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        path, given = Path(folder) / "model.onnx", Path(folder) / "inputs.npz"
        path.write_bytes(model)
        np.savez(given, **dict(fed))
        limit = str(device.memory_mb * 2**20)
        command = [sys.executable, "-I", str(_CHILD), str(path), str(given), limit]
        # Without room for their stacks, numpy's own threads wait for each other at the end.
        alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False, env=alone
        )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise CompressError(
            f"{name} does not run within the {device.memory_mb:,} MB of {device.name}: {why}"
        )
    return float(json.loads(done.stdout)["peak_mb"])


def _milliseconds(
    models: Mapping[str, bytes],
    fed: Inputs,
    threads: int,
    clock: Any,
    config: TimingConfig,
) -> dict[str, float]:
    sessions = {name: open_session(model, threads=threads) for name, model in models.items()}
    taken: dict[str, list[float]] = {name: [] for name in models}
    given = dict(fed)
    for turn in range(config.rounds + 1):
        for name, session in sessions.items():
            time.sleep(config.rest)
            for place in range(config.burst):
                began = clock()
                session.run(None, given)
                if turn and place:
                    taken[name].append(1e3 * (clock() - began))
    return {name: float(np.median(each)) for name, each in taken.items()}
