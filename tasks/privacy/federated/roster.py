"""Who takes part in secure sums, by name and identity key, and how many must stay."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MOST_BRANCHES = 1_000
KEY_BYTES = 32
NAME_BYTES = 64


@dataclass(frozen=True)
class Roster:
    """The branches of one training, agreed on before it starts. Every branch holds a copy.

    A coordinator that could put in branches of its own would read what it likes: it may only pass
    on keys signed by these identities.

    Attributes:
        identities: Name -> Ed25519 public key, 32 bytes.
        threshold: Branches that must stay to the end of a sum. Fewer: the sum is given up, and
            nothing is learned.
        colluding: Branches that may tell the coordinator all they know. A survivor list can be
            told differently to two halves of the branches; it takes ``2 * threshold > branches +
            colluding`` to make that useless (Bonawitz et al. 2017, theorem 6.5).
    """

    identities: Mapping[str, bytes]
    threshold: int
    colluding: int = 0

    def __post_init__(self) -> None:
        """Sort by name and validate, naming the fix.

        Raises:
            ValueError: On a name, key or number that does not fit.
        """
        object.__setattr__(self, "identities", dict(sorted(self.identities.items())))
        count = len(self.identities)
        if not 3 <= count <= MOST_BRANCHES:
            raise ValueError(
                f"{count} branches: a sum hides its parts from 3, and {MOST_BRANCHES} is the most"
            )
        for name, key in self.identities.items():
            if not 0 < len(name.encode()) <= NAME_BYTES or not name.isprintable():
                raise ValueError(f"branch {name[:80]!r}: a name has 1 to {NAME_BYTES} characters")
            if len(key) != KEY_BYTES:
                raise ValueError(f"branch {name!r}: an identity has {KEY_BYTES} bytes")
        if len(set(self.identities.values())) != count:
            raise ValueError("two branches have one identity; make a key for each")
        if self.colluding < 0 or not self.threshold <= count < 2 * self.threshold - self.colluding:
            least = (count + self.colluding) // 2 + 1
            raise ValueError(
                f"threshold {self.threshold} of {count} branches with {self.colluding} colluding:"
                f" it lies between {least} and {count}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names by place: the number of a branch in every message."""
        return tuple(self.identities)

    @property
    def honest(self) -> int:
        """Branches of any complete sum whose noise the reader of a model does not know.

        Every branch reads the model and knows its own noise, so one is never counted.
        """
        return self.threshold - max(self.colluding, 1)

    @property
    def digest(self) -> bytes:
        """SHA-256 of everything that was agreed on; part of all that is signed and derived."""
        numbers = f"{len(self.identities)} {self.threshold} {self.colluding}"
        hasher = hashlib.sha256(numbers.encode())
        for name, key in self.identities.items():
            hasher.update(len(name.encode()).to_bytes(2, "big") + name.encode() + key)
        return hasher.digest()

    def identity(self, place: int) -> Ed25519PublicKey:
        """Return the key of the branch at a place."""
        return Ed25519PublicKey.from_public_bytes(self.identities[self.names[place]])

    def to_dict(self) -> dict[str, Any]:
        """Return the roster as JSON data."""
        return {
            "identities": {name: key.hex() for name, key in self.identities.items()},
            "threshold": self.threshold,
            "colluding": self.colluding,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Roster:
        """Rebuild from `to_dict`."""
        return cls(
            {str(name): bytes.fromhex(key) for name, key in data["identities"].items()},
            int(data["threshold"]),
            int(data["colluding"]),
        )
