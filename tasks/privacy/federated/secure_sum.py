"""The coordinator's part in one secure sum: passes messages on, takes the masks off the total.

What it learns is who took part and the sum. A branch that leaves after its letters were sent is
made up for by the others' shares of its mask key; whoever leaves earlier is simply not summed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from tasks.privacy.federated import shamir
from tasks.privacy.federated.branch_round import (
    COMMITMENT_BYTES,
    check_keys,
    check_signature,
    commitment,
)
from tasks.privacy.federated.expander import words
from tasks.privacy.federated.masks import LETTER_BYTES, Occasion, pair_masks, ring_sum
from tasks.privacy.federated.records import (
    ProtocolError,
    Request,
    join,
    pack,
    pack_places,
    read_words,
    unpack,
)
from tasks.privacy.federated.roster import Roster

Steps = NDArray[np.int64]
Words = NDArray[np.uint64]

Ask = Callable[[Mapping[int, Request]], dict[int, bytes]]
"""Puts requests to branches, by place; returns the answers of those that gave one in time."""


class TooFewBranchesError(RuntimeError):
    """A sum was given up: fewer branches stayed than the threshold says. Nothing was learned."""


class ShareMismatchError(RuntimeError):
    """Shares do not give the secret that a branch committed to: somebody sent others."""


@dataclass(frozen=True, slots=True)
class Total:
    """The outcome of one sum.

    Attributes:
        steps: int64 [d], the sum over the survivors.
        survivors: Places of the branches in it.
        left: Places of those that gave letters and no values, whose masks were rebuilt.
        up: Largest number of bytes that a branch sent, without frames.
        down: Largest number of bytes that a branch was sent, without frames.
    """

    steps: Steps
    survivors: tuple[int, ...]
    left: tuple[int, ...]
    up: int
    down: int


class SecureSum:
    """Runs one sum, message by message. An object serves once."""

    def __init__(self, roster: Roster, occasion: Occasion, ask: Ask) -> None:
        self._roster, self._occasion, self._ask = roster, occasion, ask
        self._up = dict.fromkeys(range(len(roster.names)), 0)
        self._down = dict(self._up)

    def run(self, task: str, content: bytes, width: int, present: Collection[int]) -> Total:
        """Return the sum.

        Args:
            task: What is to be summed.
            content: What branches need for it.
            width: Length d of their vectors.
            present: Places of the branches that can be asked.

        Raises:
            TooFewBranchesError: When fewer stay than the threshold asks for.
            ProtocolError: When a branch answers what is no answer.
            ShareMismatchError: When masks cannot be rebuilt.
        """
        keys = self._put("keys", task, dict.fromkeys(present, b""))
        for place, record in keys.items():
            check_keys(self._roster, self._occasion, place, record)
        told = pack(keys)
        posted = self._put("letters", task, dict.fromkeys(keys, told))
        commitments, letters = {}, {}
        for place, answer in posted.items():
            commitments[place] = answer[:COMMITMENT_BYTES]
            letters[place] = self._pieces(
                answer[COMMITMENT_BYTES:], LETTER_BYTES, set(keys) - {place}
            )
        mail = {
            to: pack({place: sent[to] for place, sent in letters.items() if place != to})
            for to in letters
        }
        sent = self._put("values", task, {to: join(box, content) for to, box in mail.items()})
        masked = {
            place: read_words(body, width, self._roster.names[place])
            for place, body in sent.items()
        }
        listed = pack_places(sorted(masked))
        signed = self._put("confirm", task, dict.fromkeys(masked, listed))
        for place, signature in signed.items():
            check_signature(self._roster, self._occasion, place, signature, sorted(masked))
        shown = self._put("reveal", task, dict.fromkeys(signed, pack(signed)))
        shares = {
            place: self._pieces(body, shamir.SHARE_BYTES, set(letters))
            for place, body in shown.items()
        }
        total = self._unmasked(masked, keys, commitments, shares)
        left = tuple(sorted(letters.keys() - masked.keys()))
        up, down = max(self._up.values()), max(self._down.values())
        return Total(total.astype(np.int64), tuple(sorted(masked)), left, up, down)

    def _put(self, stage: str, task: str, bodies: Mapping[int, bytes]) -> dict[int, bytes]:
        requests = {
            place: Request(stage, self._occasion.round, task, body)
            for place, body in bodies.items()
        }
        answers = self._ask(requests) if len(requests) >= self._roster.threshold else {}
        for place, body in bodies.items():
            self._down[place] += len(body)
        for place, answer in answers.items():
            self._up[place] += len(answer)
        if len(answers) < self._roster.threshold:
            raise TooFewBranchesError(
                f"sum {self._occasion.round} ({task}) was given up at {stage!r}: {len(answers)} of"
                f" {len(self._roster.names)} branches answered, it takes {self._roster.threshold}."
                " Start the missing ones and go on with the next round"
            )
        return answers

    def _pieces(self, body: bytes, size: int, expected: set[int]) -> dict[int, bytes]:
        found = unpack(body, size, len(self._roster.names))
        if found.keys() != expected:
            raise ProtocolError(f"pieces came for branches {sorted(found)}, not {sorted(expected)}")
        return found

    def _unmasked(
        self,
        masked: Mapping[int, Words],
        keys: Mapping[int, bytes],
        commitments: Mapping[int, bytes],
        shares: Mapping[int, Mapping[int, bytes]],
    ) -> Words:
        """Return the sum of the vectors without their masks."""
        width = len(next(iter(masked.values())))
        total = ring_sum(masked.values(), width)
        public = {place: keys[place][32:64] for place in masked}
        for place in commitments:
            secret = self._rebuilt(place, shares)
            if place in masked:
                self._require(commitment(secret) == commitments[place], place)
                total -= words(secret, width)
            else:
                key = X25519PrivateKey.from_private_bytes(secret)
                self._require(key.public_key().public_bytes_raw() == keys[place][32:64], place)
                total += pair_masks(key, place, public, self._occasion, width)
        return total

    def _rebuilt(self, place: int, shares: Mapping[int, Mapping[int, bytes]]) -> bytes:
        points = {holder + 1: held[place] for holder, held in shares.items()}
        try:
            return shamir.combine(points, self._roster.threshold)
        except shamir.ShareError as error:
            raise ShareMismatchError(f"branch {self._roster.names[place]!r}: {error}") from error

    def _require(self, fits: bool, place: int) -> None:  # noqa: FBT001
        if not fits:
            raise ShareMismatchError(
                f"the shares of branch {self._roster.names[place]!r} give another secret than its"
                " own: a branch sent shares that it was not given; the sum is discarded"
            )
