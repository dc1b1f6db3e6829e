"""One batch of rows from inputs to what is revealed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.ring64.wire import packed, signed, unpacked
from tasks.privacy.shares.compare import reached
from tasks.privacy.shares.linear import Layer, weighted_sums
from tasks.privacy.shares.material import Material
from tasks.privacy.shares.part import Part
from tasks.privacy.shares.plan import JointPlan, Party
from tasks.privacy.shares.square import square_layer
from tasks.privacy.shares.steps import NOTHING, Exchange, Steps

Words = NDArray[np.uint64]
Reals = NDArray[np.float64]
Outcome = NDArray[np.float64] | NDArray[np.bool_] | None
"""Scores or decisions [n, O]; None for a party that receives nothing."""


class BatchScorer:
    """Scores batches of one model at one party.

    Attributes:
        plan: What both parties agree on.
        party: Which this is.
    """

    def __init__(self, plan: JointPlan, party: Party, part: Part, layer: Layer) -> None:
        self.plan, self.party, self._part, self._layer = plan, party, part, layer

    def score(self, inputs: Reals, material: Material) -> Steps[Outcome]:
        """Score one batch.

        Args:
            inputs: float64 [n, G of the party], encoded.
            material: Of the batch, never used before.
        """
        plan, party = self.plan, self.party
        share = yield from weighted_sums(plan, party, self._layer, inputs, material)
        if plan.signs:
            share = yield from square_layer(plan, party, share, material)
            share += self._part.offset
        if plan.reveal == "decision":
            bits = yield from reached(plan, party, share, material)
            return (yield from self._revealed_bits(bits))
        return (yield from self._revealed_scores(share))

    def _revealed_scores(self, share: Words) -> Steps[Outcome]:
        """Open all but the lowest bits of scores: each party drops them from its share.

        What is opened is the score's upper bits, less 1 where the dropped ones carry. To whoever
        has one share it tells in which interval of ``2**dropped`` steps the score lies, and no
        more; the intervals begin at that share's lowest bits, which are uniform for each row.
        """
        plan, bits = self.plan, self.plan.revealed_bits
        ring = np.uint64(64 - 8 * plan.score_width)
        kept = (share << ring) >> (ring + np.uint64(plan.dropped))
        width = -(-bits // 8)
        other = yield self._reveal(packed(kept, width))
        if not other.size:
            return None
        upper = signed(kept + unpacked(other, width, share.shape), bits)
        # The dropped bits of both are 0 to 2**(dropped + 1) - 2 steps: their middle.
        middle = 2.0**plan.dropped - 1
        scores: Reals = (upper * 2.0**plan.dropped + middle) * 2.0**-plan.score_bits
        return scores

    def _revealed_bits(self, share: NDArray[np.uint8]) -> Steps[Outcome]:
        own = np.packbits(share)
        other = yield self._reveal(own)
        if not other.size:
            return None
        both = np.unpackbits(own ^ other, count=share.size)
        return both.astype(np.bool_).reshape(share.shape)

    def _reveal(self, own: NDArray[np.uint8]) -> Exchange:
        """Return the step in which shares go to who receives."""
        peer: Party = 1 if self.party == 0 else 0
        outgoing = own if self.plan.receives(peer) else NOTHING
        return Exchange(outgoing, own.size if self.plan.receives(self.party) else 0)
