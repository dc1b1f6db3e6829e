"""What is kept of an answered event: the answer as it was sent, and what the event was about.

The same id gets the same bytes again. The event's time, amount and entities lie beside them, so a
label need name nothing but the event, and an id that is used twice for different events is noticed.
So does what the head read, so that the decision can be explained for as long as it is kept.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.fraud.online.parse import OnlineTransaction

_HEAD = struct.Struct("<qqHH")
_SPLIT = "\x1f"
_HAS_INPUTS = 1 << 15
"""Bit of the name's size, which is far smaller: the number of inputs and the inputs follow. Answers
kept before there was this bit are read as ever."""

_COUNT = struct.Struct("<H")
_NONE = np.zeros(0, np.float32)


class KeptAnswer(NamedTuple):
    """An answered event.

    Attributes:
        name: The event id as it was sent.
        time: Epoch milliseconds.
        amount: Minor units.
        entities: Ids, in the order of the entity columns.
        body: The answer as it was sent.
        inputs: float32 [W], what the head read; empty where no model scored, or an earlier version
            kept the answer.
    """

    name: str
    time: int
    amount: int
    entities: tuple[str, ...]
    body: bytes
    inputs: NDArray[np.float32] = _NONE

    def is_of(self, transaction: OnlineTransaction) -> bool:
        """Tell whether it answers this transaction, not another with the same id."""
        return (
            self.time == transaction.time
            and self.amount == transaction.amount
            and self.entities == transaction.entities
        )


def pack_answer(
    transaction: OnlineTransaction, body: bytes, inputs: NDArray[np.float32] | None = None
) -> bytes:
    """Return the bytes to keep; ``inputs`` float32 [W] is what the head read."""
    name = transaction.event_name.encode(errors="surrogatepass")
    entities = _SPLIT.join(transaction.entities).encode()
    flag, read = 0, b""
    if inputs is not None:
        flag, read = _HAS_INPUTS, _COUNT.pack(len(inputs)) + inputs.astype("<f4").tobytes()
    head = _HEAD.pack(transaction.time, transaction.amount, len(name) | flag, len(entities))
    return b"".join((head, name, entities, read, body))


def unpack_answer(content: bytes) -> KeptAnswer:
    """Read what ``pack_answer`` made."""
    time, amount, name_size, entities_size = _HEAD.unpack_from(content)
    at, inputs = _HEAD.size, _NONE
    has_inputs, name_size = name_size & _HAS_INPUTS, name_size & ~_HAS_INPUTS
    name = content[at : at + name_size].decode(errors="surrogatepass")
    at += name_size
    entities = tuple(content[at : at + entities_size].decode().split(_SPLIT))
    at += entities_size
    if has_inputs:
        (count,) = _COUNT.unpack_from(content, at)
        inputs = np.frombuffer(content, "<f4", count, at + _COUNT.size).astype(np.float32)
        at += _COUNT.size + inputs.nbytes
    return KeptAnswer(name, time, amount, entities, content[at:], inputs)


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
