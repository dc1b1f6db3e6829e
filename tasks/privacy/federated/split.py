"""Rows of one bank as those of several branches that differ: for rehearsals and benchmarks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

SIZES, FRAUDS = 2.0, 0.5
"""Dirichlet concentrations: the lower, the more uneven the sizes and the frauds of branches."""
RISKY = 3
"""Frauds from which on an entity goes where the frauds go."""
DRAWS = 100


def split_by_entity(
    entity: ArrayLike, label: ArrayLike, branches: int, seed: int
) -> NDArray[np.int64]:
    """Return the branch of every row, int64 [n].

    All rows of an entity lie in one branch. Branches differ in size and, as the entities with many
    frauds are shared out apart from the rest, in how much of what kind of fraud they see.

    Args:
        entity: [n] number of an entity, such as the terminal.
        label: [n] 1 fraud; rows whose label is not for training count as 0.
        branches: How many.
        seed: Of the split.

    Raises:
        ValueError: When a branch stays empty however often they are drawn.
    """
    codes, labels = np.asarray(entity, np.int64), np.asarray(label, np.float64)
    rng = np.random.default_rng(seed)
    for _ in range(DRAWS):
        found = _drawn(codes, labels, branches, rng)
        if len(np.unique(found)) == branches:
            return found
    raise ValueError(f"{branches} branches leave one without rows; take fewer")


def _drawn(
    codes: NDArray[np.int64], labels: NDArray[np.float64], branches: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    count = int(codes.max(initial=-1)) + 1
    home = rng.choice(branches, count, p=rng.dirichlet(np.full(branches, SIZES)))
    risky = np.flatnonzero(np.bincount(codes, labels, count) >= RISKY)
    home[risky] = rng.choice(branches, len(risky), p=rng.dirichlet(np.full(branches, FRAUDS)))
    found: NDArray[np.int64] = home[codes].astype(np.int64)
    return found
