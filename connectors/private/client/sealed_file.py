"""Sealed rows as a file: between encrypting, sending and decrypting, hours may lie.

    4 bytes    PSSR
    4 bytes    length of the header, little-endian
    header     JSON: packing, places of rows and canaries, refused rows
    rest       ciphertexts

It stays with the owner; a scorer gets the ciphertexts and none of the header.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, cast, get_args

from connectors.private.client.owner import Sealed
from connectors.private.client.session import SealedRows
from tasks.privacy.plan import Packing

_START = struct.Struct("<4sI")
_KIND = b"PSSR"
MOST_HEADER = 256 * 2**20


class SealedFileError(ValueError):
    """A file holds no sealed rows."""


def write_sealed(path: Path, rows: SealedRows) -> None:
    """Write sealed rows."""
    header = {
        "packing": rows.sealed.packing,
        "rows": rows.sealed.rows,
        "model": rows.model,
        "key": rows.key,
        "places": list(rows.places),
        "total": rows.total,
        "refused": [[row, why] for row, why in rows.refused.items()],
    }
    text = json.dumps(header).encode()
    path.write_bytes(_START.pack(_KIND, len(text)) + text + rows.sealed.content)


def read_sealed(path: Path) -> SealedRows:
    """Read sealed rows.

    Raises:
        SealedFileError: When the file holds none.
    """
    with path.open("rb") as file:
        start = file.read(_START.size)
        kind, length = _START.unpack(start) if len(start) == _START.size else (b"", 0)
        if kind != _KIND or length > MOST_HEADER:
            raise SealedFileError(f"{path} holds no sealed rows; make some with 'encrypt'")
        text, content = file.read(length), file.read()
    try:
        data: dict[str, Any] = json.loads(text)
        packing = data["packing"]
        made = SealedRows(
            Sealed(cast("Packing", packing), int(data["rows"]), content),
            str(data["model"]),
            str(data["key"]),
            tuple(int(place) for place in data["places"]),
            int(data["total"]),
            {int(row): str(why) for row, why in data["refused"]},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SealedFileError(f"{path} is cut off or changed ({error!r})") from None
    if packing not in get_args(Packing) or len(made.places) != made.sealed.rows:
        raise SealedFileError(f"{path} is cut off or changed")
    return made
