"""What each process of the benchmark ``parallel`` does; the first one writes what came of it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed.device_mesh
import torch.distributed.fsdp
import torch.distributed.pipelining
import torch.distributed.tensor.parallel
from torch import Tensor, nn

from kernels.runtime.callbacks import History
from kernels.runtime.compression import CompressionConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.group import Group
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.parallel import ParallelConfig
from kernels.runtime.runner import Runner

PLAN = {"0": "column", "2": "row", "4": "column", "6": "row"}
LAYOUTS: dict[str, list[ParallelConfig]] = {
    "ddp": [ParallelConfig()],
    "fsdp": [ParallelConfig(shard=8), ParallelConfig(data=2, shard=4, offload=True)],
    "tp": [ParallelConfig(tensor=4, plan=PLAN)],
    "pp": [
        ParallelConfig(pipeline=4, cuts=("2", "4", "6")),
        ParallelConfig(pipeline=2, cuts=("2", "4", "6"), schedule="interleaved", micro_batches=2),
    ],
    "d3": [ParallelConfig(pipeline=2, shard=2, tensor=2, cuts=("4",), plan=PLAN, micro_batches=2)],
}
COMPRESSIONS = {
    "none": CompressionConfig(),
    "bf16": CompressionConfig(method="bf16"),
    "powersgd": CompressionConfig(method="powersgd", rank=8),
    "topk": CompressionConfig(method="topk", share=0.25),
}
IN, OUT = 32, 10


def make_model(width: int, seed: int = 0) -> nn.Sequential:
    """Four matrices."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(IN, width),
        nn.Tanh(),
        nn.Linear(width, width),
        nn.Tanh(),
        nn.Linear(width, width),
        nn.Tanh(),
        nn.Linear(width, OUT),
    )


def batch_of(index: int, rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return inputs and classes; the classes are those of a fixed random net."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + index)
    x = torch.randn(rows, IN, generator=generator)
    generator.manual_seed(17)
    first, second = (torch.randn(IN, n, generator=generator) for n in (IN, OUT))
    return x, ((x @ first / IN**0.5).relu() @ second).argmax(1)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    """Return the cross entropy summed over the rows with an even first digit, and their number."""
    x, y = batch
    valid = x[:, 0] > -1.0
    found = nn.functional.cross_entropy(model(x), y, reduction="none")
    return found[valid].sum(), int(valid.sum())


def parity(layout: ParallelConfig, steps: int) -> dict[str, Any]:
    """Train in a layout; return losses and weights."""
    model, history = make_model(64), History()
    config = RunConfig(
        steps=steps, optimizer=OptimizerConfig(name="sgd", learning_rate=0.05), parallel=layout
    )
    Runner(model, lambda i: batch_of(i, 64), loss, config, callbacks=[history]).run()
    return {
        "losses": [each.loss for each in history.steps],
        "weights": nn.utils.parameters_to_vector(model.parameters()).tolist(),
    }


def compressed(config: CompressionConfig, seed: int, steps: int) -> dict[str, Any]:
    """Train with compressed gradients; return the loss on fresh rows, and bytes and time."""
    model = make_model(96, seed)
    plan = RunConfig(
        steps=steps,
        seed=seed,
        optimizer=OptimizerConfig(learning_rate=3e-3),
        parallel=ParallelConfig(compression=config),
    )
    runner = Runner(model, lambda i: batch_of(i, 128, seed + 1), loss, plan)
    began = time.perf_counter(), time.process_time()
    runner.run()
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    with torch.no_grad():
        value, count = loss(model, batch_of(0, 4_096, 999))
    sent = runner._group.sent_bytes
    return {"loss": float(value) / count, "bytes": sent, "wall": wall, "cpu": cpu}


def parities(sizes: dict[str, Any], path: Path) -> None:
    """Train in all layouts, in one group."""
    torch.set_num_threads(1)
    with Group.join(timeout=120) as group:
        found = {
            name: [parity(layout, sizes["steps"]) for layout in layouts[: sizes["layouts"]]]
            for name, layouts in LAYOUTS.items()
        }
        if group.is_first:
            path.write_text(json.dumps(found))


def compressions(sizes: dict[str, Any], path: Path) -> None:
    """Train with all compressions and seeds, in one group."""
    torch.set_num_threads(1)
    with Group.join(timeout=120) as group:
        found: dict[str, list[Any]] = {name: [] for name in COMPRESSIONS}
        for seed in range(sizes["seeds"]):
            for name, config in COMPRESSIONS.items():
                found[name].append(compressed(config, seed, sizes["compressed_steps"]))
        if group.is_first:
            path.write_text(json.dumps(found))
