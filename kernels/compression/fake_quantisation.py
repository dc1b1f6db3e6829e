"""Rounding to a grid that gradients go through, with steps that are learned.

Learned step size quantisation (LSQ, Esser et al. 2020, https://arxiv.org/abs/1902.08153): inside of
the grid the gradient passes as if nothing had been rounded; the step gets the gradient of rounding
and clipping. Steps are kept as the logarithm of a factor on the first step, so that one learning
rate serves steps of every size, and none becomes negative.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FINER = {8: 1, 16: 256, 32: 0}
"""Bits of a stage -> parts into which each step is cut; 0: cut to the range, not rounded."""


class FakeQuantise(nn.Module):
    """Values brought to a grid of whole numbers, as ``QuantizeLinear`` and its opposite do.

    Attributes:
        growth: float32 [steps], logarithm of each step over the one it began with; trained.
        low: Least whole number of the grid.
        high: Largest one.
        axis: Axis along which steps differ.
    """

    first: Tensor
    zero: Tensor

    def __init__(self, step: Tensor, zero: Tensor, low: int, high: int, axis: int = 0) -> None:
        """Begin with known steps.

        Args:
            step: float32 [] for one step, or [n] along the axis; above 0.
            zero: Whole number that stands for 0, of the shape of ``step``; it stays.
            low: Least whole number.
            high: Largest whole number.
            axis: Of steps that differ.

        Raises:
            ValueError: When a step is not above 0.
        """
        super().__init__()
        if not bool((step > 0).all()):
            raise ValueError("a step is not above 0; measure ranges on inputs that are not all 0")
        self.register_buffer("first", step.detach().clone().float(), persistent=False)
        self.register_buffer("zero", zero.detach().clone().float(), persistent=False)
        self.growth = nn.Parameter(torch.zeros(step.numel()))
        self.low, self.high, self.axis = low, high, axis

    def step(self) -> Tensor:
        """Return the steps as they are now, in the shape of the first."""
        return self.first * self.growth.exp().reshape(self.first.shape)

    def forward(self, x: Tensor, parts: int = 1) -> Tensor:
        """Return ``x`` on the grid.

        Args:
            x: float32, any shape.
            parts: Each step is cut into so many, within the same range; 0 keeps to the range alone,
                for in a file ranges also do what a ReLU before them did.
        """
        shape = [1] * x.dim()
        if self.first.dim():
            shape[self.axis] = -1
        zero = self.zero.reshape(shape)
        step = self.step().reshape(shape)
        # The paper's scale of a step's gradient; AdamW does not see it, other optimizers do.
        weight = (self.growth.numel() / (x.numel() * max(self.high, 1))) ** 0.5
        step = (step * weight + (step * (1 - weight)).detach()) / (parts or 1)
        low, high = (self.low - zero) * (parts or 1), (self.high - zero) * (parts or 1)
        whole = rounded(x / step, low, high) if parts else torch.clamp(x / step, low, high)
        made: Tensor = whole * step
        return made

    def codes(self, x: Tensor) -> Tensor:
        """Return the whole numbers of ``x``, int32, without gradient."""
        shape = [1] * x.dim()
        if self.first.dim():
            shape[self.axis] = -1
        with torch.no_grad():
            whole = torch.round(x / self.step().reshape(shape)) + self.zero.reshape(shape)
            return whole.clamp(self.low, self.high).to(torch.int32)


def rounded(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the nearest whole numbers from ``low`` to ``high``; the gradient knows no rounding.

    Args:
        x: Values in units of the step.
        low: Least, of a shape that goes with ``x``.
        high: Largest.
    """
    inside = torch.clamp(x, low, high)
    return inside + (torch.round(inside) - inside).detach()
