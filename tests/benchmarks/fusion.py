"""Fusion: operators that go over memory once, against the ones of torch that they replace.

Chains of twelve element-wise operations: ``plain`` ones of arithmetic alone, ``mixed`` with one
exponential function in it, ``functions`` with three (sigmoid, tanh, exp), which arithmetic, not
memory, bounds; each for its value alone and with its gradient. ResNet-18 without its batch norms.
A step of AdamW over 60 tensors, against the plain loop and
against torch's fused one. Least CPU times of interleaved repeats, one thread; wall beside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kernels.ops.fused import reference
from kernels.ops.fused.adamw import FusedAdamW
from kernels.ops.fused.chain import Chain
from kernels.ops.fused.folding import folded
from kernels.ops.fused.steps import Operand, Step
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table, threads

Way = Callable[[], Any]
Times = dict[str, tuple[float, float]]

BEGIN = (Step("mul", Operand(0)), Step("add", Operand(1)))
CHAINS = {
    "plain": (
        *BEGIN, Step("relu"), Step("mul", 2.0), Step("sub", 0.5), Step("square"),
        Step("neg"), Step("add", Operand(0)), Step("maximum", 0.1), Step("div", 3.0),
        Step("minimum", 4.0), Step("abs"),
    ),
    "mixed": (
        *BEGIN, Step("gelu"), Step("mul", 2.0), Step("sub", 0.5), Step("square"),
        Step("neg"), Step("add", Operand(0)), Step("maximum", 0.1), Step("div", 3.0),
        Step("minimum", 4.0), Step("abs"),
    ),
    "functions": (
        *BEGIN, Step("sigmoid"), Step("mul", 2.0), Step("sub", 0.5), Step("tanh"),
        Step("square"), Step("neg"), Step("exp"), Step("add", Operand(0)), Step("relu"),
        Step("maximum", 0.1),
    ),
}  # fmt: skip


FEW = CHAINS["mixed"][:5]
"""For the small size: a whole chain takes seconds to compile."""


def measured(ways: dict[str, Way], repeats: int) -> Times:
    """Return the least CPU and wall seconds of each way."""
    best: Times = dict.fromkeys(ways, (float("inf"), float("inf")))
    for way in ways.values():
        way()
    for _ in range(repeats):
        for name, way in ways.items():
            with stopwatch() as took:
                way()
            best[name] = min(best[name][0], took.cpu), min(best[name][1], took.wall)
    return best


def chains(
    wanted: dict[str, tuple[Step, ...]],
    rows: int,
    repeats: int,
    result: dict[str, Any],
    *,
    compiled: bool,
) -> None:
    """Measure chains for their values, and with their gradients."""
    x, scale, bias = torch.randn(rows, 256), torch.randn(rows, 256), torch.randn(256)
    error = 0.0
    for name, steps in wanted.items():
        chain = Chain(steps)
        learned = x.clone().requires_grad_()
        functions = {"own": chain, "torch": _eager(steps)}
        if compiled:
            # All chains share a line of code here, and torch gives up after eight versions of one.
            torch.compiler.reset()
            functions["compile"] = torch.compile(_eager(steps))
        with torch.no_grad():
            values = {k: f(x, scale, bias) for k, f in functions.items()}
            error = max(error, float((values["own"] - values["torch"]).abs().max()))
            times = measured({k: _call(f, x, scale, bias) for k, f in functions.items()}, repeats)
        _note(result, f"chain_{name}", times)
        times = measured(
            {k: _gradient(f, learned, scale, bias) for k, f in functions.items()}, repeats
        )
        _note(result, f"chain_{name}_gradient", times)
    result["chain_max_error"] = error
    # The headline: a chain as models have it, trained.
    result["x_chain"] = result["x_chain_mixed_gradient"]


def make_net(*, small: bool) -> nn.Module:
    """Return ResNet-18, or a few of its layers."""
    torch.manual_seed(0)
    if small:
        layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)]
        return nn.Sequential(*layers, nn.BatchNorm2d(8), nn.ReLU())
    import torchvision

    model: nn.Module = torchvision.models.resnet18()
    return model


def conv_bn(batch: int, repeats: int, result: dict[str, Any], *, small: bool) -> None:
    """Measure a net for inference, as it is and folded."""
    model = make_net(small=small)
    model(torch.randn(8, 3, 64, 64))  # batch norms with statistics
    model.eval()
    short = folded(model)
    image = torch.randn(batch, 3, 64, 64)
    last = folded(model).to(memory_format=torch.channels_last)
    image_last = image.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        error = float((model(image) - short(image)).abs().max())
        ways: dict[str, Way] = {
            "torch": lambda: model(image),
            "own": lambda: short(image),
            "channels_last": lambda: last(image_last),
        }
        times = measured(ways, repeats)
    _note(result, "conv_bn_inference", times)
    result["conv_bn_max_error"] = error
    result["x_conv_bn_channels_last"] = times["torch"][0] / times["channels_last"][0]


def adamw(width: int, repeats: int, result: dict[str, Any]) -> None:
    """Measure a step over 20 matrices and 40 vectors."""
    torch.manual_seed(0)
    start = [torch.randn(width, width) for _ in range(20)]
    start += [torch.randn(width) for _ in range(40)]
    gradients = [torch.randn_like(p) for p in start]
    makers: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
        "torch": lambda p: torch.optim.AdamW(p, foreach=False, fused=False),
        "foreach": lambda p: torch.optim.AdamW(p, foreach=True),
        "fused": lambda p: torch.optim.AdamW(p, fused=True),
        "own": FusedAdamW,
    }
    ways: dict[str, Way] = {}
    ends: dict[str, list[nn.Parameter]] = {}
    for name, make in makers.items():
        ends[name] = [nn.Parameter(p.clone()) for p in start]
        for parameter, gradient in zip(ends[name], gradients, strict=True):
            parameter.grad = gradient.clone()
        ways[name] = make(ends[name]).step
    times = measured(ways, repeats)
    _note(result, "adamw", times)
    result["x_adamw_over_fused"] = times["fused"][0] / times["own"][0]
    result["x_adamw_fused"] = times["torch"][0] / times["fused"][0]
    result["x_adamw_foreach"] = times["torch"][0] / times["foreach"][0]
    pairs = zip(ends["own"], ends["torch"], strict=True)
    result["adamw_max_error"] = max(float((a - b).detach().abs().max()) for a, b in pairs)


def main(argv: list[str] | None = None) -> None:
    """Command line of the benchmark."""
    made = parser("fusion", "fused operators against those of torch")
    made.add_argument(
        "--compile", action="store_true", help="measure torch.compile, too (a minute of compiling)"
    )
    args = made.parse_args(argv)
    torch.manual_seed(args.seed)
    repeats = 2 if args.smoke else 15
    result: dict[str, Any] = {}
    with threads(1):
        wanted = {"mixed": FEW} if args.smoke else CHAINS
        chains(wanted, 64 if args.smoke else 4_096, repeats, result, compiled=args.compile)
        conv_bn(1 if args.smoke else 8, repeats, result, small=args.smoke)
        adamw(16 if args.smoke else 256, repeats, result)
    table("fused operators", ("figure", "value"), list(result.items()))
    emit(result, args)


def _note(result: dict[str, Any], name: str, times: Times) -> None:
    for way, (cpu, wall) in times.items():
        result[f"{name}_{way}_ms"] = 1e3 * cpu
        result[f"{name}_{way}_wall_ms"] = 1e3 * wall
    result[f"x_{name}"] = times["torch"][0] / times["own"][0]
    if "compile" in times:
        result[f"x_{name}_compile"] = times["torch"][0] / times["compile"][0]


def _eager(steps: tuple[Step, ...]) -> Callable[..., Tensor]:
    return lambda x, *operands: reference.chain(steps, x, operands)


def _call(function: Callable[..., Tensor], *given: Tensor) -> Way:
    return lambda: function(*given)


def _gradient(function: Callable[..., Tensor], *given: Tensor) -> Way:
    with torch.no_grad():
        gradient = torch.randn_like(function(*given))

    def way() -> None:
        for tensor in given:
            tensor.grad = None
        function(*given).backward(gradient)

    return way


if __name__ == "__main__":
    run_program("fusion", main)
