"""Protocols as generators: computation between messages, without a socket in sight.

A generator yields what it sends and how much it expects, is sent what came, and returns its result.
Both parties' generators yield at the same steps, so whoever drives them, in one process or in two,
in turn or many at once, knows which message belongs where.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.ring64.wire import packed, unpacked

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class Exchange:
    """One step.

    Attributes:
        outgoing: What is sent; empty: nothing.
        incoming: Bytes that are expected; 0: no message.
    """

    outgoing: Bytes
    incoming: int


Steps = Generator[Exchange, Bytes, T]

NOTHING: Bytes = np.zeros(0, np.uint8)


def swapped(words: Words, width: int) -> Steps[Words]:
    """Send words and return the other party's, of the same shape."""
    outgoing = packed(words, width)
    incoming = yield Exchange(outgoing, outgoing.size)
    return unpacked(incoming, width, words.shape)


def opened_sum(share: Words, width: int) -> Steps[Words]:
    """Open a number of which each party has an additive share."""
    other = yield from swapped(share, width)
    return share + other


def opened_xor(share: Words, width: int) -> Steps[Words]:
    """Open a number of which each party has a share by exclusive or."""
    other = yield from swapped(share, width)
    return share ^ other


def together(first: Steps[T], second: Steps[T]) -> tuple[T, T]:
    """Run both parties' steps in this process and return both results.

    Raises:
        ValueError: When one side expects something else than the other sends.
    """
    pair, results = (first, second), list[T]()
    sent = [next(one) for one in pair]
    while True:
        for own, other in (sent, sent[::-1]):
            if own.outgoing.size != other.incoming:
                raise ValueError(f"{other.incoming} bytes are due, {own.outgoing.size} come")
        steps = []
        for one, content in zip(pair, (sent[1].outgoing, sent[0].outgoing), strict=True):
            try:
                steps.append(one.send(content))
            except StopIteration as done:
                results.append(done.value)
        if len(results) == 2:
            return results[0], results[1]
        if results:
            raise ValueError("one side has ended, the other goes on")
        sent = steps
