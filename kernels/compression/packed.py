"""Layers whose weights lie in 4 bits, two in a byte, and are unpacked when they answer.

A weight takes an eighth of its bytes, with the scales a seventh; the arithmetic stays float. An
adapter can be trained on top (QLoRA, Dettmers et al. 2023, https://arxiv.org/abs/2305.14314).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.compression.gptq import (
    Rounded,
    RoundingConfig,
    RoundingError,
    corrected,
    nearest,
    patches,
)
from kernels.compression.shared_weights import shared_weights

Weighted = nn.Linear | nn.Conv2d


class Packed(nn.Module):
    """A linear layer or convolution with packed weights.

    Attributes:
        codes: Two weights in a byte, uint8 [ceil(weights / 2)].
        scales: float32 [rows, groups].
        zeros: uint8 [rows, groups].
        bias: As of the layer.
    """

    takes_adapter = True

    codes: Tensor
    scales: Tensor
    zeros: Tensor

    def __init__(self, layer: Weighted, rounded: Rounded) -> None:
        super().__init__()
        flat = functional.pad(rounded.codes.flatten(), (0, rounded.codes.numel() % 2))
        self.register_buffer("codes", flat[0::2] | flat[1::2] << 4)
        self.register_buffer("scales", rounded.scales)
        self.register_buffer("zeros", rounded.zeros)
        self.bias = layer.bias
        self.group, self.shape = rounded.group, tuple(layer.weight.shape)
        if isinstance(layer, nn.Conv2d):
            self.stride: Any = layer.stride
            self.padding: Any = layer.padding
            self.dilation: Any = layer.dilation
            self.groups = layer.groups
        else:
            self.in_features, self.out_features = layer.in_features, layer.out_features

    @property
    def weight(self) -> Tensor:
        """Return the weights, float32 in the shape of the layer's."""
        flat = torch.stack([self.codes & 15, self.codes >> 4], 1).flatten()
        rows = self.shape[0]
        codes = flat[: math.prod(self.shape)].view(rows, -1)
        return Rounded(codes, self.scales, self.zeros, self.group).weights().view(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer answers."""
        if len(self.shape) > 2:
            settings = (self.stride, self.padding, self.dilation, self.groups)
            return functional.conv2d(x, self.weight, self.bias, *settings)
        return functional.linear(x, self.weight, self.bias)

    def unpacked(self) -> nn.Module:
        """Return the layer with the same weights in float32."""
        rows, bias = self.shape[0], self.bias is not None
        layer: Weighted
        if len(self.shape) > 2:
            layer = nn.Conv2d(
                self.shape[1] * self.groups,
                rows,
                (self.shape[2], self.shape[3]),
                self.stride,
                self.padding,
                self.dilation,
                self.groups,
                bias,
            )
        else:
            layer = nn.Linear(self.shape[1], rows, bias)
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            if self.bias is not None and layer.bias is not None:
                layer.bias.copy_(self.bias)
        return layer


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What packing did to one layer.

    Attributes:
        name: The layer.
        error: Squared change of its answers over their mean square, on the calibration inputs.
        error_nearest: The same by rounding to the nearest.
    """

    name: str
    error: float
    error_nearest: float


def packed(
    model: nn.Module,
    calibration: Iterable[Any],
    config: RoundingConfig | None = None,
    keep: tuple[str, ...] = (),
) -> tuple[nn.Module, list[LayerReport]]:
    """Return a copy of the net with packed layers, and what that did to each.

    Layers are packed in the order in which they answer, each on inputs that come through the
    packed ones before it.

    Args:
        model: The net; its linear layers and 2-d convolutions are packed.
        calibration: Inputs of the net, each a tensor or a tuple of them; some hundred items.
        config: How; at most 4 bits.
        keep: Layers that stay float, such as the first and the last.

    Raises:
        RoundingError: When there is nothing to pack, or nothing to calibrate on, or layers get
            inputs that are not finite.
    """
    config = config or RoundingConfig()
    if config.bits > 4:
        raise RoundingError(f"packed layers have at most 4 bits, got {config.bits}")
    inputs = [each if isinstance(each, tuple) else (each,) for each in calibration]
    if not inputs:
        raise RoundingError("packing needs calibration inputs; give some hundred items")
    made = copy.deepcopy(model).eval()
    if unknown := sorted(set(keep) - {name for name, _ in made.named_modules()}):
        raise RoundingError(f"keep names {', '.join(unknown)}, which the net does not have")
    if pair := shared_weights(made):
        raise RoundingError(f"{pair[0]} and {pair[1]} are one tensor; give {pair[1]} its own first")
    names = _in_order(made, inputs[0], keep)
    if not names:
        raise RoundingError("the net has no linear layer or 2-d convolution that may be packed")
    reports = []
    for name in names:
        layer = made.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)  # noqa: S101 - narrows the type
        try:
            _require_packable(layer)
            rounded, report = _rounded(name, layer, _moments(made, layer, inputs), config)
        except RoundingError as error:
            raise RoundingError(f"{name}: {error}") from error
        made.set_submodule(name, Packed(layer, rounded))
        reports.append(report)
    return made, reports


