"""Two samples compared: tests that stay true with ties, and distances beside them.

Every test returns a p-value and an effect that has a meaning without any sample size, so that a
million rows do not alarm by p-value alone. All hold for independent rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

FEW_VALUES = 20
"""Numbers with this many different values or fewer are compared value by value: the
Kolmogorov-Smirnov test loses its power there."""
LEAST_EXPECTED = 5.0
"""Levels expected less often than this are compared together (Cochran's rule)."""
BINS = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a test says.

    Attributes:
        test: Its name.
        p: Probability of at least this difference without any.
        effect: Size of the difference, 0..1.
        psi: Population stability index, None where it has no meaning.
        js: Jensen-Shannon divergence in bits, 0..1, likewise.
        possible: Whether any difference could have shown: not where both tables together hold a
            single value. What is impossible is not counted among the tests (Tarone 1990).
        where: The number at which the cumulative shares differ most, NaN for other tests.
    """

    test: str
    p: float
    effect: float
    psi: float | None = None
    js: float | None = None
    possible: bool = True
    where: float = math.nan


def compare_numbers(reference: Floats, current: Floats) -> Outcome:
    """Compare numbers: the Kolmogorov-Smirnov and the Mann-Whitney test, twice the lesser p.

    The first sees any difference, the second sees shifts better and is exact in its ties. The
    effect is the Kolmogorov-Smirnov distance: the largest gap between the two cumulative shares.

    Args:
        reference: [n] finite numbers, at least one.
        current: [m] likewise.
    """
    values, a, b = _tallies(reference, current)
    n, m = int(a.sum()), int(b.sum())
    below_a, below_b = np.cumsum(a), np.cumsum(b)
    gaps = np.abs(below_a / n - below_b / m)
    gap, at = float(gaps.max()), float(values[gaps.argmax()])
    if len(a) <= FEW_VALUES:
        shape, name = _chi_square(a, b), "chi-square and Mann-Whitney"
    else:
        shape, name = _ks_p(gap, n, m), "Kolmogorov-Smirnov and Mann-Whitney"
    shift = _mann_whitney_p(a, b, below_a)
    bins = binned(reference, current)
    p = min(1.0, 2.0 * min(shape, shift))
    return Outcome(name, p, gap, psi(*bins), js(*bins), possible=len(a) > 1, where=at)


def compare_levels(a: Counts, b: Counts) -> Outcome:
    """Compare how often levels occur, by chi-square; rare levels count as one.

    The effect is the total variation distance less what chance alone makes of it, which is not
    small where there are many levels; less in squares, since what moved a few levels much hides
    the chance in them.

    Args:
        a: [levels] count in the reference.
        b: [levels] count in the current table.
    """
    p, q = a / a.sum(), b / b.sum()
    pooled = (a + b) / (a.sum() + b.sum())
    deviation = np.sqrt(pooled * (1.0 - pooled) * (1.0 / a.sum() + 1.0 / b.sum()))
    chance = 0.5 * math.sqrt(2.0 / math.pi) * float(deviation.sum())
    distance = 0.5 * float(np.abs(p - q).sum())
    effect = math.sqrt(max(0.0, distance**2 - chance**2))
    common = _pooled(a, b)
    several = len(common[0]) > 1
    return Outcome(
        "chi-square", _chi_square(*common), effect, psi(*common), js(*common), possible=several
    )


def compare_shares(hits_a: int, n: int, hits_b: int, m: int) -> Outcome:
    """Compare two shares by chi-square, by Fisher's exact test where they are small.

    The effect is the difference of the shares.
    """
    table = np.array([[hits_a, n - hits_a], [hits_b, m - hits_b]], np.int64)
    total = table.sum(0)
    if not total.all():
        return Outcome("", 1.0, 0.0, possible=False)
    if float(total.min()) * min(n, m) / (n + m) >= LEAST_EXPECTED:
        name, p = "chi-square", _chi_square(table[0], table[1])
    else:
        from scipy.stats import fisher_exact

        name, p = "Fisher", float(fisher_exact(table)[1])
    return Outcome(name, p, abs(hits_b / m - hits_a / n))


def new_levels(a: Counts, b: Counts) -> Outcome:
    """Ask whether more levels are new than chance would make look new.

    A level of c rows in both tables together lies in the current one alone with probability
    (m / (n + m)) ** c at most; how many do is held against a Poisson count, which is wider than
    the true one. The effect is the share of current rows in new levels beyond what chance makes.

    Args:
        a: [levels] count in the reference.
        b: [levels] count in the current table.
    """
    n, m = int(a.sum()), int(b.sum())
    total = a + b
    chance = np.power(m / (n + m), total)
    new = (a == 0) & (b > 0)
    from scipy.special import pdtrc

    number = int(new.sum())
    p = float(pdtrc(number - 1, chance.sum())) if number else 1.0
    effect = max(0.0, float(b[new].sum() - (chance * total).sum()) / m)
    return Outcome("new levels", p, effect)


def binned(reference: Floats, current: Floats, bins: int = BINS) -> tuple[Counts, Counts]:
    """Return counts between the deciles of the reference, ties drawn together."""
    edges = np.unique(np.quantile(reference, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    # Between edges lie even places, on an edge odd ones: a value that fills much of the reference
    # forms a bin of its own, any other on an edge belongs to the bin below.
    place_a, place_b = (
        np.searchsorted(edges, x, "left") + np.searchsorted(edges, x, "right")
        for x in (reference, current)
    )
    width = 2 * len(edges) + 1
    heavy = np.bincount(place_a, minlength=width) > len(reference) // (2 * bins)
    own = np.arange(width)
    own[1::2] -= ~heavy[1::2]
    a, b = (np.bincount(own[place], minlength=width) for place in (place_a, place_b))
    kept = (a > 0) | (b > 0)
    return a[kept], b[kept]


def psi(a: Counts, b: Counts) -> float:
    """Return the population stability index, half a row added to every bin.

    >>> round(psi(np.array([50, 50]), np.array([50, 50])), 6)
    0.0
    """
    p, q = (a + 0.5) / (a + 0.5).sum(), (b + 0.5) / (b + 0.5).sum()
    return float(((q - p) * np.log(q / p)).sum())


def js(a: Counts, b: Counts) -> float:
    """Return the Jensen-Shannon divergence in bits (Lin 1991).

    >>> js(np.array([10, 0]), np.array([0, 10]))
    1.0
    """
    p, q = a / a.sum(), b / b.sum()
    middle = (p + q) / 2.0

    def against(x: Floats) -> float:
        kept = x > 0
        return float((x[kept] * np.log2(x[kept] / middle[kept])).sum())

    return min(max((against(p) + against(q)) / 2.0, 0.0), 1.0)


def holm(p: Floats) -> Floats:
    """Return p-values corrected for their number (Holm 1979): no false one among all, at alpha.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return corrected


def smallest_gap(n: int, m: int, alpha: float) -> float:
    """Return the least Kolmogorov-Smirnov distance that is told from chance at ``alpha``.

    >>> round(smallest_gap(1_000, 1_000, 0.05), 3)
    0.061
    """
    return min(1.0, math.sqrt(-math.log(alpha / 2.0) / 2.0 * (n + m) / (n * m)))


def _tallies(reference: Floats, current: Floats) -> tuple[Floats, Counts, Counts]:
    """Return the values in order, and how often each occurs in either sample."""
    values, place = np.unique(np.concatenate([reference, current]), return_inverse=True)
    width = int(place.max()) + 1
    return (
        values,
        np.bincount(place[: len(reference)], minlength=width),
        np.bincount(place[len(reference) :], minlength=width),
    )


def _ks_p(gap: float, n: int, m: int) -> float:
    """Return the p of a distance, by Kolmogorov's limit with Stephens' correction (1970)."""
    from scipy.special import kolmogorov

    root = math.sqrt(n * m / (n + m))
    return float(kolmogorov((root + 0.12 + 0.11 / root) * gap))


def _mann_whitney_p(a: Counts, b: Counts, below_a: Counts) -> float:
    """Return the two-sided p, normal with the variance of the ties."""
    from scipy.special import ndtr

    n, m = float(a.sum()), float(b.sum())
    total = n + m
    u = float((b * (below_a - a / 2.0)).sum())
    ties = (a + b).astype(np.float64)
    variance = (
        n * m / 12.0 * ((total + 1.0) - float((ties**3 - ties).sum()) / (total * (total - 1)))
    )
    if variance <= 0.0:
        return 1.0
    z = max(abs(u - n * m / 2.0) - 0.5, 0.0) / math.sqrt(variance)
    return float(2.0 * ndtr(-z)) if z else 1.0


def _pooled(a: Counts, b: Counts) -> tuple[Counts, Counts]:
    """Return counts in which levels too rare for chi-square are one level."""
    total = (a + b).astype(np.float64)
    smaller = min(a.sum(), b.sum()) / total.sum()
    common = total * smaller >= LEAST_EXPECTED
    rest_a, rest_b = int(a[~common].sum()), int(b[~common].sum())
    a, b = a[common], b[common]
    if rest_a + rest_b == 0:
        return a, b
    if (rest_a + rest_b) * smaller >= LEAST_EXPECTED or len(a) == 0:
        return np.append(a, rest_a), np.append(b, rest_b)
    least = int((a + b).argmin())  # too few for a level of their own: they join the rarest
    a, b = a.copy(), b.copy()
    a[least] += rest_a
    b[least] += rest_b
    return a, b


def _chi_square(a: Counts, b: Counts) -> float:
    """Return the p of Pearson's statistic of two rows of counts; 1 for a single level."""
    from scipy.special import chdtrc

    a, b = _pooled(a, b)
    if len(a) < 2:
        return 1.0
    total = a + b
    share = a.sum() / total.sum()
    expected = total * share
    statistic = float(((a - expected) ** 2 / (expected * (1.0 - share))).sum())
    return float(chdtrc(len(a) - 1, statistic))
