"""How much privacy a sequence of noisy sums has cost, by Rényi differential privacy.

The mechanism is the sampled Gaussian (Mironov, Talwar and Zhang 2019): every row takes part with
probability q, sums have sensitivity 1 and noise of deviation ``noise``. Costs of steps add up at
each order (Mironov 2017) and are converted to (epsilon, delta) as by Canonne, Kamath and Steinke
2020, proposition 12 (Balle et al. 2020 have it too). Neighbours differ by one row added or removed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ORDERS: tuple[float, ...] = (
    *(1 + tenth / 10 for tenth in range(1, 100)),
    *map(float, range(11, 64)),
    *(80.0, 100.0, 128.0, 192.0, 256.0, 512.0),
)

_NEGLIGIBLE = -30.0
"""Logarithm at which a series is cut. Beyond the order its terms alternate in sign and shrink, as a
power of their number, so that all that is cut is less than the last term."""


def renyi_cost(rate: float, noise: float, order: float) -> float:
    """Return the Rényi divergence of one step.

    Args:
        rate: Probability q with which a row takes part.
        noise: Deviation of the noise, in units of the sensitivity.
        order: Above 1.

    Raises:
        ValueError: When an argument is outside its range.

    Example:
        >>> renyi_cost(1.0, 2.0, 8.0)
        1.0
    """
    if not (0 <= rate <= 1 and noise > 0 and order > 1):
        raise ValueError(f"rate in 0..1, noise > 0, order > 1; got {rate}, {noise}, {order}")
    if rate == 0:
        return 0.0
    if rate == 1:
        return order / (2 * noise**2)
    moment = _whole_moment if float(order).is_integer() else _moment
    return max(moment(rate, noise, order), 0.0) / (order - 1)


def epsilon_of(costs: Sequence[float], delta: float, orders: Sequence[float] = ORDERS) -> float:
    """Return the smallest epsilon that summed costs allow.

    Args:
        costs: Rényi divergence at each order.
        delta: Probability with which epsilon may be exceeded, within (0, 1).
        orders: Of the costs.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta lies within (0, 1), not {delta}; take less than 1 / rows")
    found = (
        cost + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        for order, cost in zip(orders, costs, strict=True)
    )
    return max(min(found), 0.0)


def step_costs(rate: float, noise: float) -> tuple[float, ...]:
    """Return the Rényi divergence of one step at each of `ORDERS`; of n steps it is n times that.

    Args:
        rate: Probability with which a row takes part in a step.
        noise: Deviation of the noise in units of the sensitivity; 0: no privacy.
    """
    if noise == 0:
        return tuple(math.inf for _ in ORDERS)
    return tuple(renyi_cost(rate, noise, order) for order in ORDERS)


def epsilon(rate: float, noise: float, steps: int, delta: float) -> float:
    """Return epsilon after so many steps.

    Args:
        rate: Probability with which a row takes part in a step.
        noise: Deviation of the noise in units of the sensitivity; 0: no privacy.
        steps: How many.
        delta: Probability with which epsilon may be exceeded.

    Example:
        >>> round(epsilon(0.04, 1.5, 2_250, 1e-5), 6)
        7.329111
    """
    if steps == 0:
        return 0.0
    return epsilon_of([steps * cost for cost in step_costs(rate, noise)], delta)


def _whole_moment(rate: float, noise: float, order: float) -> float:
    """Return log A of a whole order: a binomial sum (section 3.3 of the paper)."""
    whole = int(order)
    return _log_sum(
        [
            math.log(math.comb(whole, k))
            + k * math.log(rate)
            + (whole - k) * math.log1p(-rate)
            + (k * k - k) / (2 * noise**2)
            for k in range(whole + 1)
        ]
    )


def _moment(rate: float, noise: float, order: float) -> float:
    """Return log A of any order: two series that meet where both densities weigh the same."""
    from scipy.special import log_ndtr

    meet = noise**2 * math.log(1 / rate - 1) + 0.5
    plus, minus = [-math.inf], [-math.inf]
    log_binomial, sign = 0.0, 1.0
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    k = 0
    while True:
        rest = order - k
        left = (
            log_binomial
            + k * log_rate
            + rest * log_rest
            + (k * k - k) / (2 * noise**2)
            + float(log_ndtr((meet - k) / noise))
        )
        right = (
            log_binomial
            + rest * log_rate
            + k * log_rest
            + (rest * rest - rest) / (2 * noise**2)
            + float(log_ndtr((rest - meet) / noise))
        )
        (plus if sign > 0 else minus).extend((left, right))
        if k > order and max(left, right) < _NEGLIGIBLE:
            break
        sign *= math.copysign(1.0, rest)
        log_binomial += math.log(abs(rest) / (k + 1))
        k += 1
    total, taken = _log_sum(plus), _log_sum(minus)
    return total + math.log1p(-math.exp(taken - total)) if taken > -math.inf else total


def _log_sum(logs: Sequence[float]) -> float:
    largest = max(logs)
    if largest == -math.inf:
        return largest
    return largest + math.log(math.fsum(math.exp(one - largest) for one in logs))
