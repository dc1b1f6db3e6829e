"""Runs of many layouts in one group: ``python parallel_run.py FOLDER``.

Start-up takes longer than all of them, so one launch does them all. The first process writes what
it found to FOLDER/found.json: the weights of each case, and the messages of what was refused.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import torch
import torch.distributed.device_mesh
import torch.distributed.fsdp
import torch.distributed.pipelining
import torch.distributed.tensor.parallel
from torch import nn

from kernels.runtime import checkpoint_files, run_state
from kernels.runtime.accumulation import AccumulationConfig
from kernels.runtime.checkpoint import CheckpointConfig
from kernels.runtime.compensation import ParametersConfig
from kernels.runtime.compression import Compression, CompressionConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.ema import EmaConfig
from kernels.runtime.evaluation import EvaluationConfig
from kernels.runtime.group import Group
from kernels.runtime.memory import MemoryConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.parallel import ParallelConfig
from kernels.runtime.precision import PrecisionConfig
from kernels.runtime.runner import Runner
from kernels.runtime.spread import Spread
from tests.benchmarks._forked import forked
from tests.kernels.runtime.small import weights

STEPS = 4
PLAN = {"0": "column", "2": "row", "4": "gathered"}
LAYOUTS = {
    "data": ParallelConfig(),
    "data x shard, off-loaded": ParallelConfig(data=2, shard=2, offload=True),
    "data x pipeline": ParallelConfig(pipeline=2, cuts=("2",)),
    "data x interleaved": ParallelConfig(
        pipeline=2, cuts=("2", "3", "4"), schedule="interleaved", micro_batches=2
    ),
    "shard x tensor": ParallelConfig(shard=2, tensor=2, plan=PLAN),
    "pipeline x tensor": ParallelConfig(pipeline=2, cuts=("4",), tensor=2, plan=PLAN),
}
CONTEXTS = {
    "data x context": ParallelConfig(context=2),
    "pipeline x context": ParallelConfig(context=2, pipeline=2, cuts=("1",), micro_batches=2),
}
COMPRESSIONS = {
    "none": CompressionConfig(),
    "bf16": CompressionConfig(method="bf16"),
    "powersgd": CompressionConfig(method="powersgd", rank=2),
    "topk": CompressionConfig(method="topk", share=0.1),
    "late": CompressionConfig(method="topk", share=0.1, start_step=99),
}
RESUMED = [
    ("data", "shard x tensor"),
    ("data x shard, off-loaded", "pipeline x tensor"),
    ("data x interleaved", "data"),
]


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 10), nn.LayerNorm(10), nn.Linear(10, 4)
    ).double()


def source(index):
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(32, 6, generator=generator, dtype=torch.float64)
    return x, x[:, :4].cumsum(1).sin()


def ragged(model, batch):
    """Every share has another number of items that count."""
    x, y = batch
    valid = x[:, 0] > -0.5
    return ((model(x) - y)[valid] ** 2).sum(), int(valid.sum())


def narrow_loss(model, batch):
    x, y = batch
    return ((model(x.bfloat16()).double() - y) ** 2).sum(), len(x)


def judge(model: nn.Module) -> float:
    return float(weights(model).abs().sum())


def config(layout: ParallelConfig, steps: int = STEPS, **more) -> RunConfig:
    more.setdefault("checkpoint", CheckpointConfig(every=2))
    more.setdefault("ema", EmaConfig(decay=0.9))
    more.setdefault("accumulation", AccumulationConfig(parts=2, max_parts=2))
    return RunConfig(
        steps=steps,
        optimizer=OptimizerConfig(learning_rate=0.02),
        evaluation=EvaluationConfig(every=2),
        parallel=layout,
        **more,
    )


def runner_of(layout: ParallelConfig, folder: Path | None = None, batches=source, **more) -> Runner:
    model = more.pop("model", None) or make_model()
    if Group.current().rank:
        nn.init.zeros_(next(model.parameters()))  # the first one's weights are everybody's
    build = more.pop("build_optimizer", None)
    loss = more.pop("loss", ragged)
    plan = config(layout, **more)
    others = {"folder": folder, "evaluate": judge, "build_optimizer": build}
    return Runner(model, batches, loss, plan, **others)


def trained(layout: ParallelConfig, folder: Path | None = None, **more) -> dict[str, Any]:
    """Return the weights that a run ends with, how far processes are apart, and its figure."""
    runner = runner_of(layout, folder, **more)
    report = runner.run()
    found = weights(runner.model)
    own = all(p.untyped_storage().nbytes() == 8 * p.numel() for p in runner.model.parameters())
    told = {"apart": apart(found), "best": report.best, "own memory": own}
    return {"weights": found.tolist()} | told


def apart(found: torch.Tensor) -> float:
    every = Group.current().gather({"found": found})
    return max(float((one["found"] - found).abs().max()) for one in every)


def resumed(before: Path, folder: Path, layout: ParallelConfig) -> dict[str, Any]:
    """Go on in another layout from the middle; what is loaded first must equal what was saved."""
    group = Group.current()
    if group.is_first:
        shutil.copytree(before / "step-00000002", folder / "step-00000002")
    group.sum(0)  # wait for it
    runner = runner_of(layout, folder)
    runner._resume()
    parts = runner._parts()
    now = run_state.collect(runner.step, runner.config, runner._spread, parts, group)
    then = checkpoint_files.read(folder / "step-00000002")
    equal = not group.is_first or all(
        _equal(now[key], then[key]) for key in ("step", "model", "parts")
    )
    return {"equal": equal, **trained(layout, folder)}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(v, other[k]) for k, v in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    # What a group of the optimizer computes by may differ: it changes no result.
    return one == other or {one, other} <= {None, True, False}


def refused(layout: ParallelConfig, **more) -> str:
    """Return the message with which all processes refuse a run; their given model is whole."""
    runner = None
    try:
        runner = runner_of(layout, **more)
        runner.run()
    except (ValueError, RuntimeError) as error:
        alike = {one["told"] for one in Group.current().gather({"told": str(error)})}
        whole = runner is None or apart(weights(runner.model)) == 0.0
        return str(error) if len(alike) == 1 and whole else f"not alike: {alike}, {whole}"
    return "not refused"


def refusals() -> dict[str, str]:
    shard = ParallelConfig(shard=4)
    early = make_model()
    built = torch.optim.AdamW(early.parameters())

    def spoilt(index):
        x, y = source(index)
        if index == 2:
            x = x.clone()
            x[-1, 1] = float("nan")  # of the last share alone
            x[-1, 0] = 1.0
        return x, y

    def narrow(index):
        return tuple(t[:28] for t in source(index))

    pipeline = LAYOUTS["data x pipeline"]
    by_tokens = {"batches": sentences, "loss": by_token}
    return {
        "too early": refused(shard, model=early, build_optimizer=lambda _: built),
        "sizes": refused(ParallelConfig(shard=3)),
        "nan in shard": refused(shard, batches=spoilt),
        "nan in pipeline": refused(pipeline, batches=spoilt),
        "small batch": refused(shard, batches=lambda i: tuple(t[:7] for t in source(i))),
        "uneven": refused(pipeline, batches=narrow),
        "no sequence": refused(pipeline, model=Wrapped()),
        "no attention": refused(ParallelConfig(context=2), **by_tokens),
        "odd sequence": refused(ParallelConfig(context=4, context_dim=1), model=make_model()),
        "hidden attention": refused(ParallelConfig(context=2), model=Hidden(), **by_tokens),
        "no layer": refused(ParallelConfig(tensor=2, plan={"nothing": "row"})),
        "odd": refused(ParallelConfig(tensor=4, plan={"2": "column"})),
        "no block": refused(ParallelConfig(shard=2, blocks=("nothing",))),
        "no child": refused(ParallelConfig(pipeline=2, cuts=("nothing",))),
        "no weights": refused(ParallelConfig(pipeline=4, cuts=("1", "2", "4"))),
    }


class Tokens(nn.Module):
    """Attention over the tokens of a batch that brings their positions."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(6, 24), nn.Linear(8, 4)

    def forward(self, x):
        query, key, value = self.project(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(found.transpose(1, 2).flatten(2))


class Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 4)
        self.double()

    def forward(self, x):
        return self.out(self.attention(x, x, x, need_weights=False)[0])


