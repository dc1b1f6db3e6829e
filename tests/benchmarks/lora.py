"""Lora: a net brought to another camera by a few images, all of it or an adapter alone.

For each seed the inspection's small net learns nine kinds of surface. Another camera follows, which
shows negatives with noise, of which a few images of each kind are labelled. The whole net is
fine-tuned on them, and, from the same weights and batches, an adapter with the head. Likewise a
small text encoder that has learned one maker's log lines, and gets a few of another maker's.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kernels.compression.adapters.adapters import attach, merged
from kernels.compression.adapters.low_rank import LoraConfig
from tests.benchmarks._compared import differences, means_of
from tests.benchmarks._harness import emit, parser, run_program, table, threads
from tests.benchmarks._log_lines import TextEncoder, make_lines, share_right, train_on
from tests.benchmarks._seeds import add_trainings, over_seeds
from tests.benchmarks._texture_nets import SmallNet, add_kept, kept_or, size
from tests.benchmarks._texture_task import PARTS, accuracy, inputs, make_task, some_task, train

KEYS = ("trainable_share", "acc_before", "acc_full", "acc_lora")


def adapted(base: nn.Module, config: LoraConfig, beside: tuple[str, ...] = ("head",)) -> nn.Module:
    """Return a copy of a net with an adapter; small parts beside it are trained as they are."""
    net = copy.deepcopy(base)
    attach(net, config)
    for name, parameter in net.named_parameters():
        if name.startswith(beside):
            parameter.requires_grad_()
    return net


def merging(net: nn.Module, x: Tensor) -> dict[str, float]:
    """Return how far answers of the merged net lie from those of net and adapter.

    The largest difference in float32, relative to the largest answer, and in float64.
    """
    net.eval()
    with torch.no_grad():
        inside, beside = merged(net, "default")(x), net(x)
        double = copy.deepcopy(net).double()
        fine = x.double() if x.is_floating_point() else x
        exact = (merged(double, "default")(fine) - double(fine)).abs().max()
    apart = float((inside - beside).abs().max())
    return {
        "merge_max_diff": apart / float(beside.abs().max()),
        "merge_max_diff_absolute": apart,
        "merge_max_diff_float64": float(exact),
    }


def camera(seed: int, args: Any) -> dict[str, float]:
    """Bring the small net to another camera, both ways."""
    task = some_task(seed, args)
    shots = (args.shots, 1, 2 if args.smoke else 2 * PARTS[2])
    other = make_task(seed + 1_000, shots, noise=0.1, device=args.device)
    torch.manual_seed(seed)
    base = SmallNet(task.classes)
    name = f"small_{seed}_{args.steps}_{len(task.train[1])}"
    kept_or(args.kept, name, base, lambda net: train(net, task, args.steps))
    convolutions = tuple(n for n, m in base.named_modules() if isinstance(m, nn.Conv2d))
    config = LoraConfig(
        rank=args.rank,
        alpha=2.0 * args.rank,
        dropout=0.0,
        targets=convolutions,
        norms=not args.shared_norms,
    )
    whole, small = copy.deepcopy(base), adapted(base, config)
    trained = sum(p.numel() for p in small.parameters() if p.requires_grad)
    train(whole, other, args.tune_steps, args.rate_full)
    train(small, other, args.tune_steps, args.rate)
    return {
        "seed": seed,
        "acc_first_camera": accuracy(base, task.test),
        "acc_before": accuracy(base, other.test),
        "acc_full": accuracy(whole, other.test),
        "acc_lora": accuracy(small, other.test),
        "trainable_share": trained / size(base),
        **merging(small, inputs(other.test[0][:32])),
    }


def text(seed: int, args: Any) -> dict[str, float]:
    """Bring the text encoder to another maker's lines, both ways."""
    steps, count = (2, 3) if args.smoke else (300, 100)
    lines, test = make_lines(seed, count), make_lines(seed, count, other=True)
    few = make_lines(seed + 1_000, args.shots, other=True)
    torch.manual_seed(seed)
    base = TextEncoder()
    train_on(base, lines, seed, steps, 1e-3)
    config = LoraConfig(
        rank=args.text_rank,
        alpha=2.0 * args.text_rank,
        dropout=0.0,
        targets=("words", "query", "value"),
    )
    whole, small = copy.deepcopy(base), adapted(base, config, ("head", "places"))
    trained = sum(p.numel() for p in small.parameters() if p.requires_grad)
    train_on(whole, few, seed, steps, args.text_rate_full)
    train_on(small, few, seed, steps, args.text_rate)
    return {
        "seed": seed,
        "acc_first_maker": share_right(base, make_lines(seed + 2_000, count)),
        "acc_before": share_right(base, test),
        "acc_full": share_right(whole, test),
        "acc_lora": share_right(small, test),
        "trainable_share": trained / size(base),
        **merging(small, test[0][-32:]),
    }


def of_seed(seed: int, args: Any) -> dict[str, dict[str, float]]:
    """Return the rows of both nets."""
    return {"camera": camera(seed, args), "text": text(seed, args)}


def summary(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return means, the worst merge, and the loss against the whole net with its interval."""
    worst = {
        key: max(row[key] for row in rows) for key in rows[0] if key.startswith("merge_max_diff")
    }
    lost = differences(rows, {"loss": ("acc_full", "acc_lora")})
    return {**means_of(rows, KEYS), **worst, **lost, "rows": rows}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("lora", __doc__.splitlines()[0])
    add_trainings(made)
    made.add_argument("--steps", type=int, default=400, help="of the first training")
    made.add_argument("--tune-steps", type=int, default=300, help="on the other camera")
    made.add_argument("--shots", type=int, default=20, help="labelled images (lines) per kind")
    made.add_argument("--rank", type=int, default=4)
    made.add_argument("--rate", type=float, default=2e-3, help="learning rate of the adapter")
    made.add_argument("--rate-full", type=float, default=5e-4, help="of the whole net")
    made.add_argument("--shared-norms", action="store_true", help="no norms of the adapter's own")
    made.add_argument("--text-rank", type=int, default=8)
    made.add_argument("--text-rate", type=float, default=1e-2)
    made.add_argument("--text-rate-full", type=float, default=8e-3)
    add_kept(made)
    args = made.parse_args(argv)
    if args.smoke:
        args.seeds, args.steps, args.tune_steps, args.shots = 1, 2, 2, 3
    with threads(1):
        rows, cpu = over_seeds(partial(of_seed, args=args), args)
    found = {name: summary([row[name] for row in rows]) for name in ("camera", "text")}
    shown = (*KEYS, "merge_max_diff")
    table("lora", ("net", *shown), [(n, *(f[key] for key in shown)) for n, f in found.items()])
    emit({**found["camera"], "text": found["text"], "cpu_seconds": cpu}, args)


if __name__ == "__main__":
    run_program("lora", main)
