"""Channels of a net by number, joined where one cannot go without the other.

Every element of every tensor carries the number of the channel it came from (an atom); 0 is a
constant, such as padding, that goes along with anything. Joining is Tarjan's union by linking to
the lower number, finding is done for whole arrays at once.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CONSTANT = 0
_PAIRS = 1 << 31
"""Above any number of atoms, so that two of them fit into 64 bits."""


class Atoms:
    """Sets of channels that stay or go together.

    Attributes:
        held: Why a set stays: operation -> numbers of which it holds the sets.
    """

    def __init__(self) -> None:
        self._parent: NDArray[np.int64] = np.zeros(1, np.int64)
        self.held: dict[str, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, count: int) -> Tensor:
        """Return ``count`` new channels, int64 [count]."""
        new = np.arange(len(self._parent), len(self._parent) + count)
        self._parent = np.concatenate([self._parent, new])
        return torch.from_numpy(new)

    def find(self, ids: Tensor) -> Tensor:
        """Return the number of each element's set, in the shape of ``ids``."""
        return torch.from_numpy(self.find_array(ids.numpy().reshape(-1))).view(ids.shape)

    def find_array(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the same for arrays."""
        found = self._parent[ids]
        while not np.array_equal(above := self._parent[found], found):
            found = above
        self._parent[ids] = found
        return found

    def join(self, one: Tensor, other: Tensor) -> None:
        """Join the sets of elements at the same place; shapes broadcast. Constants join nothing."""
        left, right = self.find(one), self.find(other)
        left, right = left + torch.zeros_like(right), right + torch.zeros_like(left)
        apart = (left != right) & (left != CONSTANT) & (right != CONSTANT)
        for pair in torch.unique(left[apart] * _PAIRS + right[apart]).tolist():
            a, b = self._root(pair // _PAIRS), self._root(pair % _PAIRS)
            self._parent[max(a, b)] = min(a, b)

    def join_along(self, ids: Tensor, dim: int) -> None:
        """Join all elements along a dimension with each other."""
        self.join(ids, ids.amax(dim, keepdim=True))

    def hold(self, ids: Tensor, why: str) -> None:
        """Keep the sets of some elements for good."""
        found = np.unique(ids.numpy())
        if len(found := found[found != CONSTANT]):
            before = self.held.get(why, np.zeros(0, np.int64))
            self.held[why] = np.union1d(before, found)

    def held_sets(self) -> set[int]:
        """Return the numbers of all sets that stay."""
        return {int(s) for ids in self.held.values() for s in self.find_array(ids)}

    def varies(self, ids: Tensor, dim: int) -> bool:
        """Whether elements along a dimension belong to different sets."""
        found = self.find(ids)
        most = found.amax(dim, keepdim=True)
        return bool(((found != most) & (found != CONSTANT)).any())

    def _root(self, number: int) -> int:
        while (above := int(self._parent[number])) != number:
            number = above
        return number