def _rounded(
    name: str, layer: Weighted, moments: Tensor, config: RoundingConfig
) -> tuple[Rounded, LayerReport]:
    """Round one layer; of several groups of channels each has its own moments."""
    rows = layer.weight.detach().flatten(1).chunk(len(moments))
    pairs = list(zip(rows, moments, strict=True))
    found = [corrected(weight, of_group, config) for weight, of_group in pairs]
    plain = [nearest(weight, config, of_group) for weight, of_group in pairs]
    power = sum(_energy(weight, of_group) for weight, of_group in pairs)
    errors = [
        sum(
            _energy(each.weights() - weight, of_group)
            for each, (weight, of_group) in zip(tried, pairs, strict=True)
        )
        / max(power, 1e-30)
        for tried in (found, plain)
    ]
    whole = Rounded(
        torch.cat([each.codes for each in found]),
        torch.cat([each.scales for each in found]),
        torch.cat([each.zeros for each in found]),
        found[0].group,
    )
    return whole, LayerReport(name, *errors)


def _require_packable(layer: Weighted) -> None:
    if layer.weight.dtype != torch.float32:
        raise RoundingError(f"weights are {layer.weight.dtype}; call .float() on the net first")
    if isinstance(layer, nn.Conv2d) and (layer.padding_mode != "zeros" or layer.padding == "same"):
        raise RoundingError(
            f"padding {layer.padding!r} of {layer.padding_mode} cannot be packed; name the layer "
            "in keep, or write the padding as numbers"
        )


def _energy(weight: Tensor, moments: Tensor) -> float:
    """Return the mean square of what weights answer, summed over rows."""
    weight = weight.double()
    return float((weight @ moments * weight).sum())


def _moments(model: nn.Module, layer: Weighted, inputs: list[tuple[Any, ...]]) -> Tensor:
    """Return the mean of x x^T over a layer's inputs, float64 [groups, columns, columns]."""
    total: list[Tensor] = []
    count = 0

    def see(_layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal count
        columns = _columns(layer, given[0].detach())
        total[:] = [columns.mT @ columns + (total[0] if total else 0)]
        count += columns.shape[1]

    hook = layer.register_forward_pre_hook(see)
    try:
        with torch.no_grad():
            for each in inputs:
                model(*each)
    finally:
        hook.remove()
    return total[0] / count


def _columns(layer: Weighted, x: Tensor) -> Tensor:
    """Return what each answer of a layer is made of, float64 [groups, answers, columns]."""
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1]).double()
    high, wide = (0, 0) if isinstance(layer.padding, str) else layer.padding
    padded = functional.pad(x.double(), (wide, wide, high, high))
    return patches(padded, layer.kernel_size, layer.dilation, layer.stride, layer.groups)


def _in_order(model: nn.Module, given: tuple[Any, ...], keep: tuple[str, ...]) -> list[str]:
    """Return the names of the layers that may be packed, in the order in which they answer."""
    found: list[str] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _layer, _given, name=name: found.append(name))
        for name, layer in model.named_modules()
        if isinstance(layer, Weighted) and name not in keep
    ]
    try:
        with torch.no_grad():
            model(*given)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(found))
