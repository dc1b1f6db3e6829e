"""How far n parts can carry a promise: exact ranks, and how many parts are missing for one.

With the threshold at the k-th worst of n independent parts, the share of all parts beyond it is
Beta(k, n - k + 1) distributed, whatever the scores' distribution (Wilks, Annals of Mathematical
Statistics 1941), or less where scores are equal. So it exceeds ``alpha`` with a chance of at most
P(Binomial(n, alpha) < k), and is at most k / (n + 1) in the mean (Vovk et al., 2005).
"""

from __future__ import annotations

import math
from fractions import Fraction


def rank(n: int, alpha: float, confidence: float) -> int:
    """Return the largest k with P(Binomial(n, alpha) < k) <= 1 - confidence, 0 where there is none.

    Args:
        n: Independent parts.
        alpha: Share of all parts that may lie beyond the k-th worst.
        confidence: Of that, over draws of the n parts.

    >>> rank(28, 0.1, 0.95), rank(29, 0.1, 0.95), rank(59, 0.05, 0.95), rank(299, 0.01, 0.95)
    (0, 1, 1, 1)
    """
    check_share("alpha", alpha)
    low, high = 0, n
    while low < high:
        middle = (low + high + 1) // 2
        if _at_most(middle - 1, n, alpha) <= slack(confidence):
            low = middle
        else:
            high = middle - 1
    return low


def needed(alpha: float, confidence: float, misses: int = 0) -> int:
    """Return the least n of a promise that still stands with some parts beyond the threshold.

    >>> needed(0.1, 0.95), needed(0.05, 0.95), needed(0.01, 0.95), needed(0.05, 0.95, misses=1)
    (29, 59, 299, 93)
    """
    check_share("alpha", alpha)
    low, high = misses, misses + 1
    while _at_most(misses, high, alpha) > slack(confidence):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _at_most(misses, middle, alpha) <= slack(confidence):
            high = middle
        else:
            low = middle
    return high


def bound(n: int, k: int, confidence: float) -> float:
    """Return the least ``alpha`` that the k-th worst of n parts promises, 1 where k is 0.

    It is Clopper and Pearson's upper limit (Biometrika 1934) of k - 1 parts beyond among n.

    >>> round(bound(50, 1, 0.95), 4)
    0.0582
    """
    if k < 1:
        return 1.0
    from scipy.special import betaincinv

    return 1.0 - float(betaincinv(n - k + 1, k, slack(confidence)))


def average_rank(n: int, alpha: float) -> int:
    """Return the largest k with k / (n + 1) <= alpha: the promise in the mean over draws.

    >>> average_rank(8, 0.1), average_rank(9, 0.1), average_rank(99, 0.07)
    (0, 1, 7)
    """
    check_share("alpha", alpha)
    return math.floor(_exact(alpha) * (n + 1))


def average_needed(alpha: float, misses: int = 0) -> int:
    """Return the least n of a promise in the mean.

    >>> average_needed(0.1), average_needed(0.05), average_needed(0.01)
    (9, 19, 99)
    """
    check_share("alpha", alpha)
    return math.ceil((misses + 1) / _exact(alpha)) - 1


def slack(confidence: float) -> float:
    """Return 1 - confidence; in decimals, since 1 - 0.95 as floats is more than 0.05."""
    check_share("confidence", confidence)
    return float(1 - _exact(confidence))


def check_share(name: str, value: float) -> None:
    """Refuse what is no share strictly between none and all."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} is {value}; give a share between 0 and 1, as .05 for 5 %")


def _at_most(k: int, n: int, alpha: float) -> float:
    from scipy.special import bdtr

    return float(bdtr(k, n, alpha))


def _exact(share: float) -> Fraction:
    return Fraction(str(float(share)))
