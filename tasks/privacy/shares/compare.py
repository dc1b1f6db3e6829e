"""Whether a shared score reaches the threshold, and nothing else about it.

The threshold is part of the model: it has been subtracted from the offset, so what is taken is a
sign, exact for every number of the ring. How, is told in ``kernels.ring64.signs``. Three openings,
of a masked score, 24 bits and 7 bits; the result is a shared bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.ring64.signs import (
    FINAL_BITS,
    INDEX_BITS,
    first_look,
    second_look,
    table_words,
    third_look,
)
from tasks.privacy.shares.dealing import INDEX_MASKS, SCORE_MASKS, TABLES
from tasks.privacy.shares.material import Material
from tasks.privacy.shares.plan import JointPlan, Party
from tasks.privacy.shares.steps import Steps, opened_sum, opened_xor

Words = NDArray[np.uint64]
Bits = NDArray[np.uint8]


def reached(plan: JointPlan, party: Party, scores: Words, material: Material) -> Steps[Bits]:
    """Return a party's share, by exclusive or, of whether scores are at least zero.

    Args:
        plan: Of a model of which decisions are revealed.
        party: Which this is.
        scores: uint64 [n, O], its share of score minus threshold.
        material: Of the batch.

    Returns:
        uint8 [n, O], each 0 or 1.
    """
    bits, rows, first = plan.sign_bits, len(scores), party == 0
    share = scores + material.words(SCORE_MASKS, rows, plan.scores)
    opened = (yield from opened_sum(share, -(-bits // 8))).ravel()
    masks = material.words(INDEX_MASKS, rows, plan.scores).ravel()
    words = table_words(bits)
    tables = material.words(TABLES, rows, plan.scores * words).reshape(-1, words)
    indices = first_look(opened, tables, masks, first=first, bits=bits)
    indices = yield from opened_xor(indices, -(-INDEX_BITS // 8))
    indices = second_look(indices, tables, masks, bits=bits)
    indices = yield from opened_xor(indices, -(-FINAL_BITS // 8))
    negative = third_look(indices, opened, tables, first=first, bits=bits)
    # The bit is turned round by one party.
    return (negative ^ np.uint64(first)).astype(np.uint8).reshape(scores.shape)
