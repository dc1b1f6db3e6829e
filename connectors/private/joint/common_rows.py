"""What an intersection leaves with a party: which of its rows are common, in which order.

The file ties three things together that scores depend on: the order that both parties have from one
and the same run (``alignment``, compared when they meet), the number of rows of the table it speaks
of, and the keys of that table, if they are at hand. It is for its party alone: it tells which of
its customers the other has too.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.private.joint.errors import AlignmentError
from connectors.private.owner_only import check_owner_only, write_owner_only
from tasks.privacy.shares.intersect import Intersection

Places = NDArray[np.int64]

FORMAT, VERSION = "penstock-common-rows", 1
_SALT_BYTES = 16
_DIGEST_TEXT = 64


@dataclass(frozen=True)
class CommonRows:
    """An intersection as one party keeps it.

    Attributes:
        rows: int64 [m], places in its table, in the order that both parties have.
        alignment: Of the run, as of `Intersection`: equal on both sides.
        listed: How many keys its list had, and so rows its table.
        salt: 16 random bytes, so that the digest tells no key.
        digest: HMAC-SHA-256 over its whole list of keys in order, hexadecimal.
    """

    rows: Places
    alignment: str
    listed: int
    salt: bytes
    digest: str

    @classmethod
    def of(cls, found: Intersection, keys: Sequence[bytes]) -> CommonRows:
        """Return what is kept of an intersection of a list of keys."""
        salt = secrets.token_bytes(_SALT_BYTES)
        return cls(found.rows, found.alignment, len(keys), salt, _digest(salt, keys))

    def check(self, rows: int, keys: Sequence[bytes] | None) -> None:
        """Check that a table is the one whose keys were intersected.

        Args:
            rows: How many it has.
            keys: Theirs, in their order; None: their number alone is checked.

        Raises:
            AlignmentError: When it is another.
        """
        if rows != self.listed:
            raise AlignmentError(
                f"the table has {rows} rows, and the list of the intersection had {self.listed}"
                " keys; give the whole table, a row for each key of the list and in its order"
            )
        if keys is not None and not hmac.compare_digest(_digest(self.salt, keys), self.digest):
            raise AlignmentError(
                "the keys of the table are not those of the intersection, in their order; sort the"
                " table as the list was, or intersect again with the keys of this table"
            )


def write_common_rows(path: Path, common: CommonRows) -> None:
    """Write a new file, for its owner alone.

    Raises:
        FileExistsError: When there is one.
    """
    data = {
        "format": FORMAT,
        "version": VERSION,
        "alignment": common.alignment,
        "listed": common.listed,
        "salt": common.salt.hex(),
        "digest": common.digest,
        "rows": common.rows.tolist(),
    }
    write_owner_only(path, json.dumps(data).encode())


def read_common_rows(path: Path) -> CommonRows:
    """Read what `write_common_rows` wrote.

    Raises:
        AlignmentError: When it is something else.
        ConfigurationError: When others can read it.
        OSError: When there is no such file.
    """
    check_owner_only(path)
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        rows, listed = np.array(data["rows"], np.int64), int(data["listed"])
        known = (data["format"], data["version"]) == (FORMAT, VERSION)
        alignment, digest = str(data["alignment"]), str(data["digest"])
        salt = bytes.fromhex(data["salt"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise AlignmentError(
            f"{path} is not what 'intersect' writes ({error!r}); give the file of its --out"
        ) from error
    places = rows.ndim == 1 and len(np.unique(rows)) == len(rows)
    inside = places and (not len(rows) or (rows.min() >= 0 and rows.max() < listed))
    if not known or not inside or len(alignment) != _DIGEST_TEXT:
        raise AlignmentError(f"{path} was changed, or is of another version; intersect again")
    return CommonRows(rows, alignment, listed, salt, digest)


def _digest(salt: bytes, keys: Sequence[bytes]) -> str:
    hashed = hmac.new(salt, digestmod=hashlib.sha256)
    for key in keys:
        hashed.update(len(key).to_bytes(8, "little") + key)
    return hashed.hexdigest()
