"""How likely a given label is wrong: a noise model first, reviewed rows when there are some.

The noise model says: the true class is drawn from the model's probabilities at some temperature,
and the given label from the true class's row of a noise matrix. Both are fitted to the given labels
(the matrix by expectation maximisation, the temperature around it), so the sharpening takes out of
the probabilities what the model learnt from wrong labels, and errors between classes that are often
mistaken weigh more. Under heavy noise it says too little, and it knows nothing of people's errors
on hard rows; a few reviewed rows mend its level (:func:`reviewed_logits`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.labels.scores import Floats, Labels, given, softened

PRIOR_RATE, PRIOR_ROWS = 0.05, 20.0  # every class as if 20 rows had been seen, 5 % of them wrong
ROUNDS, SETTLED = 200, 1e-4  # of expectation maximisation: at most, and the change that ends it
SEARCHED = 3_000  # rows that the temperature is searched on, evenly spaced
EDGE = 1e-9


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """Temperature of the probabilities, and how labels come from true classes.

    Attributes:
        temperature: Of ``scores.softened``.
        matrix: Probability of a given label (column) of a true class (row) [K, K].
    """

    temperature: float
    matrix: Floats

    def log_odds(self, y: Labels, p: Floats) -> Floats:
        """Return the log-odds that each given label is wrong [N]."""
        joint = softened(p, self.temperature) * self.matrix[:, y].T
        kept = given(y, joint)
        joint[np.arange(len(y)), y] = 0.0
        tiny = np.finfo(np.float64).tiny
        odds = np.log(np.maximum(joint.sum(axis=1), tiny)) - np.log(np.maximum(kept, tiny))
        return np.asarray(odds)

    def wrong(self, y: Labels, p: Floats) -> Floats:
        """Return the probability that each given label is wrong [N]."""
        return probability(self.log_odds(y, p))


def fit_noise(y: Labels, p: Floats) -> NoiseModel:
    """Return the likeliest noise model of labels [N] under probabilities [N, K]."""
    from scipy.optimize import minimize_scalar

    few = np.linspace(0, len(y) - 1, min(len(y), SEARCHED)).astype(np.int64)

    def loss(log_temperature: float) -> float:
        return _fit_matrix(y[few], softened(p[few], float(np.exp(log_temperature))))[1]

    options = {"xatol": 0.02}
    best = minimize_scalar(loss, bounds=(-2, 2), method="bounded", options=options)
    temperature = float(np.exp(best.x))
    return NoiseModel(temperature, _fit_matrix(y, softened(p, temperature))[0])


def _fit_matrix(y: Labels, soft: Floats) -> tuple[Floats, float]:
    """Return the noise matrix [K, K] and the loss per row.

    Args:
        y: Given labels [N].
        soft: Probabilities of the true class [N, K].
    """
    classes = soft.shape[1]
    seen = np.eye(classes)[y]
    start = np.full((classes, classes), PRIOR_RATE / (classes - 1))
    np.fill_diagonal(start, 1 - PRIOR_RATE)
    prior, matrix = PRIOR_ROWS * start, start
    for _ in range(ROUNDS):
        joint = soft * matrix.T[y]
        share = joint / np.maximum(joint.sum(axis=1, keepdims=True), EDGE**4)
        counts = prior + share.T @ seen
        before, matrix = matrix, counts / counts.sum(axis=1, keepdims=True)
        if np.abs(matrix - before).max() < SETTLED:
            break
    evidence = np.maximum((soft * matrix.T[y]).sum(axis=1), EDGE**4)
    loss = -np.log(evidence).sum() - (prior * np.log(matrix)).sum()
    return matrix, float(loss) / len(soft)


def noise_posterior(y: Labels, p: Floats) -> Floats:
    """Return the log-odds that each given label is wrong under the fitted noise model [N]."""
    return fit_noise(y, p).log_odds(y, p)


def probability(log_odds: Floats) -> Floats:
    """Return the probabilities of log-odds."""
    from scipy.special import expit

    return np.asarray(expit(log_odds))


def logits(probabilities: Floats) -> Floats:
    """Return the log-odds of probabilities, finite."""
    inside = np.clip(probabilities, EDGE, 1 - EDGE)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def reviewed_logits(
    known: Floats, wrong: NDArray[np.bool_], pull: float = 1.0
) -> tuple[float, float]:
    """Return offset and slope that calibrate log-odds to what reviewers found.

    Args:
        known: Log-odds of the reviewed rows [R] before.
        wrong: What the reviewers said [R].
        pull: Weight of staying near slope 1 and offset 0 (a normal prior of variance
            1 / ``pull`` on the slope, 9 / ``pull`` on the offset), which few rows cannot overrule.
    """
    from scipy.optimize import minimize

    centre = float(known.mean())  # offset and slope hardly interfere around the mean

    def loss(point: NDArray[np.float64]) -> float:
        z = point[0] + centre + point[1] * (known - centre)
        fit = np.logaddexp(0, z) - wrong * z
        return float(fit.sum() + pull / 2 * ((point[1] - 1) ** 2 + point[0] ** 2 / 9))

    found = minimize(loss, [0.0, 1.0], method="L-BFGS-B", bounds=[(-30, 30), (0, 5)]).x
    return float(found[0] + centre * (1 - found[1])), float(found[1])
