"""Memory: bytes of activations kept for the backward pass under a budget, and what that costs.

Three nets: an MLP of 12 blocks, ResNet-18, a small transformer (6 pre-norm layers). Each gets a
budget of .3 of what it keeps by itself; the runtime chooses an exact plan. Bytes are counted by
hooks (each storage once, weights left out), time is the least CPU time of interleaved repeats of
forward and backward, one thread. Below, the plans one may ask for by hand, lossy ones with the
error of the gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kernels.runtime.memory import Memory, MemoryConfig, Plan
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table, threads

BUDGET = 0.3
BY_HAND: dict[str, MemoryConfig] = {
    "selective": MemoryConfig(recompute="selective"),
    "lossless": MemoryConfig(packing="lossless"),
    "bf16": MemoryConfig(packing="bf16"),
    "int8": MemoryConfig(packing="int8"),
    "full+int8": MemoryConfig(recompute="full", packing="int8"),
}
Net = tuple[nn.Module, Tensor]


def mlp(*, smoke: bool) -> Net:
    """Twelve blocks of norm, two linear layers, GELU, ReLU, dropout."""
    width = 32 if smoke else 256

    def block() -> nn.Module:
        return nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
            nn.ReLU(),
            nn.Dropout(0.1),
        )

    return nn.Sequential(*(block() for _ in range(12))), torch.randn(64 if smoke else 512, width)


def resnet18(*, smoke: bool) -> Net:
    """The net of torchvision on pictures of 64 pixels (32 when small)."""
    from torchvision.models import resnet18 as make

    size, count = (32, 2) if smoke else (64, 8)
    return make(num_classes=10), torch.randn(count, 3, size, size)


def transformer(*, smoke: bool) -> Net:
    """Six pre-norm layers of four heads."""
    width, length = (32, 32) if smoke else (128, 128)
    layers = [
        nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True, norm_first=True)
        for _ in range(6)
    ]
    return nn.Sequential(*layers), torch.randn(2 if smoke else 16, length, width)


NETS: Mapping[str, Callable[..., Net]] = {
    "mlp": mlp,
    "resnet18": resnet18,
    "transformer": transformer,
}


def measure(net: Net, seed: int, repeats: int) -> tuple[dict[str, dict[str, Any]], int]:
    """Return, by plan, its bytes, seconds and gradients; and the bytes without any."""
    model, x = net
    start = {name: b.clone() for name, b in model.named_buffers()}

    def forward() -> Tensor:
        torch.manual_seed(seed)
        for name, buffer in model.named_buffers():
            buffer.copy_(start[name])
        return (model(x) ** 2).mean()

    def step(memory: Memory) -> Tensor:
        model.zero_grad()
        with memory.active():
            with memory.saving():
                loss = forward()
            loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    nothing = Memory(MemoryConfig(), model).measured(Plan("none", 0, "none"), forward)
    budget = Memory(MemoryConfig(budget_mib=BUDGET * nothing / 2**20), model)
    budget.choose(forward)
    plans = {"none": Memory(MemoryConfig(), model), "budget": budget}
    plans |= {name: Memory(config, model) for name, config in BY_HAND.items()}
    found: dict[str, dict[str, Any]] = {}
    for name, memory in plans.items():
        kept = memory.measured(memory.plan, forward)
        found[name] = {"plan": str(memory.plan), "bytes": kept, "gradient": step(memory)}
    for _ in range(repeats):
        for name, memory in plans.items():
            with stopwatch() as took:
                step(memory)
            found[name]["cpu"] = min(found[name].get("cpu", float("inf")), took.cpu)
            found[name]["wall"] = min(found[name].get("wall", float("inf")), took.wall)
    return found, nothing


def main(argv: list[str] | None = None) -> None:
    """Command line of the benchmark."""
    args = parser("memory", "activation bytes under a budget against none").parse_args(argv)
    result: dict[str, Any] = {}
    rows = []
    with threads(1), warnings.catch_warnings():
        # torch's warning that its fast path for inference is not taken by layers with pre-norm.
        warnings.filterwarnings("ignore", message="enable_nested_tensor")
        for name, make in NETS.items():
            torch.manual_seed(args.seed)
            found, nothing = measure(make(smoke=args.smoke), args.seed, 1 if args.smoke else 12)
            base = found["none"]
            for plan, each in found.items():
                off = float((each["gradient"] - base["gradient"]).abs().max())
                error = off / float(base["gradient"].abs().max())
                share, slow = each["bytes"] / nothing, each["cpu"] / base["cpu"]
                rows.append((name, plan, each["plan"], each["bytes"] / 2**20, share, slow, error))
                if plan == "budget":
                    result[f"saved_bytes_ratio_{name}"] = share
                    result[f"slowdown_{name}"] = slow
                    result[f"max_grad_err_{name}"] = error
                    result[f"wall_ms_{name}"] = 1e3 * each["wall"]
                    result[f"wall_ms_{name}_none"] = 1e3 * base["wall"]
    for key in ("saved_bytes_ratio", "slowdown", "max_grad_err"):
        result[key] = max(result[f"{key}_{name}"] for name in NETS)
    columns = ("net", "asked for", "plan", "MiB", "bytes", "time", "gradient error")
    table("activations kept", columns, rows)
    emit(result, args)


if __name__ == "__main__":
    run_program("memory", main)
