"""Masks of one sum: pairwise ones that cancel, and the keys under which shares travel.

Two branches agree on a secret by X25519; HKDF-SHA256 derives from it a key for one session, round,
pair and purpose, so that no mask and no letter key comes twice. Keys of a pair are fresh in every
round as well: a key that was opened for a branch that left opens nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from tasks.privacy.federated.expander import KEY_BYTES, words
from tasks.privacy.federated.shamir import SHARE_BYTES

Words = NDArray[np.uint64]

LETTER_BYTES = 2 * SHARE_BYTES + 16
"""Two shares and the tag."""

_ONCE = bytes(12)
"""Nonce of letters: each is under a key of its own."""


class LetterError(ValueError):
    """A letter does not open: changed, or not from whom it is said to be."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a key is for; no two sums share one.

    Attributes:
        session: 32 bytes that name training, plan and branches.
        round: Number of the sum.
    """

    session: bytes
    round: int

    def info(self, purpose: bytes, first: int, second: int) -> bytes:
        """Return the context of a derived key."""
        numbers = struct.pack(">QII", self.round, first, second)
        return b"penstock/secure-sum/" + purpose + b"/" + self.session + numbers


def _derived(mine: X25519PrivateKey, theirs: bytes, info: bytes) -> bytes:
    agreed = mine.exchange(X25519PublicKey.from_public_bytes(theirs))
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(agreed)


def seal_letter(
    mine: X25519PrivateKey,
    theirs: bytes,
    occasion: Occasion,
    sender: int,
    receiver: int,
    text: bytes,
) -> bytes:
    """Return what only the receiver can open."""
    key = _derived(mine, theirs, occasion.info(b"letter", sender, receiver))
    return AESGCM(key).encrypt(_ONCE, text, None)


def open_letter(
    mine: X25519PrivateKey,
    theirs: bytes,
    occasion: Occasion,
    sender: int,
    receiver: int,
    letter: bytes,
) -> bytes:
    """Return what a letter says.

    Raises:
        LetterError: When it was changed or is not from the sender.
    """
    key = _derived(mine, theirs, occasion.info(b"letter", sender, receiver))
    try:
        return AESGCM(key).decrypt(_ONCE, letter, None)
    except InvalidTag:
        raise LetterError(
            f"the letter of branch {sender} to branch {receiver} is not its"
        ) from None


def pair_masks(
    mine: X25519PrivateKey,
    me: int,
    others: Mapping[int, bytes],
    occasion: Occasion,
    count: int,
) -> Words:
    """Return the sum of a branch's pairwise masks, uint64 [count].

    The lower of a pair adds the mask, the higher subtracts it: summed over all branches that were
    given each other's keys, nothing is left.

    Args:
        mine: The branch's mask key.
        me: Its place.
        others: Place -> public mask key of the others.
        occasion: Session and round.
        count: Length of the masked vector.
    """
    total = np.zeros(count, np.uint64)
    for other, theirs in others.items():
        pair = (min(me, other), max(me, other))
        mask = words(_derived(mine, theirs, occasion.info(b"mask", *pair)), count)
        if me < other:
            total += mask
        else:
            total -= mask
    return total


def ring_sum(vectors: Iterable[Words], count: int) -> Words:
    """Return the sum modulo 2**64 of vectors, uint64 [count]."""
    total = np.zeros(count, np.uint64)
    for vector in vectors:
        total += vector
    return total
