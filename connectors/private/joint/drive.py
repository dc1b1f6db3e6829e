"""Drives protocols over a channel, several batches at once, so that no side waits idly.

Both sides start and resume their batches in the same order, which depends on nothing but their
number. So messages come in the order in which they are awaited, without a label.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

from connectors.private.joint.channel import Channel
from connectors.private.joint.frames import Kind
from tasks.privacy.shares.steps import NOTHING, Bytes, Steps

T = TypeVar("T")

WINDOW = 8
"""Batches under way."""


def drive(channel: Channel, batches: Iterable[Steps[T]], window: int = WINDOW) -> Iterator[T]:
    """Run batches, yield their results in order.

    Args:
        channel: To the other party.
        batches: Both sides' of the same number and kind.
        window: Batches under way; the same on both sides.

    Raises:
        JointError: When the channel fails or something else comes than was due.
    """
    todo = iter(batches)
    under_way: deque[tuple[int, Steps[T], int]] = deque()
    finished: dict[int, T] = {}
    started = given = 0
    while True:
        while len(under_way) < window and (batch := next(todo, None)) is not None:
            step = next(batch)
            _send(channel, step.outgoing)
            under_way.append((started, batch, step.incoming))
            started += 1
        if not under_way:
            return
        number, batch, size = under_way.popleft()
        content = channel.receive(Kind.STEP, size) if size else NOTHING
        try:
            step = batch.send(content)
        except StopIteration as done:
            finished[number] = done.value
        else:
            _send(channel, step.outgoing)
            under_way.append((number, batch, step.incoming))
        while given in finished:
            yield finished.pop(given)
            given += 1


def _send(channel: Channel, outgoing: Bytes) -> None:
    if outgoing.size:
        channel.send(Kind.STEP, outgoing)
