"""Checkpoints: how long a run stands still for one, and what survives kill -9 and torn files.

State of a net and its AdamW moments is saved (256 MB; 2 MB when small): in the background, where
the run stands still while tensors are copied, and otherwise, until the files are hashed, flushed
and renamed. Least wall times of repeats; a background save begins once the one before is written,
as it does when checkpoints are further apart than it takes to write one. Then a small run with
every part that has a state is killed at random moments, and again, until it is through; its weights
must be those of a run that nobody killed. Last, checkpoints are cut, altered and deleted file by
file: each must be found, and the one before be used.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import nn

from kernels.runtime import checkpoint_files, optimizer
from kernels.runtime.checkpoint import CheckpointConfig, Checkpoints
from kernels.runtime.checkpoint_files import MANIFEST, STATE, TENSORS
from kernels.runtime.optimizer import OptimizerConfig
from tests.benchmarks._harness import emit, parser, run_program, table

PROGRAM = Path(__file__).resolve().parents[1] / "kernels" / "runtime" / "killed_run.py"
STEPS, KILLS = 60, 24
DAMAGES = ("cut", "altered", "deleted")


def state_of(megabytes: int) -> dict[str, Any]:
    """Return a model and its optimizer's state of about that size, as a run collects it."""
    width = int((megabytes * 1e6 / 4 / 3 / 8) ** 0.5)
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(8)))
    made = optimizer.build(OptimizerConfig(), optimizer.parameter_groups(model, 0.0))
    model(torch.randn(2, width)).sum().backward()
    made.step()
    return {"model": model.state_dict(), "optimizer": made.state_dict()}


def saving_times(folder: Path, state: dict[str, Any], repeats: int) -> dict[str, float]:
    """Return milliseconds for which a run stands still, in the background and otherwise."""
    found = {}
    for name, background in (("blocked_ms_async", True), ("sync_ms", False)):
        config = CheckpointConfig(every=1, background=background)
        checkpoints = Checkpoints(folder / name, config, 10**9)
        times = []
        for step in range(1, repeats + 2):
            began = time.perf_counter()
            checkpoints.save([checkpoints.folder], step, state)
            times.append(time.perf_counter() - began)
            checkpoints.wait()
        checkpoints.close(finished=False)
        # The first one makes room for the copies, once in a run.
        found[name] = 1e3 * min(times[1:])
        found[f"first_{name}"] = 1e3 * times[0]
    return found


def start(folder: Path, slow_ms: float) -> subprocess.Popen[str]:
    """Start the run that is to be killed."""
    command = [sys.executable, PROGRAM, str(folder), str(STEPS), str(slow_ms)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def killed(folder: Path, kills: int, rng: random.Random) -> tuple[bool, int]:
    """Return whether the run came to the same bits, and how often it was killed."""
    whole, _ = start(folder / "whole", 0.0).communicate(timeout=120)
    done = 0
    for _ in track(range(kills), "killing"):
        process = start(folder / "killed", 40.0)
        try:
            # At least the first step; then at a random moment of the next two or three.
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.12))
        finally:
            process.kill()
            process.communicate()
            done += process.returncode == -9
    rest, _ = start(folder / "killed", 0.0).communicate(timeout=120)
    return whole.splitlines()[-1] == rest.splitlines()[-1], done


def torn(folder: Path) -> tuple[int, int]:
    """Return how many damaged checkpoints were found out, and how many there were."""
    config, found, tried = CheckpointConfig(every=1), 0, 0
    for name in (MANIFEST, STATE, TENSORS):
        for damage in DAMAGES:
            place = folder / f"{name}-{damage}"
            for step in (1, 2):
                state = {"model": {"w": torch.arange(1000.0) + step}, "step": step}
                checkpoints = Checkpoints(place, config, 10)
                checkpoints.save([place], step, state)
                checkpoints.close(finished=False)
            file = place / "step-00000002" / name
            content = file.read_bytes()
            if damage == "deleted":
                file.unlink()
            else:
                bit = bytes([content[-2] ^ 1])
                file.write_bytes(
                    content[:-9] if damage == "cut" else content[:-2] + bit + content[-1:]
                )
            tried += 1
            newest = Checkpoints(place, config, 10).newest()
            if newest is not None and newest.step == 1:
                found += checkpoint_files.read(newest.path)["step"] == 1
    return found, tried


def main(argv: list[str] | None = None) -> None:
    """Command line of the benchmark."""
    args = parser("checkpoint", "saving in the background, kills, torn files").parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as name:
        folder = Path(name)
        times = saving_times(folder, state_of(2 if args.smoke else 256), 1 if args.smoke else 8)
        equal, kills = killed(folder, 1 if args.smoke else KILLS, random.Random(args.seed))
        detected, tried = torn(folder)
    result = {
        **times,
        "blocked_ratio": times["blocked_ms_async"] / times["sync_ms"],
        "resume_equal_bits": equal,
        "kills": kills,
        "torn_detected": detected,
        "torn_tried": tried,
    }
    table("checkpoints", ("figure", "value"), list(result.items()))
    emit(result, args)


if __name__ == "__main__":
    run_program("checkpoint", main)