def sentences(index):
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(8, 12, 6, generator=generator, dtype=torch.float64)
    x[..., 0] = torch.arange(12) / 12  # positions
    return x, x[..., 1:5].cumsum(1).sin()


def by_token(model, batch):
    x, y = batch
    valid = x[..., 1] > -0.5
    return ((model(x) - y)[valid] ** 2).sum(), int(valid.sum())


def attentive(layout: ParallelConfig) -> dict[str, Any]:
    """Return the weights of a net with attention.

    By SGD: the gradient of the keys' bias is rounding alone, which AdamW would blow up.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), Tokens()).double()
    optimizer = OptimizerConfig(name="sgd", learning_rate=0.02)
    plan = RunConfig(steps=STEPS, optimizer=optimizer, parallel=layout)
    Runner(model, sentences, by_token, plan).run()
    return {"weights": weights(model).tolist(), "apart": apart(weights(model))}


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = make_model()

    def forward(self, x):
        return self.net(x)


def statistics() -> dict[str, Any]:
    """Return the running statistics of a batch norm at the input, after three steps."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4)).double()
    Runner(model, source, ragged, RunConfig(steps=3)).run()
    norm = model[0]
    return {
        "mean": norm.running_mean.tolist(),
        "var": norm.running_var.tolist(),
        "apart": apart(torch.cat([norm.running_mean, norm.running_var])),
    }


