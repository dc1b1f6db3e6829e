"""The data owner: encrypts rows, decrypts scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from connectors.private.client.embedding import coefficients_of, slots_of
from connectors.private.client.offer import Offer
from connectors.private.client.seal import Seal
from tasks.privacy.plan import Packing

Reals = NDArray[np.float64]


class AnswerError(ValueError):
    """An answer does not belong to what was asked."""


@dataclass(frozen=True)
class Sealed:
    """Encrypted rows.

    Attributes:
        packing: How they lie in the ciphertexts.
        rows: How many there are.
        content: The ciphertexts.
    """

    packing: Packing
    rows: int
    content: bytes


class Owner:
    """Encrypts for one model with one key. An object serves one thread at a time."""

    def __init__(self, offer: Offer, seal: Seal) -> None:
        """Take what a scorer offers, and a key.

        Raises:
            ValueError: When the key is of other parameters than the model.
        """
        if seal.parameters != offer.plan.parameters:
            raise ValueError(
                f"the key is of parameter set {seal.parameters.name}, the model of"
                f" {offer.plan.parameters.name}; make a key for it"
            )
        self.offer, self._seal, self._plan = offer, seal, offer.plan

    def encrypt(self, rows: ArrayLike, packing: Packing | None = None) -> Sealed:
        """Encrypt raw rows.

        Args:
            rows: [n, F] numbers.
            packing: How; None: what moves the fewest bytes.

        Raises:
            RowError: On rows that are not finite or outside what the model was compiled for.
        """
        encoded = self.offer.encoding.encode(rows)
        if not len(encoded):
            raise ValueError("there are no rows to encrypt")
        chosen = packing or self._plan.packing_for(len(encoded))
        size = self._plan.capacity(chosen)
        make = {"rows": self._rows, "slots": self._slots, "products": self._products}[chosen]
        groups = (encoded[start : start + size] for start in range(0, len(encoded), size))
        return Sealed(chosen, len(encoded), b"".join(map(make, groups)))

    def decrypt(self, sealed: Sealed, answer: bytes) -> Reals:
        """Decrypt the scores of encrypted rows.

        Args:
            sealed: What was sent.
            answer: What came back.

        Returns:
            float64 [n, O], with the model's offset added.

        Raises:
            AnswerError: When the answer has another length.
            WordError: When it is no ciphertext.
        """
        expected = self._plan.answer_bytes(sealed.packing, sealed.rows)
        if len(answer) != expected:
            raise AnswerError(f"the answer has {len(answer)} bytes, not {expected}")
        groups = self._plan.groups(sealed.packing, sealed.rows)
        size = len(answer) // (groups * self._plan.scores)
        scores = np.array(
            [
                self._opened(answer[start : start + size], sealed.packing)
                for start in range(0, len(answer), size)
            ]
        )
        by_row = scores.reshape(groups, self._plan.scores, -1).transpose(0, 2, 1)
        found: Reals = by_row.reshape(-1, self._plan.scores)[: sealed.rows] + self.offer.offset
        return found

    def _opened(self, ciphertext: bytes, packing: Packing) -> Reals:
        """Return the scores of one ciphertext, as many as it has room for."""
        slots = self._seal.decrypt(ciphertext, 2.0**self._plan.score_bits)
        if packing == "slots":
            return slots.real
        coefficients = coefficients_of(slots)
        return coefficients if packing == "rows" else coefficients[:: self._plan.stride]

    def _rows(self, encoded: Reals) -> bytes:
        steps = np.zeros((self._plan.inputs, self._plan.parameters.ring.degree))
        steps[:, : len(encoded)] = np.rint(encoded.T * 2.0**self._plan.input_bits)
        return b"".join(self._seal.encrypt(slots_of(column), 1.0) for column in steps)

    def _slots(self, encoded: Reals) -> bytes:
        slots = np.zeros((self._plan.inputs, self._plan.parameters.ring.degree // 2))
        slots[:, : len(encoded)] = encoded.T
        scale = 2.0**self._plan.input_bits
        return b"".join(self._seal.encrypt(column, scale) for column in slots)

    def _products(self, encoded: Reals) -> bytes:
        plan = self._plan
        steps = np.zeros((plan.capacity("products"), plan.parts * plan.stride))
        steps[: len(encoded), : encoded.shape[1]] = np.rint(encoded * 2.0**plan.input_bits)
        parts = steps.reshape(len(steps), plan.parts, plan.stride).transpose(1, 0, 2)
        return b"".join(self._seal.encrypt(slots_of(part.ravel()), 1.0) for part in parts)
