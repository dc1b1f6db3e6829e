"""Scores as encryption would give them, without it: the same whole numbers, noise on request.

Without noise this is what ciphertexts compute if fresh noise were zero; decrypted scores differ
from it by noise alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.privacy.compile import Compiled
from tasks.privacy.parameters import NOISE_VARIANCE

Reals = NDArray[np.float64]


def simulate(
    compiled: Compiled, rows: ArrayLike, noise: np.random.Generator | None = None
) -> Reals:
    """Return the scores [n, O] of raw rows.

    Args:
        compiled: What would run.
        rows: [n, F].
        noise: Draws the noise of fresh ciphertexts; None: none.

    Raises:
        RowError: On rows that could not be encrypted.
    """
    plan, whole = compiled.plan, compiled.whole
    steps = np.rint(compiled.model.encoding.encode(rows) * 2.0**plan.input_bits)
    if noise is not None:
        # A slot sums N coefficients on the unit circle; its real part has half of their variance.
        terms = 1.0 if plan.power == 1 else plan.parameters.ring.degree / 2
        steps = steps + noise.normal(0.0, np.sqrt(NOISE_VARIANCE * terms), steps.shape)
    scores: Reals = steps @ whole.weights.T.astype(np.float64)
    if plan.power > 1:
        output = whole.output if len(whole.output) else whole.signs[None]
        hidden = scores + np.array([float(number) for number in whole.bias])
        scores = hidden**plan.power @ output.T.astype(np.float64)
    found: Reals = scores * 2.0**-plan.score_bits + compiled.model.offset
    return found
