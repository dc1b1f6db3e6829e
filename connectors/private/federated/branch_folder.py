"""A branch on disk.

    branch.json    name, coordinator's address, plan, roster
    rows.npz       x float32 [n, F], y int8 [n]
    identity.key   32 bytes of an Ed25519 key, for the owner's eyes alone
    ledger.txt     what has left (`connectors.private.federated.ledger`)

Nothing is pickled.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import ArrayLike, NDArray

from connectors.private.federated.branch_client import CoordinatorAddress
from connectors.private.owner_only import write_owner_only
from tasks.privacy.federated.plan import TrainingPlan
from tasks.privacy.federated.roster import Roster

SETTINGS, ROWS, IDENTITY, LEDGER = "branch.json", "rows.npz", "identity.key", "ledger.txt"
KEY_BYTES = 32


class BranchFolderError(ValueError):
    """A branch's folder lacks something, or its key can be read by others."""


@dataclass(frozen=True)
class BranchSettings:
    """What a branch's operator and the coordinator agree on.

    Attributes:
        name: Of the branch.
        address: Where the coordinator is.
        plan: What is done.
        roster: Who takes part.
    """

    name: str
    address: CoordinatorAddress
    plan: TrainingPlan
    roster: Roster

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        authority = self.address.authority
        return {
            "name": self.name,
            "host": self.address.host,
            "port": self.address.port,
            "authority": None if authority is None else str(authority),
            "plan": self.plan.to_dict(),
            "roster": self.roster.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BranchSettings:
        """Rebuild from `to_dict`."""
        authority = Path(data["authority"]) if data["authority"] else None
        return cls(
            str(data["name"]),
            CoordinatorAddress(str(data["host"]), int(data["port"]), authority),
            TrainingPlan.from_dict(data["plan"]),
            Roster.from_dict(data["roster"]),
        )


def make_identity(folder: Path) -> bytes:
    """Make a key if there is none yet, readable by its owner alone; return the public half.

    Args:
        folder: Of the branch; made if need be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / IDENTITY
    key = Ed25519PrivateKey.generate()
    try:
        write_owner_only(path, key.private_bytes_raw())
    except FileExistsError:
        key = read_identity(folder)
    return key.public_key().public_bytes_raw()


def read_identity(folder: Path) -> Ed25519PrivateKey:
    """Return the key of a branch.

    Raises:
        BranchFolderError: When it is missing, or others may read it.
    """
    path = folder / IDENTITY
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise BranchFolderError(f"{path} cannot be read ({error.strerror})") from error
    if mode & 0o077:
        raise BranchFolderError(f"{path} can be read by others: chmod 600 {path}")
    if len(content) != KEY_BYTES:
        raise BranchFolderError(f"{path} holds {len(content)} bytes, not a key of {KEY_BYTES}")
    return Ed25519PrivateKey.from_private_bytes(content)


def write_rows(folder: Path, x: ArrayLike, y: ArrayLike) -> None:
    """Write the rows of a branch, for its owner alone."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / ROWS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        np.savez(file, x=np.asarray(x, np.float32), y=np.asarray(y, np.int8))


def write_settings(folder: Path, settings: BranchSettings) -> None:
    """Write what a branch must know."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(json.dumps(settings.to_dict()), encoding="utf-8")


def read_branch(
    folder: Path,
) -> tuple[BranchSettings, NDArray[np.float32], NDArray[np.int8]]:
    """Return settings, features [n, F] and labels [n] of a branch.

    Raises:
        BranchFolderError: When a file is missing or is not what it should be.
    """
    try:
        settings = BranchSettings.from_dict(json.loads((folder / SETTINGS).read_text("utf-8")))
        with np.load(folder / ROWS, allow_pickle=False) as rows:
            return settings, rows["x"], rows["y"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BranchFolderError(f"{folder} is no branch's folder: {error}") from error
