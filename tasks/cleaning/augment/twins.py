"""Made rows and what they were made of share a split, always.

A made row in the training part whose parent is judged in the test part is a copy of the answer.
Rows that are linked by parentage, over any number of steps, are one family; a split takes whole
families. Interpolation links many rows of a slice with each other, so families grow quickly: split
first and make rows within the training part, where that can be had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Families = npt.NDArray[np.int64]


class TwinsError(ValueError):
    """A made row and one it was made of are in different splits."""


def families(rows: int, made_from: Sequence[Sequence[int]]) -> Families:
    """Return the family of every row, real ones first, then made ones.

    Args:
        rows: Real rows.
        made_from: Real rows that each made row was made of.

    Returns:
        int64 [rows + made].

    Raises:
        ValueError: When a made row names no parent, or one that is not there.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    children, parents = [], []
    for i, mine in enumerate(made_from):
        if not len(mine) or min(mine) < 0 or max(mine) >= rows:
            raise ValueError(f"made row {i} comes from {list(mine)}; give rows of 0..{rows - 1}")
        children += [rows + i] * len(mine)
        parents += list(mine)
    size = rows + len(made_from)
    ones = np.ones(len(parents))
    links = coo_array((ones, (np.array(children, int), np.array(parents, int))), (size, size))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)


def split_with_twins(
    family: npt.ArrayLike, shares: Mapping[str, float], *, seed: int = 0
) -> list[str]:
    """Share whole families out.

    Args:
        family: int64 [rows].
        shares: Split -> share of the rows; they add up to 1.
        seed: Which families go where.

    Returns:
        Name of each row's split.

    Raises:
        ValueError: When shares do not add up to 1, or a family is so large that some split would
            stay empty.
    """
    if not shares or abs(sum(shares.values()) - 1) > 1e-9 or min(shares.values()) <= 0:
        raise ValueError(f"shares {dict(shares)} must be above 0 and add up to 1")
    _, member, sizes = np.unique(np.asarray(family), return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    names = list(shares)
    left = np.array([shares[name] for name in names]) * len(member)
    home = np.zeros(len(sizes), np.int64)
    for one in order:
        home[one] = int(left.argmax())
        left[home[one]] -= sizes[one]
    if len(set(home.tolist())) < len(names):
        raise ValueError(
            f"one family holds {sizes.max():,} of {len(member):,} rows, a split stays empty; split "
            "first and make rows within the training part (augment_rows with splits)"
        )
    return [names[i] for i in home[member]]


def assert_no_twins_across(splits: Sequence[str], family: npt.ArrayLike) -> None:
    """Refuse splits that part a family.

    Raises:
        TwinsError: With a row on either side.
        ValueError: When there is not one split a row.
    """
    groups = np.asarray(family)
    if len(splits) != len(groups):
        raise ValueError(f"{len(groups):,} rows need as many splits, not {len(splits):,}")
    home: dict[int, tuple[int, str]] = {}
    for row, (group, split) in enumerate(zip(groups.tolist(), splits, strict=True)):
        first, other = home.setdefault(group, (row, split))
        if other != split:
            raise TwinsError(
                f"row {row} is in {split!r} and its twin, row {first}, in {other!r}; split by "
                "split_with_twins, or make rows within one split"
            )
