"""Values of coalitions by a sequential module whose first layer is linear.

The first layer's sum over features is the sum over players of what each adds. So it becomes one
product of coalitions and players, mixed rows are never made, and only the layers behind it see
every coalition. Plain linear and ReLU layers among these write into memory that is kept from row
to row; any other layer is called as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.shapley.exact import members_of
from tasks.explain.scores import Rows, TorchScores, refuse_mixtures

HIDDEN_BYTES = 2**20
"""Activations behind the first layer per step: fewer calls save more than a core's own cache."""


def splits(module: torch.nn.Module) -> bool:
    """Say whether a module is sequential, begins with a linear layer and has nothing hooked in."""
    if type(module) is not torch.nn.Sequential or len(module) < 2:
        return False
    return not _hooked(module) and _plain(module[0])


class SplitLinear:
    """Values of coalitions by a module for which `splits` holds; also a `CoalitionValues`.

    Attributes:
        at_once: Coalitions that one call should bring.
        bytes_each: Memory that a coalition takes in its mixtures.
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
        self.bytes_each = self._weight[0].nbytes + self._players * self._weight.element_size()

    def mixtures(self, members: NDArray[np.bool_], owners: NDArray[np.intp]) -> SplitMixtures:
        """Make coalitions ready; arguments as of `CoalitionValues`."""
        with torch.inference_mode():
            there = torch.as_tensor(members, device=self._weight.device)
            others = self._background[torch.as_tensor(owners, device=self._weight.device)]
            others.masked_fill_(there[:, self._owner], 0.0)
            before = torch.addmm(self._bias, others, self._weight)
            return SplitMixtures(self, before, there.to(self._weight.dtype))

    def means(
        self, rows: Rows, numbers: NDArray[np.intp], check: Callable[[], None]
    ) -> NDArray[np.float64]:
        """Return every coalition's mean value ``[n, 2^P]``; arguments as of `CoalitionValues`.

        A coalition is one of the first players joined with one of the others. So the first layer's
        sum is one entry of each of two small tables.

        Raises:
            ScoreError: When a value is not finite.
        """
        found = np.zeros((len(rows), 2**self._players))
        with torch.inference_mode():
            low, high = self._tables()
            others = [self.adds(row) for row in self._background]
            absent = [(self._bias + (1 - low) @ o[: low.shape[1]]) for o in others]
            absent_high = [(1 - high) @ o[low.shape[1] :] for o in others]
            width, step = len(low), max(1, self.at_once // len(low))
            room = self._weight.new_empty(min(step, len(high)), width, len(self._bias))
            tail = Tail(self._rest)
            for place, row in enumerate(self._scores.tensor(rows)):
                adds = self.adds(row)
                came, came_high = low @ adds[: low.shape[1]], high @ adds[low.shape[1] :]
                for before, before_high in zip(absent, absent_high, strict=True):
                    first, second = before + came, (before_high + came_high)[:, None]
                    parts = []
                    for start in range(0, len(second), step):
                        some = second[start : start + step]
                        torch.add(first, some, out=room[: len(some)])
                        made = tail(room[: len(some)].flatten(0, 1))
                        parts.append(made.clone())  # the tail's memory is used again
                    found[place] += self._scores.chosen(torch.cat(parts))
                check()
        found /= len(others)
        refuse_mixtures(found, numbers)
        return found

    def _tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which of the first players, and which of the others, coalitions hold."""
        first = min(self._players // 2, self.at_once.bit_length() - 1)
        low, high = (
            torch.as_tensor(members_of(np.arange(2**count), count)).to(self._weight)
            for count in (first, self._players - first)
        )
        return low, high

    def adds(self, row: torch.Tensor) -> torch.Tensor:
        """Return what each player adds to the first layer ``[P, H]`` by the features ``[F]``."""
        by_feature = row[:, None] * self._weight
        if self._single:
            return by_feature
        adds = by_feature.new_zeros(self._players, by_feature.shape[1])
        return adds.index_add_(0, self._owner, by_feature)

    def behind(self) -> Tail:
        """Return the layers behind the first."""
        return Tail(self._rest)

    @property
    def scores(self) -> TorchScores:
        """The module."""
        return self._scores


@dataclass(frozen=True)
class SplitMixtures:
    """Mixtures as what the background adds to the first layer and who else is to add.

    Attributes:
        of: The module.
        before: The background's part of the first layer's sum ``[m, H]``.
        came: 1 for players that are in ``[m, P]``.
    """

    of: SplitLinear
    before: torch.Tensor
    came: torch.Tensor

    def values(self, rows: Rows, numbers: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the values ``[n, m]``; arguments as of `Mixtures`.

        Raises:
            ScoreError: When a value is not finite; names the row.
        """
        found = np.empty((len(rows), len(self.came)))
        with torch.inference_mode():
            start, tail = torch.empty_like(self.before), self.of.behind()
            for place, row in enumerate(self.of.scores.tensor(rows)):
                made = torch.addmm(self.before, self.came, self.of.adds(row), out=start)
                found[place] = self.of.scores.chosen(tail(made))
        refuse_mixtures(found, numbers)
        return found


class Tail:
    """The layers behind the first; memory is of one call, so threads may explain side by side."""

    def __init__(self, layers: list[torch.nn.Module]) -> None:
        """Take the layers."""
        self._steps = [_step(layer) for layer in layers]
        self._room: dict[tuple[int, int], torch.Tensor] = {}

    def __call__(self, made: torch.Tensor) -> torch.Tensor:
        """Return what the layers make of ``[m, H]``, which is written over."""
        ours = True  # whether ReLU may write over what it is given
        for place, (layer, product) in enumerate(self._steps):
            if layer is None and ours:
                made.relu_()
            elif product is not None and made.ndim == 2:
                weight, bias = product
                room = self._room.get((place, len(made)))
                if room is None:
                    room = made.new_empty(len(made), len(bias))
                    self._room[place, len(made)] = room
                made = torch.addmm(bias, made, weight, out=room)
                ours = True
            else:
                made, ours = torch.relu(made) if layer is None else layer(made), False
        return made


def _step(
    layer: torch.nn.Module,
) -> tuple[torch.nn.Module | None, tuple[torch.Tensor, torch.Tensor] | None]:
    """Return a layer, None for ReLU, and transposed weight and bias where it is linear."""
    if type(layer) is torch.nn.ReLU and not _hooked(layer):
        return None, None
    if _plain(layer) and layer.bias is not None:
        return layer, (layer.weight.detach().T, layer.bias.detach())
    return layer, None


def _hooked(layer: torch.nn.Module) -> bool:
    # torch offers no public way to ask.
    return bool(layer._forward_hooks or layer._forward_pre_hooks)  # noqa: SLF001


def _plain(layer: torch.nn.Module) -> TypeGuard[torch.nn.Linear]:
    return type(layer) is torch.nn.Linear and not _hooked(layer)