def formats() -> dict[str, Any]:
    """Return the formats of the layers in each process; one share alone leaves fp16's range."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))

    def wide(index):
        x, y = (t.float() for t in source(index))
        x[-1] = 1e6
        return x, y

    precision = PrecisionConfig(compute="adaptive", look_every=1)
    runner = Runner(model, wide, ragged, RunConfig(steps=2, precision=precision))
    runner.run()
    return {"every": Group.current().gather(runner.precision.adaptive.formats)}


class Counted(nn.Linear):
    calls = 0

    def forward(self, x):
        Counted.calls += 1
        return super().forward(x)


def recomputed() -> dict[str, Any]:
    """Return weights and forward passes of a spread model that computes its blocks again."""
    found = {}
    for kind in ("none", "full", "selective"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), Counted(8, 4)).double()
        Counted.calls = 0
        layout = ParallelConfig(shard=2, tensor=2, plan={"0": "gathered"})
        memory = MemoryConfig(recompute=kind)
        one = trained(layout, model=model, memory=memory)
        found[kind] = {"calls": Counted.calls, "weights": one["weights"]}
    return found


def own_optimizer(groups):
    return torch.optim.RAdam(groups, lr=0.02, foreach=False)


def with_own_optimizer(folder: Path) -> dict[str, Any]:
    """Return the weights of an optimizer of the user's own, which goes on in another layout."""
    before, after = folder / "before", folder / "after"
    layout, group = LAYOUTS["shard x tensor"], Group.current()
    whole = trained(layout, before, build_optimizer=own_optimizer)
    if group.is_first:
        shutil.copytree(before / "step-00000002", after / "step-00000002")
    group.sum(0)
    again = trained(LAYOUTS["data x pipeline"], after, build_optimizer=own_optimizer)
    return {"whole": whole, "again": again}


