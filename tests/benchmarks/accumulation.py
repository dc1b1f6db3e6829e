"""Accumulation: memory of a step in four parts against the whole batch, and that both agree.

An MLP trains on batches of 16,384 rows with ragged numbers of valid ones. Memory is what the
process grows by over its size with model and optimizer (largest resident size, each way in a
process of its own). The same steps in float64 must end at the same weights.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kernels.runtime.accumulation import AccumulationConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.runner import run
from tests.benchmarks._harness import emit, parser, run_program, table

PARTS = 4
Batch = tuple[Tensor, Tensor, Tensor]


def make_model(width: int) -> nn.Module:
    """Eight layers."""
    torch.manual_seed(0)
    layers = [m for _ in range(8) for m in (nn.Linear(width, width), nn.GELU())]
    return nn.Sequential(nn.Linear(32, width), *layers, nn.Linear(width, 1))


def make_batch(index: int, rows: int) -> Batch:
    """Return inputs, targets and which of them count: ever fewer towards the end."""
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(rows, 32, generator=generator)
    valid = torch.rand(rows, generator=generator) < torch.linspace(1.0, 0.1, rows)
    return x, x.sum(1, keepdim=True).tanh(), valid


def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Return the squared error summed over the rows that count, and their number."""
    x, y, valid = batch
    return ((model(x) - y)[valid] ** 2).sum(), int(valid.sum())


def config(steps: int, parts: int) -> RunConfig:
    """Return a run in parts."""
    return RunConfig(steps=steps, accumulation=AccumulationConfig(parts=parts, max_parts=parts))


def grown_mib(parts: int, rows: int, width: int) -> float:
    """Train, and return the MiB that the batches added to this process."""
    model = make_model(width)
    run(model, lambda i: make_batch(i, 64), loss, config(1, 1))
    # The kernel's own mark of the largest size, which imports have raised: begin it anew.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident_mib("VmRSS")
    run(model, lambda i: make_batch(i, rows), loss, config(3, parts))
    return resident_mib("VmHWM") - before


def resident_mib(line: str) -> float:
    """Return a size of this process, as the kernel tells it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kib = next(row.split()[1] for row in status.splitlines() if row.startswith(f"{line}:"))
    return int(kib) / 1024


def in_own_process(parts: int, rows: int, width: int) -> float:
    """Return `grown_mib` of a fresh process."""
    code = (
        "import sys, json; from tests.benchmarks.accumulation import grown_mib; "
        "print(json.dumps(grown_mib(*map(int, sys.argv[1:]))))"
    )
    command = [sys.executable, "-c", code, str(parts), str(rows), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    return float(json.loads(done.stdout.splitlines()[-1]))


def difference(steps: int) -> float:
    """Return how far weights differ after some steps in float64."""
    ends = []
    for parts in (1, PARTS):
        model = make_model(32).double()

        def batch(index: int) -> Batch:
            x, y, valid = make_batch(index, 257)
            return x.double(), y.double(), valid

        run(model, batch, loss, config(steps, parts))
        ends.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    return float((ends[0] - ends[1]).abs().max())


def main(argv: list[str] | None = None) -> None:
    """Command line of the benchmark."""
    args = parser("accumulation", "a batch in four parts against the whole").parse_args(argv)
    rows, width = (4_096, 128) if args.smoke else (16_384, 256)
    result: dict[str, Any] = {
        "whole_mib": in_own_process(1, rows, width),
        "parts_mib": in_own_process(PARTS, rows, width),
        "max_param_diff": difference(3 if args.smoke else 50),
    }
    result["mem_ratio"] = result["parts_mib"] / result["whole_mib"]
    table("a step in four parts", ("figure", "value"), list(result.items()))
    emit(result, args)


if __name__ == "__main__":
    run_program("accumulation", main)
