"""A deal on the disk: one file for each party, signed by the dealer, read batch by batch.

Bytes in order: ``PSTKDEAL``; length of the head (4, little-endian); the head, JSON; the party's
seed (32); SHA-256 of each batch (32 each); the dealer's Ed25519 signature over all before it (64);
the batches, each of the same length: uint64, section by section. A file is secret: its mode is
0600.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from connectors.private.joint.errors import DealError
from connectors.private.owner_only import check_owner_only
from tasks.privacy.shares.dealing import sections
from tasks.privacy.shares.material import SEED_BYTES, SESSION, Material
from tasks.privacy.shares.plan import JointPlan, Party
from tasks.privacy.shares.sizes import step_bytes

Words = NDArray[np.uint64]

MAGIC = b"PSTKDEAL"
LENGTH = struct.Struct("<I")
DIGEST_BYTES, SIGNATURE_BYTES = 32, 64
VERSION = 1
MOST_BATCHES = 1 << 20
MOST_ROWS = 1 << 20
_MOST_HEAD = 4_096


@dataclass(frozen=True)
class DealHead:
    """What a deal is for.

    Attributes:
        deal: Its id, 16 random bytes, hexadecimal; the same in both parties' files.
        party: Whose file this is.
        plan: Digest of the plan.
        rows: Rows of a batch.
        batches: Number of batches.
        dealer: Name of the trusted dealer.
        version: Of the layout.
    """

    deal: str
    party: int
    plan: str
    rows: int
    batches: int
    dealer: str
    version: int = VERSION

    def to_bytes(self) -> bytes:
        """Return it as it is written."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> DealHead:
        """Rebuild from `to_bytes`.

        Raises:
            DealError: When it is none.
        """
        try:
            head = cls(**json.loads(content))
        except (ValueError, TypeError, RecursionError) as error:
            raise DealError(f"the head of the deal cannot be read ({error})") from error
        whole = (head.party, head.rows, head.batches, head.version)
        if not all(type(number) is int for number in whole) or head.version != VERSION:
            raise DealError(f"the deal is not of version {VERSION}; deal again")
        if not (1 <= head.rows <= MOST_ROWS and 1 <= head.batches <= MOST_BATCHES):
            raise DealError(f"a deal has 1 to {MOST_BATCHES} batches of 1 to {MOST_ROWS} rows")
        return head


class DealFile:
    """A party's deal, open for reading.

    Attributes:
        head: What it is for.
        seed: The party's.
    """

    def __init__(self, path: Path, plan: JointPlan, party: Party, dealer: Ed25519PublicKey) -> None:
        """Open and check a file.

        Raises:
            DealError: When it is missing, changed, not the dealer's, or of another plan or party.
            PlanError: When its batches have too many rows for the plan.
            ConfigurationError: When others can read it.
        """
        self._path, self._plan = path, plan
        try:
            check_owner_only(path)
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DealError(f"{path}: {error.strerror}; fetch the file from the dealer") from error
        try:
            self._open(plan, party, dealer)
        except BaseException:
            self.close()
            raise

    def _open(self, plan: JointPlan, party: Party, dealer: Ed25519PublicKey) -> None:
        start = len(MAGIC) + LENGTH.size
        begin = self._read(0, start)
        (length,) = LENGTH.unpack(begin[len(MAGIC) :])
        if begin[: len(MAGIC)] != MAGIC or length > _MOST_HEAD:
            raise DealError(f"{self._path} is no deal")
        self.head = DealHead.from_bytes(bytes(self._read(start, length)))
        signed = start + length + SEED_BYTES + DIGEST_BYTES * self.head.batches
        content = self._read(0, signed + SIGNATURE_BYTES)
        try:
            dealer.verify(content[signed:], content[:signed])
        except InvalidSignature:
            raise DealError(
                f"{self._path} is not signed by the dealer whose key was given, or was changed"
            ) from None
        head = self.head
        if (head.plan, head.party) != (plan.digest, party):
            raise DealError(
                f"{self._path} is party {head.party}'s and of plan {head.plan[:12]}, not party"
                f" {party}'s of {plan.digest[:12]}; let the dealer deal for this plan"
            )
        step_bytes(plan, head.rows)
        self.seed = bytes(content[start + length :][:SEED_BYTES])
        digests = content[start + length + SEED_BYTES : signed]
        self._digests = [
            digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)
        ]
        self._sections = sections(plan, party)
        self._batch_bytes = 8 * head.rows * sum(self._sections.values())
        self._begin = signed + SIGNATURE_BYTES
        expected = self._begin + head.batches * self._batch_bytes
        if os.fstat(self._descriptor).st_size != expected:
            raise DealError(f"{self._path} does not have {expected} bytes; fetch it again")

    def material(self, batch: int) -> Material:
        """Return the material of one batch.

        Raises:
            DealError: When it was changed.
        """
        if batch == SESSION:
            return Material(self.seed, SESSION)
        content = self._read(self._begin + batch * self._batch_bytes, self._batch_bytes)
        if not hmac.compare_digest(hashlib.sha256(content).digest(), self._digests[batch]):
            raise DealError(f"batch {batch} of {self._path} was changed; fetch the file again")
        words = np.frombuffer(content, "<u8")
        given, at = {}, 0
        for name, per_row in self._sections.items():
            size = self.head.rows * per_row
            given[name] = words[at : at + size].reshape(self.head.rows, per_row)
            at += size
        return Material(self.seed, batch, given)

    def _read(self, at: int, size: int) -> bytearray:
        """Return bytes, writable, because compiled code is built for such."""
        content = bytearray(size)
        if os.preadv(self._descriptor, [content], at) != size:
            raise DealError(f"{self._path} ends too early; fetch it again")
        return content

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> DealFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def batch_bytes(given: dict[str, Words], names: Iterable[str]) -> bytes:
    """Return a batch as it is written."""
    return b"".join(given[name].astype("<u8").tobytes() for name in names)
