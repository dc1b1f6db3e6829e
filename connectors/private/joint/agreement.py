"""The first message of a session: what each side was set up for. Anything else ends it there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from connectors.private.joint.channel import Channel
from connectors.private.joint.errors import (
    AgreementError,
    AlignmentError,
    WireError,
    printable,
)
from connectors.private.joint.frames import Kind

PROTOCOL = 2


@dataclass(frozen=True)
class Hello:
    """What one side is set up for.

    Attributes:
        party: 0 or 1.
        task: ``score`` or ``intersect``.
        plan: Digest of the plan; empty where there is none.
        deal: Id of the deal; empty where there is none.
        alignment: Of the intersection whose order the rows have; empty: there was none.
        rows: How many rows or keys it has.
        next_batch: First batch of the deal that it has not used.
        asked_batch: Batch to begin with; -1: whichever both have not used.
        protocol: Version.
    """

    party: int
    task: str
    rows: int
    plan: str = ""
    deal: str = ""
    alignment: str = ""
    next_batch: int = 0
    asked_batch: int = -1
    protocol: int = PROTOCOL


_MENDS = {
    "protocol": "update the older side",
    "task": "start both sides with the same command",
    "plan": "both parties take the same plan file, made with the model",
    "deal": "both parties take their file of the same deal",
    "alignment": "both parties score with the file of the same intersection (--common)",
    "rows": "both parties give the same rows in the same order",
    "asked_batch": "both parties ask for the same batch, or for none",
}


def agree(channel: Channel, own: Hello, *, same: tuple[str, ...]) -> Hello:
    """Exchange hellos.

    Args:
        channel: To the other party.
        own: This side's.
        same: Fields in which both must agree, beside protocol and task.

    Returns:
        The other's.

    Raises:
        AlignmentError: When their rows are not of the same intersection.
        AgreementError: When they differ in another of these.
        WireError: When what came is no hello.
    """
    channel.send(Kind.HELLO, json.dumps(asdict(own)).encode())
    other = _read(channel.receive(Kind.HELLO).tobytes())
    if other.party == own.party:
        raise AgreementError(f"both sides are party {own.party}; start one as party 0, one as 1")
    for name in ("protocol", "task", *same):
        mine, theirs = getattr(own, name), getattr(other, name)
        if mine != theirs:
            kind = AlignmentError if name == "alignment" else AgreementError
            raise kind(
                f"{name} differs: {mine!r} here, {printable(repr(theirs))} there; {_MENDS[name]}"
            )
    return other


def _read(content: bytes) -> Hello:
    try:
        data: Any = json.loads(content)
        made = Hello(**data)
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError("what came is no hello of this protocol") from error
    for name, kind in Hello.__annotations__.items():
        value = getattr(made, name)
        if type(value).__name__ != kind or (kind == "str" and len(value) > 100):
            raise WireError(f"{name} of the hello that came is no {kind}")
    return made
