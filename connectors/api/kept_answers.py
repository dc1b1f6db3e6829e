"""What is kept of an answered event: the answer as it was sent, and what the event was about.

The same id gets the same bytes again. The event's time, amount and entities lie beside them, so a
label need name nothing but the event, and an id that is used twice for different events is noticed.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

from tasks.fraud.online.parse import OnlineTransaction

_HEAD = struct.Struct("<qqHH")
_SPLIT = "\x1f"


class KeptAnswer(NamedTuple):
    """An answered event.

    Attributes:
        name: The event id as it was sent.
        time: Epoch milliseconds.
        amount: Minor units.
        entities: Ids, in the order of the entity columns.
        body: The answer as it was sent.
    """

    name: str
    time: int
    amount: int
    entities: tuple[str, ...]
    body: bytes

    def is_of(self, transaction: OnlineTransaction) -> bool:
        """Tell whether it answers this transaction, not another with the same id."""
        return (
            self.time == transaction.time
            and self.amount == transaction.amount
            and self.entities == transaction.entities
        )


def pack_answer(transaction: OnlineTransaction, body: bytes) -> bytes:
    """Return the bytes to keep."""
    name = transaction.event_name.encode(errors="surrogatepass")
    entities = _SPLIT.join(transaction.entities).encode()
    head = _HEAD.pack(transaction.time, transaction.amount, len(name), len(entities))
    return b"".join((head, name, entities, body))


def unpack_answer(content: bytes) -> KeptAnswer:
    """Read what ``pack_answer`` made."""
    time, amount, name_size, entities_size = _HEAD.unpack_from(content)
    at = _HEAD.size
    name = content[at : at + name_size].decode(errors="surrogatepass")
    at += name_size
    entities = content[at : at + entities_size].decode()
    return KeptAnswer(
        name, time, amount, tuple(entities.split(_SPLIT)), content[at + entities_size :]
    )


def label_key(event_id: int) -> int:
    """Return the id under which it is kept that an event's label came.

    A hash, so that it never meets the id of an event (with ten million labels, p = 3e-6).
    """
    digest = hashlib.blake2b(
        event_id.to_bytes(8, "little", signed=True), digest_size=8, key=b"label"
    )
    return int.from_bytes(digest.digest(), "little", signed=True)


def pack_label(label: int, counts_from: int) -> bytes:
    """Return what is kept of a label."""
    return struct.pack("<bq", label, counts_from)


def unpack_label(content: bytes) -> tuple[int, int]:
    """Return (label, epoch milliseconds from which it counts)."""
    label, counts_from = struct.unpack("<bq", content)
    return int(label), int(counts_from)
