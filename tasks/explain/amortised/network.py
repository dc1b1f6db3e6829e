"""The network: rows in, values of players and its own expected error out."""

from __future__ import annotations

from itertools import pairwise
from math import log

import torch
from torch import Tensor, nn

SMALLEST = 1e-6
"""Relative errors below this are not told apart by the gate."""
ERROR_WIDTH = 32
USUAL = 0.05
"""Relative error that the gate begins with."""


class ValueNet(nn.Module):
    """Values of players that add up to a given total, and the log of their relative error.

    The size of the error is read from the last hidden layer, whose weights it does not train, and
    divided by the size of the values. What the values lack to the total is shared equally
    (FastSHAP, Jethava et al. 2022).
    """

    def __init__(self, features: int, players: int, hidden: tuple[int, ...]) -> None:
        """Build it with scalings of 1; `fit_scaling` sets them.

        Args:
            features: F.
            players: P.
            hidden: Width of each hidden layer.
        """
        super().__init__()
        widths = (features, *hidden)
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers)
        self.values = nn.Linear(hidden[-1], players)
        last = nn.Linear(ERROR_WIDTH, 1)
        nn.init.constant_(last.bias, log(USUAL))
        self.error = nn.Sequential(nn.Linear(hidden[-1], ERROR_WIDTH), nn.ReLU(inplace=True), last)
        for name, size in (("centre", features), ("scale", features), ("unit", 1)):
            self.register_buffer(name, torch.ones(size))

    centre: Tensor
    scale: Tensor
    unit: Tensor

    def fit_scaling(self, rows: Tensor, values: Tensor) -> None:
        """Set centre and scale of the inputs by rows ``[n, F]``, the unit by values ``[n, P]``."""
        spread = rows.std(dim=0)
        self.centre.copy_(rows.mean(dim=0))
        self.scale.copy_(torch.where(spread > 0, spread, 1.0))
        self.unit.fill_(float(values.std()) or 1.0)

    def forward(self, rows: Tensor, totals: Tensor) -> tuple[Tensor, Tensor]:
        """Return values ``[n, P]`` and log errors ``[n]``.

        Args:
            rows: ``[n, F]``.
            totals: Score less base, ``[n]``.
        """
        hidden = self.body((rows - self.centre) / self.scale)
        values = self.values(hidden) * self.unit
        values = values + ((totals - values.sum(dim=1)) / values.shape[1])[:, None]
        size = values.detach().norm(dim=1).clamp_min(SMALLEST) / self.unit
        return values, self.error(hidden.detach())[:, 0] - size.log()


def relative_errors(found: Tensor, true: Tensor) -> Tensor:
    """Return the relative L2 error ``[n]`` of values ``[n, P]``; 0 where both are 0."""
    size = true.norm(dim=1)
    errors: Tensor = (found - true).norm(dim=1) / torch.where(size > 0, size, 1.0)
    return errors


def value_loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, int]:
    """Return the summed loss of rows, totals and true values, and how many rows there are."""
    rows, totals, true = batch
    found, log_error = model(rows, totals)
    errors = relative_errors(found, true)
    known = errors.detach().clamp_min(SMALLEST).log()
    return (errors + 0.1 * (log_error - known) ** 2).sum(), len(rows)
