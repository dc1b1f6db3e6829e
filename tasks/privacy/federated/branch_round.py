"""A branch's part in one secure sum (Bonawitz et al. 2017, with the consistency check).

Five messages, each answered once and in order:

    keys     two fresh public keys, signed
    letters  shares of the mask key and of the own mask's seed, one sealed letter per branch
    values   the vector under all masks
    confirm  a signature of who sent one
    reveal   of each branch the share of its seed, or of its mask key if it left: never both
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from tasks.privacy.federated import shamir
from tasks.privacy.federated.expander import words
from tasks.privacy.federated.masks import (
    LetterError,
    Occasion,
    open_letter,
    pair_masks,
    seal_letter,
)
from tasks.privacy.federated.records import ProtocolError
from tasks.privacy.federated.roster import Roster

Steps = NDArray[np.int64]
Words = NDArray[np.uint64]

STAGES = ("keys", "letters", "values", "confirm", "reveal")
SIGNATURE_BYTES = 64
KEYS_BYTES = 32 + 32 + SIGNATURE_BYTES
COMMITMENT_BYTES = 32


class BranchRound:
    """One branch in one sum; asked out of order it refuses."""

    def __init__(
        self, roster: Roster, me: int, identity: Ed25519PrivateKey, occasion: Occasion
    ) -> None:
        self._roster, self._me, self._identity, self._occasion = roster, me, identity, occasion
        self._letter_key, self._mask_key = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        self._seed = secrets.token_bytes(shamir.SECRET_BYTES)
        self._keys: dict[int, bytes] = {}
        self._shares: dict[int, bytes] = {}
        self._survivors: list[int] = []
        self._next = 0

    def keys(self) -> bytes:
        """Return fresh public keys and their signature."""
        self._at("keys")
        public = _public(self._letter_key) + _public(self._mask_key)
        return public + self._identity.sign(keys_text(self._occasion, self._me, public))

    def letters(self, keys: Mapping[int, bytes]) -> tuple[bytes, dict[int, bytes]]:
        """Share the secrets of this round among the branches whose keys came.

        Args:
            keys: Place -> what `keys` of that branch returned.

        Returns:
            A commitment to the seed, and a sealed letter for each other branch.

        Raises:
            ProtocolError: When they are too few, or a signature is not of the roster.
        """
        self._at("letters")
        self._require_enough(keys, "sent keys")
        for place, record in keys.items():
            check_keys(self._roster, self._occasion, place, record)
        if self._me not in keys or keys[self._me][:32] != _public(self._letter_key):
            raise ProtocolError("the own keys came back changed, or not at all")
        self._keys = dict(keys)
        places = [place + 1 for place in keys]
        threshold = self._roster.threshold
        of_seed = shamir.split(self._seed, places, threshold)
        of_key = shamir.split(self._mask_key.private_bytes_raw(), places, threshold)
        texts = {place: of_seed[place + 1] + of_key[place + 1] for place in keys}
        self._shares[self._me] = texts.pop(self._me)
        sealed = {
            place: seal_letter(
                self._letter_key, keys[place][:32], self._occasion, self._me, place, text
            )
            for place, text in texts.items()
        }
        return commitment(self._seed), sealed

    def values(self, letters: Mapping[int, bytes], steps: Steps) -> Words:
        """Return the vector under the masks of all branches whose letters came.

        Args:
            letters: Place -> letter for this branch, of all others that go on.
            steps: int64 [d].

        Raises:
            ProtocolError: When they are too few, or a letter is not from whom it is said to be.
        """
        self._at("values")
        self._require_enough([*letters, self._me], "sent letters")
        if self._me in letters or not letters.keys() <= self._keys.keys():
            raise ProtocolError("letters came of branches that sent no keys")
        for place, letter in letters.items():
            try:
                self._shares[place] = open_letter(
                    self._letter_key,
                    self._keys[place][:32],
                    self._occasion,
                    place,
                    self._me,
                    letter,
                )
            except LetterError as error:
                raise ProtocolError(f"branch {self._roster.names[place]!r}: {error}") from error
        others = {place: self._keys[place][32:64] for place in letters}
        masked = steps.astype(np.uint64)  # modulo 2**64
        masked += words(self._seed, len(steps))
        masked += pair_masks(self._mask_key, self._me, others, self._occasion, len(steps))
        return masked

    def confirm(self, survivors: Sequence[int]) -> bytes:
        """Return a signature of who sent values.

        Raises:
            ProtocolError: When they are too few, unknown, or this branch is not among them.
        """
        self._at("confirm")
        self._require_enough(survivors, "sent values")
        if self._me not in survivors or not set(survivors) <= self._shares.keys():
            raise ProtocolError("those who sent values are not those who sent letters")
        self._survivors = list(survivors)
        return self._identity.sign(survivors_text(self._occasion, survivors))

    def reveal(self, signatures: Mapping[int, bytes]) -> dict[int, bytes]:
        """Return the shares that take the masks off the sum, and only off the sum.

        Args:
            signatures: Place -> signature of the same survivors, of as many as the threshold says.

        Returns:
            Place -> share of its seed if it sent values, of its mask key if it did not.

        Raises:
            ProtocolError: When signatures are too few, or of other survivors.
        """
        self._at("reveal")
        self._require_enough(signatures, "confirmed")
        if not set(signatures) <= set(self._survivors):
            raise ProtocolError("branches confirmed that sent no values")
        for place, signature in signatures.items():
            check_signature(self._roster, self._occasion, place, signature, self._survivors)
        size = shamir.SHARE_BYTES
        return {
            place: both[:size] if place in self._survivors else both[size:]
            for place, both in self._shares.items()
        }

    def _at(self, stage: str) -> None:
        if STAGES[self._next : self._next + 1] != (stage,):
            raise ProtocolError(f"{stage!r} was asked for out of order, or again")
        self._next += 1

    def _require_enough(self, places: Mapping[int, bytes] | Sequence[int], what: str) -> None:
        if len(places) < self._roster.threshold:
            raise ProtocolError(
                f"only {len(places)} branches {what}; below {self._roster.threshold} none goes on"
            )


def check_keys(roster: Roster, occasion: Occasion, place: int, record: bytes) -> None:
    """Check public keys of a branch.

    Raises:
        ProtocolError: When they are not signed by it, or one is of the few that agree on nothing.
    """
    public, signature = record[:64], record[64:]
    _verify(roster, place, signature, keys_text(occasion, place, public))
    trial = X25519PrivateKey.generate()
    for key in (public[:32], public[32:]):
        try:
            seal_letter(trial, key, occasion, 0, 0, b"")
        except ValueError:
            raise ProtocolError(f"branch {roster.names[place]!r} sent a degenerate key") from None


def check_signature(
    roster: Roster, occasion: Occasion, place: int, signature: bytes, survivors: Sequence[int]
) -> None:
    """Check what a branch answered to `confirm`.

    Raises:
        ProtocolError: When it did not sign these survivors.
    """
    _verify(roster, place, signature, survivors_text(occasion, survivors))


def keys_text(occasion: Occasion, place: int, public: bytes) -> bytes:
    """Return what a branch signs of its keys."""
    return occasion.info(b"keys", place, 0) + public


def survivors_text(occasion: Occasion, survivors: Sequence[int]) -> bytes:
    """Return what a branch signs of who sent values."""
    listed = b"".join(place.to_bytes(2, "big") for place in sorted(survivors))
    return occasion.info(b"survivors", len(survivors), 0) + listed


def commitment(seed: bytes) -> bytes:
    """Return what a seed is recognised by and cannot be found from."""
    return hashlib.sha256(b"penstock/seed/" + seed).digest()


def _public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _verify(roster: Roster, place: int, signature: bytes, text: bytes) -> None:
    try:
        roster.identity(place).verify(signature, text)
    except InvalidSignature:
        raise ProtocolError(f"branch {roster.names[place]!r} did not sign this") from None
