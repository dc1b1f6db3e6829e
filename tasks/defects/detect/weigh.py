"""Weighs evidence: a logistic regression whose weights are never negative.

More evidence of a defect must never lower the score, and with ten labels that is also what keeps
the weights from fitting noise; a ridge holds them near what was believed before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_RIDGE = 1.0
_FLAT = 1e-6


class Weights(NamedTuple):
    """Log-odds are ``values @ weight + bias`` of standardised values.

    Attributes:
        weight: float [d], at least 0.
        bias: For even odds.
        centre: float [d], mean on normal ones.
        spread: float [d], standard deviation on normal ones; a value without any weighs nothing.
    """

    weight: Floats
    bias: float
    centre: Floats
    spread: Floats

    def log_odds(self, values: Floats) -> Floats:
        """Return float [n] of float [n, d]."""
        return np.asarray((values - self.centre) / self.spread @ self.weight + self.bias)


def weigh(
    values: Floats, defective: NDArray[np.bool_], share: Floats, ridge: float = _RIDGE
) -> Weights:
    """Fit the weights; both classes count alike.

    Args:
        values: float [n, d], higher where defects are likelier.
        defective: bool [n], with both classes.
        share: float [n], weight of each within its class.
        ridge: Strength of the pull to equal small weights.
    """
    from scipy.optimize import minimize

    centre = np.average(values[~defective], axis=0, weights=share[~defective])
    apart = np.square(values[~defective] - centre)
    spread = np.sqrt(np.average(apart, axis=0, weights=share[~defective]))
    tells = spread > _FLAT
    spread = np.where(tells, spread, 1.0)
    # A value far outside counts as 8 spreads: one odd image shall not decide all weights.
    x = np.clip((values - centre) / spread, -8, 8)
    sign = np.where(defective, 1.0, -1.0)
    each = np.where(defective, share / share[defective].sum(), share / share[~defective].sum())
    believed = tells / max(1, tells.sum())

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weight, bias = parameters[:-1], parameters[-1]
        margin = sign * (x @ weight + bias)
        slope = -each * sign / (1 + np.exp(np.clip(margin, -50, 50)))
        pull = weight - believed
        value = float(each @ np.logaddexp(0, -margin) + ridge / 2 * pull @ pull)
        return value, np.append(slope @ x + ridge * pull, slope.sum())

    start = np.append(believed, 0.0)
    bounds = [(0.0, None if told else 0.0) for told in tells] + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return Weights(found[:-1], float(found[-1]), centre, spread)
