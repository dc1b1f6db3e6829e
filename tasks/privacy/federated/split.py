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
    entity: ArrayLike, label: ArrayLike, branches: int, seed: int, *, training: ArrayLike
) -> NDArray[np.int64]:
    """Return the branch of every row, int64 [n].

    All rows of an entity lie in one branch. Branches differ in size and, as the entities with many
    frauds are shared out apart from the rest, in how much of what kind of fraud they see.

    Args:
        entity: [n] number of an entity, such as the terminal.
        label: [n] 1 fraud.
        branches: How many.
        seed: Of the split.
        training: bool [n] rows to train on: only their labels are looked at.

    Raises:
        ValueError: When a branch has no row to train on however often they are drawn.
    """
    codes, used = np.asarray(entity, np.int64), np.asarray(training, np.bool_)
    count = int(codes.max(initial=-1)) + 1
    frauds = np.bincount(codes[used & (np.asarray(label) == 1)], minlength=count)
    rng = np.random.default_rng(seed)
    for _ in range(DRAWS):
        home = _drawn(frauds, branches, rng)[codes]
        if len(np.unique(home[used])) == branches:
            return home
    raise ValueError(f"{branches} branches leave one without rows; take fewer")


def _drawn(frauds: NDArray[np.int64], branches: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the branch of every entity."""
    home = rng.choice(branches, len(frauds), p=rng.dirichlet(np.full(branches, SIZES)))
    risky = np.flatnonzero(frauds >= RISKY)
    home[risky] = rng.choice(branches, len(risky), p=rng.dirichlet(np.full(branches, FRAUDS)))
    return home.astype(np.int64)
