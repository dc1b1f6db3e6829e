"""Parallel training: every layout against one process, compressed gradients, balanced samples.

Gloo on this machine. Parity: eight processes train a net of four matrices in fp32 by data parallel,
FSDP2, tensor, pipeline (1F1B and interleaved) and 3D parallel; figures are the largest difference
of any loss and of any weight from one process. Compression: four processes train a classifier, ten
seeds; bytes as rings send them, losses on fresh rows. Balance: mean cost of eight workers over the
largest, batches of 256 samples of log-normal length.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kernels.runtime.cost_split import CostSplit
from kernels.runtime.parallel import ParallelConfig
from tests.benchmarks import _parallel_worker as worker
from tests.benchmarks._forked import forked
from tests.benchmarks._harness import emit, parser, run_program, table, threads

FULL = {"steps": 50, "layouts": 2, "seeds": 10, "compressed_steps": 300}
SMOKE = {"steps": 2, "layouts": 1, "seeds": 1, "compressed_steps": 6}
WORKERS = 8


def measured(sizes: dict[str, Any]) -> dict[str, Any]:
    """Run the processes; return what came of them. Nothing may have been computed before."""
    parts = (("parity", WORKERS, worker.parities), ("compression", 4, worker.compressions))
    found = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of FSDP, that a layer returns a view
        for name, processes, work in parts:
            path = Path(folder) / name
            forked(processes, partial(work, sizes, path))
            found[name] = json.loads(path.read_text())
    return found


def differences(parity: dict[str, list[Any]], steps: int) -> dict[str, float]:
    """Return how far losses and weights of each layout are from those of one process."""
    with threads(1):
        alone = worker.parity(ParallelConfig(), steps)
    return {
        f"{name}_diff": max(
            float(np.abs(np.subtract(one[key], alone[key])).max())
            for one in layouts
            for key in ("losses", "weights")
        )
        for name, layouts in parity.items()
    }


def costs_of(compression: dict[str, list[Any]]) -> tuple[dict[str, Any], list[list[Any]]]:
    """Return bytes over those of uncompressed gradients, losses, and rows of a table."""
    keys: dict[str, Any] = {}
    rows = []
    base = np.array([one["loss"] for one in compression["none"]])
    for name, runs in compression.items():
        losses = np.array([one["loss"] for one in runs])
        sent = sum(o["bytes"] for o in runs) / sum(o["bytes"] for o in compression["none"])
        gap = losses - base
        seconds = [sum(o[key] for o in runs) for key in ("wall", "cpu")]
        rows.append([name, sent, losses.mean(), losses.std(), gap.mean(), gap.std(), *seconds])
        keys |= {f"loss_{name}": losses.mean(), f"loss_{name}_std": losses.std()}
        if name != "none":
            keys |= {
                f"bytes_ratio_{name}": sent,
                f"loss_gap_{name}": gap.mean(),
                f"loss_gap_{name}_std": gap.std(),
            }
    return keys, rows


def balances(batches: int, seed: int) -> dict[str, float]:
    """Return the balance of equal numbers of samples and of equal costs, means and worst batch."""
    split = CostSplit(lambda lengths: lengths.double().numpy())
    for index in range(batches):
        lengths = np.random.default_rng([seed, index]).lognormal(5, 1, 256).astype(int) + 1
        split(torch.from_numpy(lengths), WORKERS)
    return {
        "balance_before": float(np.mean(split.before)),
        "balance_after": float(np.mean(split.after)),
        "balance_after_worst": min(split.after),
    }


def main(argv: list[str] | None = None) -> None:
    """Command line of the benchmark."""
    args = parser("parallel", "layouts of processes against one process").parse_args(argv)
    sizes = SMOKE if args.smoke else FULL
    found = measured(sizes)
    parity = differences(found["parity"], sizes["steps"])
    compression, rows = costs_of(found["compression"])
    balance = balances(4 if args.smoke else 100, args.seed)
    table("losses and weights against one process", ("layout", "difference"), list(parity.items()))
    columns = ("gradients", "bytes", "loss", "std", "gap", "its std", "wall s", "CPU s")
    table(f"4 processes, {sizes['seeds']} seeds", columns, rows)
    table("cost of workers, mean over largest", ("samples", "balance"), list(balance.items()))
    emit(parity | compression | balance, args)


if __name__ == "__main__":
    run_program("parallel", main)