def gradients(step: int, rank: int) -> list[torch.Tensor]:
    """Return a process's gradients of a matrix of rank 2 and a vector."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    thin = [torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (24, 40)]
    torch.manual_seed(step)
    left = torch.randn(24, 2, dtype=torch.float64)  # of all processes: the sum has rank 2, too
    matrix = left @ thin[1].T if step < 2 else torch.randn(24, 40, generator=generator).double()
    return [matrix, torch.randn(24, generator=generator, dtype=torch.float64)]


def compressed(config: CompressionConfig) -> dict[str, Any]:
    """Send gradients of five steps; what was sent and what is left must add up to all there was."""
    group = Group.current()
    compression = Compression(config)
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients(0, 0)]
    sent = [torch.zeros_like(p) for p in parameters]
    wanted = [torch.zeros_like(p) for p in parameters]
    largest = []
    for step in range(5):
        every = [gradients(step, rank) for rank in range(group.size)]
        for k, parameter in enumerate(parameters):
            parameter.grad = every[group.rank][k].clone()
            wanted[k] += sum(each[k] for each in every)
        group.sum_gradients(parameters, compression)
        for k, parameter in enumerate(parameters):
            sent[k] += parameter.grad
        largest.append(float((sent[0] - wanted[0]).abs().max()))
    state = compression.state_dict()
    left = group.gather({"errors": state["errors"]})
    rest = [sum(one["errors"].get(k, torch.zeros(())) for one in left) for k in range(2)]
    missing = [float((s + r - w).abs().max()) for s, r, w in zip(sent, rest, wanted, strict=True)]
    again = Compression(config)
    again.load_state_dict(state)
    ends = []
    for each in (compression, again):
        for parameter, gradient in zip(parameters, gradients(7, group.rank), strict=True):
            parameter.grad = gradient.clone()
        group.sum_gradients(parameters, each)
        ends.append(parameters[0].grad.clone())
    parameters[0].grad = torch.full_like(parameters[0], float("inf"))
    group.sum_gradients(parameters, again)
    return {
        "missing": max(missing),
        "behind": largest,
        "bytes": group.sent_bytes,
        "apart": apart(torch.cat([s.reshape(-1) for s in sent])),
        "restored": torch.equal(*ends),
        "kept": _equal(again.state_dict()["errors"], compression.state_dict()["errors"]),
        "infinite": bool(torch.isinf(parameters[0].grad).all()),
    }


def compressed_beside_context() -> dict[str, Any]:
    """Sum gradients over two dimensions; only one is compressed, and what it leaves is kept."""
    group = Group.current()
    layout = ParallelConfig(context=2, compression=COMPRESSIONS["topk"])
    model = nn.ParameterList(nn.Parameter(torch.zeros_like(g)) for g in gradients(0, 0))
    spread = Spread(model, layout, group)
    assert spread.compression is not None
    parameters = list(spread.model.parameters())
    sent = [torch.zeros_like(p) for p in parameters]
    wanted = [torch.zeros_like(p) for p in parameters]
    for step in range(3):
        every = [gradients(step, rank) for rank in range(group.size)]
        for k, parameter in enumerate(parameters):
            parameter.grad = every[group.rank][k].clone()
            wanted[k] += sum(each[k] for each in every)
        spread.sum_gradients(parameters)
        for k, parameter in enumerate(parameters):
            sent[k] += parameter.grad
    state = spread.compression.state_dict()
    left = group.gather({"errors": state["errors"]})
    rest = [sum(one["errors"].get(k, torch.zeros(())) for one in left) for k in range(2)]
    missing = [float((s + r - w).abs().max()) for s, r, w in zip(sent, rest, wanted, strict=True)]
    return {
        "missing": max(missing),
        "behind": float((sent[0] - wanted[0]).abs().max()),
        "steps": state["steps"],
        "apart": apart(torch.cat([s.reshape(-1) for s in sent])),
    }


def strides() -> dict[str, Any]:
    """Sum gradients of a picture's layout and of rows; return their strides and values."""
    group = Group.current()
    rows = torch.arange(96.0).reshape(2, 3, 4, 4)
    found = {}
    for kind in (torch.channels_last, torch.contiguous_format):
        parameter = nn.Parameter(torch.zeros_like(rows).to(memory_format=kind))
        parameter.grad = (rows + group.rank).to(memory_format=kind)
        group.sum_gradients([parameter])
        wanted = group.size * rows + sum(range(group.size))
        found[str(kind)] = {
            "kept": parameter.grad.stride() == parameter.stride(),
            "right": torch.equal(parameter.grad, wanted),
        }
    return found


def resumed_compressed(folder: Path) -> dict[str, Any]:
    """Return weights of a run at once, of one in two halves, and the log of another layout."""
    config = CompressionConfig(method="topk", share=0.2)
    layout = ParallelConfig(compression=config)
    found = {"whole": trained(layout, folder / "whole")["weights"]}
    group = Group.current()
    for name in ("half", "other"):
        if group.is_first:
            shutil.copytree(folder / "whole" / "step-00000002", folder / name / "step-00000002")
    group.sum(0)
    found["half"] = trained(layout, folder / "half")["weights"]
    with _logged("kernels.runtime.run_state") as told:
        other = ParallelConfig(data=2, shard=2, compression=config)
        found["other"] = trained(other, folder / "other")["weights"]
    return found | {"told": told}


@contextmanager
def _logged(name: str) -> Iterator[list[str]]:
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logging.getLogger(name).addHandler(handler)
    try:
        yield told
    finally:
        logging.getLogger(name).removeHandler(handler)


def work() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of FSDP's, on views
    with Group.join(timeout=60) as group:
        found: dict[str, Any] = {"layouts": {}, "resumed": {}}
        for name, layout in LAYOUTS.items():
            found["layouts"][name] = trained(layout, folder / name)
        for before, after in RESUMED:
            name = f"{before} -> {after}"
            found["resumed"][name] = resumed(folder / before, folder / name, LAYOUTS[after])
        found["refused"] = refusals()
        found["statistics"] = statistics()
        found["formats"] = formats()
        found["recomputed"] = recomputed()
        found["own optimizer"] = with_own_optimizer(folder / "own")
        narrow = ParametersConfig(dtype="bf16", rounding="master")
        found["bf16"] = trained(LAYOUTS["data"], parameters=narrow, loss=narrow_loss)
        found["context"] = {name: attentive(layout) for name, layout in CONTEXTS.items()}
        found["compressed"] = {name: compressed(config) for name, config in COMPRESSIONS.items()}
        found["compressed beside context"] = compressed_beside_context()
        found["strides"] = strides()
        found["resumed compressed"] = resumed_compressed(folder / "compressed")
        if group.is_first:
            (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    forked(4, work)
