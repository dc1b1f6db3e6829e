"""Training with products of 8 bits, emulated: what their rounding does to a net, not their speed.

In the block, the three products of a linear layer or convolution (forward, gradient of the inputs,
gradient of the weights) get factors rounded to int8, or to fp8 as Micikevicius et al. 2022
(https://arxiv.org/abs/2209.05433) use it: e4m3 forward, e5m2 for gradients. Each tensor has one
scale, found anew each time. Gradients are rounded up or down by chance in proportion, so that their
mean stays (Banner et al. 2018, https://arxiv.org/abs/1805.11046); sums, norms, the optimizer and
the weights it keeps are float32.

    with eight_bit_products(net, EightBitTrainingConfig(format="int8")):
        run(net, batches, loss, config)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

INT8_TOP = 127.0
FP8 = {"forward": torch.float8_e4m3fn, "backward": torch.float8_e5m2}
MANTISSA = {torch.float8_e4m3fn: 3, torch.float8_e5m2: 2}
Layer = nn.Linear | nn.Conv1d | nn.Conv2d


@dataclass(frozen=True, slots=True, kw_only=True)
class EightBitTrainingConfig:
    """How products are rounded.

    Attributes:
        format: ``int8``, or ``fp8``: e4m3 forward, e5m2 for gradients.
        stochastic: Gradients are rounded by chance, so that their mean stays.
        keep: Names of layers whose products stay float; first and last ones are the usual choice.
    """

    format: Literal["int8", "fp8"] = "int8"
    stochastic: bool = True
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.format not in {"int8", "fp8"}:
            raise ValueError(f"format {self.format!r} is none; give int8 or fp8")


def to_eight_bits(x: Tensor, kind: str, *, backward: bool, stochastic: bool) -> Tensor:
    """Return a tensor on an 8-bit grid with one scale, float32.

    Args:
        x: Any shape.
        kind: ``int8`` or ``fp8``.
        backward: Whether it is a gradient.
        stochastic: Round by chance in proportion.
    """
    largest = x.detach().abs().amax()
    if not bool(largest > 0):
        return x
    if kind == "int8":
        scale = largest / INT8_TOP
        return torch.clamp(_whole(x / scale, stochastic=stochastic), -INT8_TOP, INT8_TOP) * scale
    dtype = FP8["backward" if backward else "forward"]
    top = torch.finfo(dtype).max
    scaled = x * (top / largest)
    if stochastic:
        # Whole numbers of the last place at each number's exponent, above the least normal one.
        least = torch.finfo(dtype).smallest_normal
        exponent = torch.frexp(scaled.abs().clamp_min(least)).exponent - 1
        place = torch.ldexp(torch.ones_like(scaled), exponent - MANTISSA[dtype])
        scaled = torch.clamp(_whole(scaled / place, stochastic=stochastic) * place, -top, top)
    return scaled.to(dtype).to(x.dtype) * (largest / top)


def _whole(x: Tensor, *, stochastic: bool) -> Tensor:
    return torch.floor(x + torch.rand_like(x)) if stochastic else torch.round(x)


class _Rounded(torch.autograd.Function):
    """Rounds what goes forward; the gradient passes as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: str) -> Tensor:
        """Return the rounded factor."""
        del ctx
        return to_eight_bits(x, kind, backward=False, stochastic=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradient unchanged."""
        del ctx
        return gradients[0], None


class _RoundedBack(torch.autograd.Function):
    """Leaves what goes forward; rounds the gradient before both products of the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kind: str,
        stochastic: bool,  # noqa: FBT001 - ``apply`` takes places alone
    ) -> Tensor:
        """Return the answer unchanged."""
        ctx.kind, ctx.stochastic = kind, stochastic
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the rounded gradient."""
        made = to_eight_bits(gradients[0], ctx.kind, backward=True, stochastic=ctx.stochastic)
        return made, None, None


@contextmanager
def eight_bit_products(
    model: nn.Module, config: EightBitTrainingConfig | None = None
) -> Iterator[list[str]]:
    """Round the products of a net's linear layers and convolutions while the block runs.

    Args:
        model: The net; its weights stay what they are, float32.
        config: How products are rounded.

    Yields:
        Names of the layers whose products are rounded.

    Raises:
        ValueError: When ``keep`` names a layer that is none of these, or nothing is left.
    """
    config = config or EightBitTrainingConfig()
    known = {name: one for name, one in model.named_modules() if isinstance(one, Layer)}
    if missing := sorted(set(config.keep) - known.keys()):
        raise ValueError(f"keep names {', '.join(missing)}; layers are {', '.join(known)}")
    padded = [n for n, one in known.items() if getattr(one, "padding_mode", "zeros") != "zeros"]
    if wrong := sorted(set(padded) - set(config.keep)):
        raise ValueError(f"{', '.join(wrong)} pad with other values than 0; name them in keep")
    chosen = {name: one for name, one in known.items() if name not in config.keep}
    if not chosen:
        raise ValueError(f"{type(model).__name__} has no linear layer or convolution to round")
    for layer in chosen.values():
        layer.forward = _forward(layer, config)  # type: ignore[method-assign]  # for the block
    try:
        yield list(chosen)
    finally:
        for layer in chosen.values():
            del layer.forward


def _convolved(layer: nn.Conv1d | nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    product: Any = nn.functional.conv1d if weight.dim() == 3 else nn.functional.conv2d
    place = (layer.stride, layer.padding, layer.dilation, layer.groups)
    answer: Tensor = product(x, weight, None, *place)
    return answer


def _forward(layer: Layer, config: EightBitTrainingConfig) -> Any:
    def rounded(x: Tensor) -> Tensor:
        weight = _Rounded.apply(layer.weight, config.format)
        x = _Rounded.apply(x, config.format)
        if isinstance(layer, nn.Linear):
            answer: Tensor = nn.functional.linear(x, weight)
        else:
            answer = _convolved(layer, x, weight)
        answer = _RoundedBack.apply(answer, config.format, config.stochastic)
        if layer.bias is None:
            return answer
        return answer + layer.bias.reshape(-1, *[1] * (weight.dim() - 2))

    return rounded
