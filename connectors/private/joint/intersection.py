"""Two parties find the customers that they share, before they score them together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from connectors.private.joint.agreement import Hello, agree
from connectors.private.joint.common_rows import CommonRows
from connectors.private.joint.door import Door, leaving, open_channel
from connectors.private.joint.drive import drive
from connectors.private.joint.errors import AgreementError, WireError
from connectors.private.joint.frames import Kind
from tasks.privacy.shares.intersect import (
    POINT_BYTES,
    Blinder,
    Intersection,
    PointError,
    as_bytes,
)

CHUNK_KEYS = 1_024
MOST_KEYS = 50_000_000


@dataclass(frozen=True)
class IntersectionResult:
    """What a session gave.

    Attributes:
        found: Places of common keys and their alignment.
        common: The same as it is kept for scoring.
        sent: Bytes sent, frames included, TLS not.
        online_s: Wall seconds from the agreement to the last tag.
        cpu_s: CPU seconds of this process in that time.
    """

    found: Intersection
    common: CommonRows
    sent: int
    online_s: float
    cpu_s: float


def run_intersection(door: Door, keys: Sequence[str] | Sequence[bytes]) -> IntersectionResult:
    """Find common keys with the other party, which runs the same at the same time.

    Args:
        door: Where it meets the other.
        keys: This party's, each once: what names a customer on both sides, written alike.

    Raises:
        KeyListError: When a key is listed twice.
        JointError: When the session cannot begin or go on; the other party is told why.
    """
    listed = as_bytes(keys)
    channel = open_channel(door, CHUNK_KEYS * POINT_BYTES)
    with leaving(channel):
        other = agree(channel, Hello(door.party, "intersect", len(listed)), same=())
        for count in (len(listed), other.rows):
            if not 1 <= count <= MOST_KEYS:
                raise AgreementError(f"lists have 1 to {MOST_KEYS} keys, not {count}")
        start = time.perf_counter(), time.process_time()
        blinder = Blinder(listed)
        longest = max(len(listed), other.rows)
        chunks = range(0, longest, CHUNK_KEYS)
        try:
            tags = list(drive(channel, (blinder.step(at, CHUNK_KEYS, other.rows) for at in chunks)))
        except PointError as error:
            raise WireError(str(error)) from error
        own, others = (np.concatenate([pair[side] for pair in tags]) for side in (0, 1))
        found = blinder.matched(own, others)
        online, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
        channel.send(Kind.DONE)
        channel.receive(Kind.DONE, 0)
    return IntersectionResult(found, CommonRows.of(found, listed), channel.sent, online, cpu)
