"""Values of coalitions by a sequential module whose first layer is linear.

The first layer's sum over features is the sum over players of what each adds. So it becomes one
product of coalitions and players, mixed rows are never made, and only the layers behind it see
every coalition. Plain linear and ReLU layers among these write into memory that is kept from row
to row; any other layer is called as it is.
"""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.explain.scores import Rows, TorchScores, refuse_unfinite

HIDDEN_BYTES = 2**18
"""Activations behind the first layer per step: these stay within a core's own cache."""


def splits(module: torch.nn.Module) -> bool:
    """Say whether a module is sequential, begins with a linear layer and has nothing hooked in."""
    if type(module) is not torch.nn.Sequential or len(module) < 2:
        return False
    return not _hooked(module) and _plain(module[0])


class SplitLinear:
    """Values of coalitions by a module for which `splits` holds; also a `CoalitionValues`.

    Attributes:
        at_once: Coalitions that one call should bring.
    """

    def __init__(self, scores: TorchScores, background: Rows, owner: NDArray[np.intp]) -> None:
        """Take the module apart.

        Args:
            scores: The module, for which `splits` holds.
            background: ``[B, F]``.
            owner: Player of each feature, ``[F]``.

        Raises:
            TypeError: On a module that does not split.
        """
        first, *self._rest = scores.module.children()
        if not splits(scores.module) or not _plain(first):
            raise TypeError("only a sequential module that begins with a linear layer is split")
        self._scores = scores
        self._weight = first.weight.detach().T.contiguous()
        bias = first.bias
        self._bias = torch.zeros_like(self._weight[0]) if bias is None else bias.detach()
        self._background = scores.tensor(background)
        self._owner = torch.as_tensor(owner, device=self._weight.device)
        self._players = int(owner.max()) + 1
        self._single = np.array_equal(owner, np.arange(len(owner)))
        self.at_once = max(1, HIDDEN_BYTES // self._weight[0].nbytes)

    def values(
        self, members: NDArray[np.bool_], owners: NDArray[np.intp], rows: Rows
    ) -> NDArray[np.float64]:
        """Return the values ``[n, m]``; arguments as of `CoalitionValues`.

        Raises:
            ScoreError: When a value is not finite.
        """
        found = np.empty((len(rows), len(members)))
        with torch.inference_mode():
            there = torch.as_tensor(members, device=self._weight.device)
            others = self._background[torch.as_tensor(owners, device=self._weight.device)]
            others.masked_fill_(there[:, self._owner], 0.0)
            before = torch.addmm(self._bias, others, self._weight)
            came = there.to(self._weight.dtype)
            tail = _Tail(self._rest, before)
            for place, row in enumerate(self._scores.tensor(rows)):
                made = torch.addmm(before, came, self._adds(row), out=tail.start)
                found[place] = self._scores.chosen(tail(made))
        refuse_unfinite(found.min(axis=1) + found.max(axis=1), "a mixture with row")
        return found

    def _adds(self, row: torch.Tensor) -> torch.Tensor:
        """Return what each player adds to the first layer ``[P, H]``."""
        by_feature = row[:, None] * self._weight
        if self._single:
            return by_feature
        adds = by_feature.new_zeros(self._players, by_feature.shape[1])
        return adds.index_add_(0, self._owner, by_feature)


class _Tail:
    """The layers behind the first; memory is of one call, so threads may explain side by side."""

    def __init__(self, layers: list[torch.nn.Module], first: torch.Tensor) -> None:
        self.start = torch.empty_like(first)
        self._layers = layers
        self._room: dict[int, torch.Tensor] = {}

    def __call__(self, made: torch.Tensor) -> torch.Tensor:
        ours = True  # whether ReLU may write over what it is given
        for place, layer in enumerate(self._layers):
            if type(layer) is torch.nn.ReLU and ours and not _hooked(layer):
                made.relu_()
            elif _plain(layer) and made.ndim == 2 and layer.bias is not None:
                if place not in self._room:
                    self._room[place] = made.new_empty(len(made), layer.out_features)
                weight = layer.weight.T
                made = torch.addmm(layer.bias, made, weight, out=self._room[place])
                ours = True
            else:
                made, ours = layer(made), False
        return made


def _hooked(layer: torch.nn.Module) -> bool:
    # torch offers no public way to ask.
    return bool(layer._forward_hooks or layer._forward_pre_hooks)  # noqa: SLF001


def _plain(layer: torch.nn.Module) -> TypeGuard[torch.nn.Linear]:
    return type(layer) is torch.nn.Linear and not _hooked(layer)
