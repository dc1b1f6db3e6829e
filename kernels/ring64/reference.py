"""The same in whole numbers of any size: slow, short, the truth for the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


def product_reference(rows: Words, weights: Words) -> Words:
    """Return `products.product`."""
    whole: NDArray[Any] = rows.astype(object) @ weights.astype(object).T
    words: Words = (whole % (1 << 64)).astype(np.uint64)
    return words


def squares_reference(numbers: list[int], signs: list[int], cut: int) -> float:
    """Return the signed sum of squares of numbers divided by ``2**cut``, nothing cut."""
    terms = zip(numbers, signs, strict=True)
    return float(sum(sign * (number / 2.0**cut) ** 2 for number, sign in terms))


def negative_reference(number: int, bits: int) -> bool:
    """Return whether a residue modulo ``2**bits`` stands for a negative number."""
    return number % (1 << bits) >= 1 << (bits - 1)
