"""Rounds a layer's weights to a few bits so that its answers, not its weights, change least.

One column after the other is rounded, and what that does to the layer's answers is made up for by
the columns that are not rounded yet, with the inverse of the inputs' second moments (GPTQ, Frantar
et al. 2022, https://arxiv.org/abs/2210.17323, after Hassibi and Stork 1992).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


class RoundingError(ValueError):
    """Weights or inputs that cannot be rounded; says what and how to mend it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingConfig:
    """How weights become integers.

    Attributes:
        bits: Of each weight, 2 to 8.
        group: Inputs that share a scale, 0: all of them.
        symmetric: Zero lies in the middle of the range; else each group has its own zero point.
        damping: Share of the mean second moment that is added to each, so that the inverse exists.
        by_importance: Columns of large second moment first.
        shrink: Ranges that are tried, as shares of the largest weight; the one of least squared
            error, weighted by the second moments, is taken.
    """

    bits: int = 4
    group: int = 64
    symmetric: bool = False
    damping: float = 0.01
    by_importance: bool = True
    shrink: tuple[float, ...] = (1.0, 0.95, 0.9, 0.85, 0.8)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits must be 2 to 8, got {self.bits}")
        if self.group < 0:
            raise ValueError(f"group must be at least 0, got {self.group}; 0 is one scale a row")
        if not 0 < self.damping < 1:
            raise ValueError(f"damping must lie between 0 and 1, got {self.damping}; .01 is usual")
        if not self.shrink or not all(0 < each <= 1 for each in self.shrink):
            raise ValueError(f"shrink must be shares in (0, 1], got {self.shrink}")


@dataclass(frozen=True, slots=True)
class Rounded:
    """Integers in the place of weights.

    Attributes:
        codes: uint8 [rows, columns], each below 2 ** bits.
        scales: float32 [rows, groups].
        zeros: uint8 [rows, groups]: the code of weight 0.
        group: Columns that share a scale.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    group: int

    def weights(self) -> Tensor:
        """Return the weights that the codes stand for, float32 [rows, columns]."""
        rows, columns = self.codes.shape
        place = torch.arange(columns, device=self.codes.device) // self.group
        apart = self.codes.float() - self.zeros.float()[:, place]
        return (apart * self.scales[:, place]).reshape(rows, columns)


def nearest(weight: Tensor, config: RoundingConfig, moments: Tensor | None = None) -> Rounded:
    """Return each weight rounded to the nearest code.

    Args:
        weight: float [rows, columns].
        config: How.
        moments: Second moments of the inputs [columns, columns], for the choice of ranges.

    Raises:
        RoundingError: When weights are not finite.
    """
    weight = _checked(weight)
    group = config.group or weight.shape[1]
    importance = torch.ones(weight.shape[1]) if moments is None else moments.diagonal()
    scales, zeros = _ranges(weight, importance.to(weight), group, config)
    place = torch.arange(weight.shape[1], device=weight.device) // group
    codes = _codes(weight, scales[:, place], zeros[:, place], config.bits)
    return Rounded(codes.to(torch.uint8), scales.float(), zeros.to(torch.uint8), group)


def corrected(weight: Tensor, moments: Tensor, config: RoundingConfig) -> Rounded:
    """Return weights rounded so that the layer's answers change least.

    Args:
        weight: float [rows, columns].
        moments: Mean of x x^T over the layer's inputs, float [columns, columns].
        config: How.

    Raises:
        RoundingError: When weights or moments are not finite, or their sizes differ.
    """
    weight = _checked(weight).clone()
    columns = weight.shape[1]
    if moments.shape != (columns, columns):
        raise RoundingError(f"moments are {tuple(moments.shape)} for {columns} inputs")
    if not bool(torch.isfinite(moments).all()):
        raise RoundingError("the layer's inputs are not finite; look at the calibration batches")
    moments = moments.to(weight)
    group = config.group or columns
    # Ranges are those of the weights as they were: groups do not lie beside each other in the
    # order of importance.
    scales, zeros = _ranges(weight, moments.diagonal(), group, config)
    order = torch.arange(columns, device=weight.device)
    if config.by_importance:
        order = torch.argsort(moments.diagonal(), descending=True, stable=True)
    factor = _inverse_factor(moments[order][:, order], config.damping)
    codes = torch.empty_like(weight)
    left = weight[:, order]
    for step, column in enumerate(order.tolist()):
        place = column // group
        scale, zero = scales[:, place], zeros[:, place]
        codes[:, column] = _codes(left[:, step], scale, zero, config.bits)
        error = (left[:, step] - (codes[:, column] - zero) * scale) / factor[step, step]
        left[:, step + 1 :] -= error[:, None] * factor[step, step + 1 :][None]
    return Rounded(codes.to(torch.uint8), scales.float(), zeros.to(torch.uint8), group)


def patches(
    x: Tensor,
    kernel: tuple[int, ...],
    dilation: tuple[int, ...],
    stride: tuple[int, ...],
    groups: int,
) -> Tensor:
    """Return what each answer of a 2-d convolution is made of, [groups, answers, columns].

    Args:
        x: Inputs [n, c, h, w] with their borders.
        kernel: Height and width.
        dilation: Of it.
        stride: Of it.
        groups: Of channels.
    """
    unfolded = functional.unfold(x, kernel, dilation, 0, stride)
    n, _, places = unfolded.shape
    return unfolded.view(n, groups, -1, places).permute(1, 0, 3, 2).flatten(1, 2)


def _checked(weight: Tensor) -> Tensor:
    if not bool(torch.isfinite(weight).all()):
        raise RoundingError("the layer's weights are not finite; load them again")
    return weight.detach().double()


def _inverse_factor(moments: Tensor, damping: float) -> Tensor:
    """Return the upper Cholesky factor of the inverse of the moments."""
    moments = moments.clone()
    mean = moments.diagonal().mean()
    # Inputs that are always 0 have no say; any positive number does.
    moments.diagonal().add_(damping * mean if mean > 0 else 1.0)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _ranges(
    weight: Tensor, importance: Tensor, group: int, config: RoundingConfig
) -> tuple[Tensor, Tensor]:
    """Return scales and zero points [rows, groups]: of those tried, the one of least error."""
    rows, columns = weight.shape
    groups = -(-columns // group)
    padded = functional.pad(weight, (0, groups * group - columns))
    parts = padded.view(rows, groups, group)
    weights = functional.pad(importance, (0, groups * group - columns))
    weights = weights.view(1, groups, group)
    top = 2**config.bits - 1
    low, high = parts.amin(2).clamp_max(0), parts.amax(2).clamp_min(0)
    if config.symmetric:
        high = torch.maximum(high, -low)
        low = -high
    best = torch.full_like(low, float("inf"))
    scales, zeros = torch.ones_like(low), torch.zeros_like(low)
    for share in config.shrink:
        scale = (share * (high - low) / top).clamp_min(1e-12)
        zero = torch.round(-share * low / scale).clamp(0, top)
        if config.symmetric:
            zero = torch.full_like(zero, (top + 1) // 2)
        codes = _codes(parts, scale[..., None], zero[..., None], config.bits)
        apart = (codes - zero[..., None]) * scale[..., None] - parts
        error = (apart.square() * weights).sum(2)
        better = error < best
        best = torch.where(better, error, best)
        scales, zeros = torch.where(better, scale, scales), torch.where(better, zero, zeros)
    # The file holds scales in float32: codes are chosen for what it holds.
    return scales.float().double(), zeros


def _codes(weight: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    return torch.round(weight / scale + zero).clamp(0, 2**bits - 1)
