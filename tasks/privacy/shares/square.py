"""The hidden layer: the sum of squares of its units, each cut to fewer bits, by one opening.

How one opened word cuts and squares, and why it cannot wrap, is told in ``kernels.ring64.squares``.
The activation is the square and nothing else; networks with another one are distilled beforehand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.ring64.squares import signed_squares
from tasks.privacy.shares.dealing import SQUARES, UNIT_MASKS
from tasks.privacy.shares.material import Material
from tasks.privacy.shares.plan import JointPlan, Party
from tasks.privacy.shares.steps import Steps, opened_sum

Words = NDArray[np.uint64]


def square_layer(plan: JointPlan, party: Party, hidden: Words, material: Material) -> Steps[Words]:
    """Return a party's share of the signed sum of squares.

    Args:
        plan: Of a model with hidden units.
        party: Which this is.
        hidden: uint64 [n, H], its share of the units.
        material: Of the batch.

    Returns:
        uint64 [n, 1] modulo 2**64.
    """
    bits, rows = 8 * plan.width, len(hidden)
    share = hidden + material.words(UNIT_MASKS, rows, plan.units)
    if party == 0:
        share += np.uint64(1 << (bits - 2))
    opened = yield from opened_sum(share, plan.width)
    dealt = material.words(SQUARES, rows, 2 * plan.units + 1)
    total = signed_squares(
        opened, dealt, plan.sign_words, first=party == 0, bits=bits, cut=plan.cut
    )
    return total[:, None]
