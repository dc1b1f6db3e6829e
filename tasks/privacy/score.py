"""Scores ciphertexts: parses what came, computes on it, writes the answer. Knows no key.

What comes are words below a prime and seeds, of a length that plan, packing and number of rows
determine to the byte. There is nothing else to parse, no other library sees the bytes, and every
value that passes is a ring element: the answer to it is one as well.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kernels.ring.packing import WordError, pack
from kernels.ring.powers import add_constants, power_sum, times_element
from kernels.ring.roots import values
from kernels.ring.uniform import uniform
from kernels.ring.weighted import weighted_sums
from kernels.ring.words import unpack
from tasks.privacy.plan import SEED_BYTES, Packing, Plan, WholeWeights

Words = NDArray[np.uint64]


class RequestError(ValueError):
    """Ciphertexts that are none of this plan."""


class EncryptedScorer:
    """Scores ciphertexts of one compiled model.

    Attributes:
        plan: What both sides agree on.
    """

    def __init__(self, plan: Plan, whole: WholeWeights) -> None:
        self.plan, self._whole = plan, whole
        self._ring = plan.parameters.ring

    def score(self, packing: Packing, rows: int, content: bytes) -> bytes:
        """Return the encrypted scores of encrypted rows.

        Args:
            packing: How rows lie in the ciphertexts.
            rows: How many there are.
            content: The ciphertexts.

        Raises:
            RequestError: When packing, number of rows or length are not of this plan.
            WordError: When the bytes are no ring elements.
        """
        if packing not in self.plan.packings:
            raise RequestError(f"packing {packing!r} is none of {list(self.plan.packings)}")
        if rows < 1:
            raise RequestError(f"{rows} rows cannot be scored")
        expected = self.plan.request_bytes(packing, rows)
        if len(content) != expected:
            raise RequestError(
                f"{rows} rows in packing {packing!r} take {expected} bytes, not {len(content)}"
            )
        blocks = np.frombuffer(content, np.uint8).reshape(-1, self.plan.block_bytes)
        step = self.plan.parts if packing == "products" else self.plan.inputs
        groups = (blocks[start : start + step] for start in range(0, len(blocks), step))
        compute = self._products if packing == "products" else self._sums
        return b"".join(
            pack(compute(self._opened(group)), self._ring).tobytes() for group in groups
        )

    def _opened(self, blocks: NDArray[np.uint8]) -> Words:
        """Return ciphertexts [2, n, K, N] of their blocks."""
        out = np.empty((2, len(blocks), len(self._ring.primes), self._ring.degree), np.uint64)
        unpack(blocks[:, :-SEED_BYTES], self._ring, out[0])
        uniform(blocks[:, -SEED_BYTES:], self._ring, out[1])
        return out

    def _sums(self, inputs: Words) -> Words:
        """Return the parts [O * P, K, N] of the scores of one group, score by score."""
        whole = self._whole
        halves = [weighted_sums(part, whole.weights, self._ring) for part in inputs]
        hidden = np.stack(halves, axis=1)
        if self.plan.power == 1:
            return hidden.reshape(-1, *hidden.shape[2:])
        add_constants(hidden, list(whole.bias), self._ring)
        if not len(whole.output):
            return power_sum(hidden, whole.signs, self.plan.power, self._ring)
        one = np.ones(1, np.int8)
        powers = np.stack(
            [power_sum(unit[None], one, self.plan.power, self._ring) for unit in hidden]
        )
        scores = [
            weighted_sums(np.ascontiguousarray(powers[:, part]), whole.output, self._ring)
            for part in range(self.plan.power + 1)
        ]
        parts = np.stack(scores, axis=1)
        return parts.reshape(-1, *parts.shape[2:])

    def _products(self, inputs: Words) -> Words:
        """Return the parts [O * 2, K, N] of the scores of one group of whole rows."""
        primes = np.array(self._ring.primes, np.uint64)[:, None]
        scores = []
        for elements in self._elements:
            total = times_element(inputs[:, 0], elements[0], self._ring)
            for part, element in enumerate(elements[1:], 1):
                total = (total + times_element(inputs[:, part], element, self._ring)) % primes
            scores.append(total)
        return np.concatenate(scores)

    @cached_property
    def _elements(self) -> list[list[Words]]:
        """Each score's weights as polynomials w0 - w1 X^(N-1) - w2 X^(N-2) ..., one for each part.

        Since X^N = -1, coefficient ``stride * r`` of its product with rows that begin at multiples
        of the stride is the weighted sum of row r.
        """
        plan, weights = self.plan, self._whole.weights.astype(np.int64)
        padded = np.pad(weights, ((0, 0), (0, plan.parts * plan.stride - plan.inputs)))
        cut = padded.reshape(plan.scores, plan.parts, plan.stride)
        made = np.zeros((plan.scores, plan.parts, self._ring.degree), np.int64)
        made[..., 0] = cut[..., 0]
        made[..., self._ring.degree - plan.stride + 1 :] = -cut[..., :0:-1]
        return [[values(part, self._ring) for part in score] for score in made]


__all__ = ["EncryptedScorer", "RequestError", "WordError"]
