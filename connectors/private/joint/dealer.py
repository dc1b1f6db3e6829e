"""The trusted dealer: writes what two parties need before they know what they will score.

It is a third house that both trust; with whom it must not plot, and what it could learn if it did,
is told in ``tasks.privacy.shares``. It needs the plan, which has no weights, and no connection to
either party while they score.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.private.joint.certificates import private_pem
from connectors.private.joint.deal_file import (
    DIGEST_BYTES,
    LENGTH,
    MAGIC,
    MOST_BATCHES,
    MOST_ROWS,
    SIGNATURE_BYTES,
    DealHead,
    batch_bytes,
)
from connectors.private.joint.errors import DealError
from connectors.private.owner_only import (
    check_owner_only,
    create_owner_only,
    write_owner_only,
)
from tasks.privacy.shares.dealing import deal_batch, sections
from tasks.privacy.shares.material import SEED_BYTES
from tasks.privacy.shares.plan import JointPlan, Party
from tasks.privacy.shares.sizes import most_rows, step_bytes

BATCH_ROWS = 8_192


@dataclass(frozen=True)
class DealConfig:
    """What to deal.

    Attributes:
        plan: Of the model.
        key: The dealer's private key, as of `make_dealer_key`.
        folder: Where ``party-0.deal`` and ``party-1.deal`` are written; each goes to its party
            alone, by a way as confidential as a key's, and is then deleted here.
        rows: How many rows can be scored with it, rounded up to whole batches.
        batch_rows: Rows of a batch; a session uses up whole batches. None: 8,192, or as many as
            the plan allows.
        dealer: Name of the dealer, for people.
    """

    plan: JointPlan
    key: Path
    folder: Path
    rows: int
    batch_rows: int | None = None
    dealer: str = "trusted dealer"

    def __post_init__(self) -> None:
        """Validate, naming the fix.

        Raises:
            ValueError: On a setting that cannot be.
            PlanError: When a batch has too many rows for the plan.
        """
        if not 1 <= self.rows_of_batch <= MOST_ROWS:
            raise ValueError(f"batch_rows is 1 to {MOST_ROWS}, not {self.batch_rows}")
        step_bytes(self.plan, self.rows_of_batch)
        if not 1 <= self.rows <= self.rows_of_batch * MOST_BATCHES:
            raise ValueError(f"rows is 1 to {MOST_BATCHES} batches, not {self.rows}")
        if len(self.dealer) > 100:
            raise ValueError("dealer is a name of at most 100 characters")

    @property
    def rows_of_batch(self) -> int:
        """Rows of a batch, chosen or as many as go."""
        if self.batch_rows is None:
            return min(BATCH_ROWS, most_rows(self.plan))
        return self.batch_rows

    @property
    def batches(self) -> int:
        """Number of batches."""
        return -(-self.rows // self.rows_of_batch)


@dataclass(frozen=True)
class Dealt:
    """What was written.

    Attributes:
        deal: Id of the deal.
        files: Of party 0 and party 1.
        rows: How many rows can be scored with it.
    """

    deal: str
    files: tuple[Path, Path]
    rows: int


def make_dealer_key(folder: Path) -> tuple[Path, Path]:
    """Write a dealer's public key, for both parties, and its private one, to be kept.

    Returns:
        The paths of the public and the private key.

    Raises:
        FileExistsError: When there are some.
    """
    key = Ed25519PrivateKey.generate()
    folder.mkdir(parents=True, exist_ok=True)
    public, private = folder / "dealer-public.pem", folder / "dealer-key.pem"
    write_owner_only(private, private_pem(key))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    write_owner_only(public, key.public_key().public_bytes(serialization.Encoding.PEM, form))
    return public, private


def deal(config: DealConfig) -> Dealt:
    """Deal: write both parties' files.

    Raises:
        DealError: When a file is there already, or the key is none.
        ConfigurationError: When others can read the key.
    """
    key = _signing_key(config.key)
    head = DealHead(
        deal=secrets.token_hex(16),
        party=0,
        plan=config.plan.digest,
        rows=config.rows_of_batch,
        batches=config.batches,
        dealer=config.dealer,
    )
    seeds = secrets.token_bytes(SEED_BYTES), secrets.token_bytes(SEED_BYTES)
    config.folder.mkdir(parents=True, exist_ok=True)
    paths = config.folder / "party-0.deal", config.folder / "party-1.deal"
    with _new(paths[0]) as first, _new(paths[1]) as second:
        heads = _headed(head, 0, seeds[0]), _headed(head, 1, seeds[1])
        digests: tuple[list[bytes], list[bytes]] = ([], [])
        for file, begin in zip((first, second), heads, strict=True):
            file.seek(len(begin) + DIGEST_BYTES * head.batches + SIGNATURE_BYTES)
        for batch in range(head.batches):
            given = deal_batch(config.plan, seeds, batch, head.rows)
            for party, file in ((0, first), (1, second)):
                content = batch_bytes(given[party], sections(config.plan, _party(party)))
                digests[party].append(hashlib.sha256(content).digest())
                file.write(content)
        for party, file in ((0, first), (1, second)):
            signed = heads[party] + b"".join(digests[party])
            # A plan may leave a party nothing to be sent in full: then the file ends here.
            file.seek(0)
            file.write(signed + key.sign(signed))
            file.flush()
            os.fsync(file.fileno())
    return Dealt(head.deal, paths, head.rows * head.batches)


def _headed(head: DealHead, party: int, seed: bytes) -> bytes:
    content = replace(head, party=party).to_bytes()
    return MAGIC + LENGTH.pack(len(content)) + content + seed


def _party(number: int) -> Party:
    return 1 if number else 0


def _new(path: Path) -> BinaryIO:
    try:
        return create_owner_only(path)
    except FileExistsError:
        raise DealError(
            f"{path} is there already; a deal is used once: hand it over and delete it first"
        ) from None


def _signing_key(path: Path) -> Ed25519PrivateKey:
    check_owner_only(path)
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise DealError(f"{path} is no dealer's key; make one with make_dealer_key")
    return key
