"""One request from beginning to end: rows and canaries in, checked scores out.

Canaries are rows whose scores the scorer has published. They lie at random places among the owner's
rows, encrypted like them. An answer of another model, of another request or of nothing at all
fails on them. They prove no more than that: a scorer that knows its rows could still cheat.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from connectors.private.client.documents import VERSION, DocumentError, sha256
from connectors.private.client.key_file import KeyFile
from connectors.private.client.messages import (
    AnswerHeader,
    RequestHeader,
    read_message,
    write_message,
)
from connectors.private.client.offer import Offer
from connectors.private.client.owner import AnswerError, Owner, Sealed
from tasks.privacy.encoding import RowError
from tasks.privacy.plan import Packing

if TYPE_CHECKING:
    from connectors.private.client.http import Scorer

Reals = NDArray[np.float64]

CANARIES = 3
"""Among the rows of one request."""
MOST_ERROR = 1e-2
"""Largest error of a score that an owner lets a scorer claim, unless told otherwise."""


@dataclass(frozen=True)
class SealedRows:
    """Encrypted rows and what their owner keeps about them.

    Attributes:
        sealed: What the scorer sees.
        model: Digest of the model they are for.
        key: Id of the key they are closed with.
        places: Row of the owner's table for each row sent; -1 - i for canary i.
        total: Rows of the owner's table.
        refused: Row -> why it was not encrypted.
    """

    sealed: Sealed
    model: str
    key: str
    places: tuple[int, ...]
    total: int
    refused: dict[int, str]


@dataclass(frozen=True)
class Asked:
    """What was asked and came back; nothing of it is checked yet.

    Attributes:
        request: Digest of the request.
        sent: Its bytes.
        answer: What came back.
    """

    request: str
    sent: int
    answer: bytes

    @property
    def receipt(self) -> str:
        """Digest of the line in the scorer's log.

        Raises:
            MessageError: When what came back is no answer.
        """
        return read_message(AnswerHeader, self.answer).header.audit


class Session:
    """One key and one model."""

    def __init__(self, offer: Offer, key: KeyFile, most_error: float = MOST_ERROR) -> None:
        """Open the key.

        Args:
            offer: Of the model.
            key: The owner's.
            most_error: Error of a score beyond which an offer is refused: a scorer that may be off
                by anything could answer anything.

        Raises:
            ValueError: When the key is of other parameters than the model, or the error is larger.
        """
        if offer.error > most_error:
            raise ValueError(
                f"the scorer claims that scores may be off by {offer.error:.2g}; more than"
                f" {most_error:g} is not taken unless you say so (--most-error)"
            )
        self.offer, self._key = offer, key
        self._owner = Owner(offer, key.open())

    def seal(self, rows: ArrayLike, packing: Packing | None = None) -> SealedRows:
        """Encrypt rows, with canaries among them.

        Args:
            rows: float [n, F]; those that cannot be encrypted are left out and told.
            packing: How; None: what moves the fewest bytes.

        Raises:
            RowError: When no row is left.
        """
        values = np.asarray(rows, np.float64)
        refused = self.offer.encoding.refused(values)
        kept = [row for row in range(len(values)) if row not in refused]
        if not len(values):
            raise ValueError("the table has no rows")
        if not kept:
            raise RowError(list(refused), list(refused.values()))
        places = _mixed(kept, len(self.offer.canaries))
        table = np.concatenate([values, self.offer.canaries])
        sent = table[[place if place >= 0 else len(values) - 1 - place for place in places]]
        return SealedRows(
            self._owner.encrypt(sent, packing),
            self.offer.plan.digest,
            self._key.key_id,
            tuple(places),
            len(values),
            refused,
        )

    def request(self, rows: SealedRows) -> bytes:
        """Return a fresh, signed request for sealed rows."""
        header = RequestHeader(
            version=VERSION,
            tenant=self._key.registration.tenant,
            key=rows.key,
            parameters=self.offer.plan.parameters.name,
            model=rows.model,
            packing=rows.sealed.packing,
            rows=rows.sealed.rows,
            nonce=secrets.token_hex(16),
            time=time.time_ns() // 1_000_000,
            body_bytes=len(rows.sealed.content),
            body=sha256(rows.sealed.content),
        )
        return write_message(header, rows.sealed.content, self._key.signing_key)

    def ask(self, scorer: Scorer, rows: SealedRows) -> Asked:
        """Have sealed rows scored, by a request of its own.

        Raises:
            ScorerError: When the scorer cannot be reached, or refuses.
        """
        request = self.request(rows)
        size = self.offer.plan.answer_bytes(rows.sealed.packing, rows.sealed.rows)
        return Asked(_digest_of(request), len(request), scorer.score(request, size))

    def open(self, rows: SealedRows, request: bytes | str, answer: bytes) -> Reals:
        """Check an answer and decrypt its scores.

        Args:
            rows: What was sealed.
            request: The request that was sent, or its digest.
            answer: What came back.

        Returns:
            float64 [total, O], in the order of the owner's table; NaN where a row was refused.

        Raises:
            AnswerError: When the answer is not signed by this scorer, not to this request, or wrong
                about a canary.
            WordError: When its body is no ciphertext.
        """
        if (rows.key, rows.model) != (self._key.key_id, self.offer.plan.digest):
            raise AnswerError("these rows were sealed with another key or for another model")
        body = self._checked(rows, _digest_of(request), answer)
        scores = self._owner.decrypt(rows.sealed, body)
        places = np.array(rows.places)
        self._check_canaries(scores[places < 0], -1 - places[places < 0])
        out = np.full((rows.total, self.offer.plan.scores), np.nan)
        out[places[places >= 0]] = scores[places >= 0]
        return out

    def _checked(self, rows: SealedRows, digest: str, answer: bytes) -> bytes:
        """Return the body of an answer that is signed and belongs to a request."""
        try:
            message = read_message(AnswerHeader, answer)
            message.check_signature(self.offer.scorer)
            message.check_body()
        except DocumentError as error:
            raise AnswerError(f"the answer cannot be trusted: {error}") from None
        header = message.header
        told = (header.request, header.model, header.key, header.rows)
        if told != (digest, rows.model, rows.key, rows.sealed.rows):
            raise AnswerError("the answer is signed, but not to this request")
        return message.body

    def _check_canaries(self, scores: Reals, which: NDArray[np.int64]) -> None:
        # Behind a power, canaries are rows such as the model was compiled on, as the bound asks.
        error = np.abs(scores - self.offer.canary_scores[which])
        if not (error <= self.offer.error * (1 + 1e-9)).all():
            raise AnswerError(
                "the scores of canaries are wrong: another model, another order of rows, or noise"
                " beyond what is proved; nothing of this answer is used"
            )


def _digest_of(request: bytes | str) -> str:
    if isinstance(request, str):
        return request
    return read_message(RequestHeader, request).digest


def _mixed(kept: Sequence[int], known: int) -> list[int]:
    """Return rows in their order with some canaries at places that nobody can guess."""
    chance = secrets.SystemRandom()
    places = list(kept)
    for canary in chance.sample(range(known), min(CANARIES, known)):
        places.insert(chance.randint(0, len(places)), -1 - canary)
    return places
