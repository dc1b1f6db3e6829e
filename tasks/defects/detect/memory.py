"""A memory of normal patches: the few that cover all others best.

PatchCore (Roth et al., CVPR 2022): greedy k-center selection (Sener and Savarese, ICLR 2018) on
randomly projected features (Johnson and Lindenstrauss 1984).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def core_set(patches: Tensor, size: int, seed: int) -> Tensor:
    """Return places of patches such that the farthest of all lies as near as greedy can get.

    Args:
        patches: float [n, d].
        size: Patches to choose; all are taken where there are no more.
        seed: Of the first one.

    Returns:
        int64 [min(size, n)], in the order chosen.
    """
    count = len(patches)
    if count <= size:
        return torch.arange(count)
    squares = patches.square().sum(dim=1)
    place = int(torch.randint(count, (1,), generator=_generator(seed)))
    nearest = torch.full((count,), torch.inf)
    chosen = []
    for _ in range(size):
        chosen.append(place)
        apart = squares + squares[place] - 2 * (patches @ patches[place])
        nearest = torch.minimum(nearest, apart)
        nearest[place] = -torch.inf
        place = int(nearest.argmax())
    return torch.tensor(chosen)


def random_projection(inner: int, outer: int, seed: int) -> Tensor:
    """Return float [inner, outer] that keeps squared distances in the mean."""
    drawn = torch.randn(inner, outer, generator=_generator(seed))
    return drawn / math.sqrt(outer)


def squared_distance(patches: Tensor, memory: Tensor) -> Tensor:
    """Return the squared distance of each patch to the nearest remembered, by one product.

    Args:
        patches: float [..., n, d].
        memory: float [m, d].

    Returns:
        float [..., n], at least 0.
    """
    crossed = patches @ memory.t()
    apart = (memory.square().sum(dim=1) - 2 * crossed).amin(dim=-1)
    squared: Tensor = (apart + patches.square().sum(dim=-1)).clamp_min(0)
    return squared


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
