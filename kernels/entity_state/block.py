"""One state block at a time: what the online store, the API and a stream do to its bytes.

A block is uint8 [size], writable for the functions that change it. Reading works on any buffer,
so the bytes of a store can be read as they come.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state import cpu
from kernels.entity_state.fields import feature_names
from kernels.entity_state.layout import BlockError, Layout, layout_of, view
from kernels.entity_state.spec import StateSpec

Block = NDArray[np.uint8]


class Mail(NamedTuple):
    """The mailbox of an entity, most recent message first; missing ones have ``present`` False.

    Attributes:
        present: bool [roles, slots].
        time: int64 [roles, slots], milliseconds; 0 where missing.
        amount: int64 [roles, slots], minor units; 0 where missing.
        counterpart: int64 [roles, slots], key of the entity on the other side; -1 where missing.
        role: int64 [roles, slots], entity column of the counterpart; -1 where missing.
        vector: float32 [roles, slots, mail_width]; zeros where missing.
    """

    present: NDArray[np.bool_]
    time: NDArray[np.int64]
    amount: NDArray[np.int64]
    counterpart: NDArray[np.int64]
    role: NDArray[np.int64]
    vector: NDArray[np.float32]


def read_state(
    block: Block | bytes, role: int, time: int, amount: int, *, spec: StateSpec
) -> NDArray[np.float64]:
    """Return the features that an event would see, itself counted in; the block stays as it is.

    Args:
        block: State block of the entity.
        role: Role in which the entity takes part in the event.
        time: Epoch milliseconds of the event.
        amount: Minor units.
        spec: The spec the block was written with.

    Returns:
        float64 [features], named by `fields.feature_names`.

    Raises:
        BlockError: If the size of the block does not fit the spec.
    """
    layout = layout_of(spec)
    words = _words(block, layout)
    out = np.zeros(len(feature_names(spec)))
    base = _base(layout, role)
    cpu.read_section(words, words.view(np.float64), base, layout.plan, int(time), int(amount), out)
    return out


def apply_event(
    block: Block, role: int, event_id: int, time: int, amount: int, *, spec: StateSpec
) -> bool:
    """Enter an event into the block, late ones too; returns False for a recent id (duplicate)."""
    layout = layout_of(spec)
    words = _own_words(block, layout)
    return cpu.apply_to_section(
        words,
        words.view(np.float64),
        _base(layout, role),
        layout.plan,
        int(event_id),
        int(time),
        int(amount),
    )


def seen(block: Block | bytes, role: int, event_id: int, *, spec: StateSpec) -> bool:
    """Return whether ``event_id`` is among the ids the role remembers."""
    layout = layout_of(spec)
    words = _words(block, layout)
    return cpu.is_recent(words, _base(layout, role), layout.plan, int(event_id))


def release_label(block: Block, role: int, event_time: int, label: int, *, spec: StateSpec) -> None:
    """Make the label (0 or 1) of the event at ``event_time`` known.

    When to call it is the caller's duty: not before ``max(event time + delay, time known)``.
    """
    if label not in (0, 1):
        raise ValueError(f"label must be 0 or 1, got {label}; unknown labels are never released")
    layout = layout_of(spec)
    words = _own_words(block, layout)
    cpu.release_to_section(words, _base(layout, role), layout.plan, int(event_time), int(label))


def deposit(
    block: Block,
    role: int,
    time: int,
    amount: int,
    counterpart: int,
    counterpart_role: int,
    vector: NDArray[np.float32],
    *,
    spec: StateSpec,
) -> None:
    """Put a message into the mailbox section of ``role``; the oldest one makes room.

    Args:
        block: State block of the entity.
        role: Role in which the entity took part in the event.
        time: Epoch milliseconds of the event.
        amount: Minor units.
        counterpart: Key of the entity on the other side (-1 if there is none).
        counterpart_role: Entity column of the counterpart (-1 if there is none).
        vector: float32 [mail_width].
        spec: The spec the block was written with.
    """
    layout = layout_of(spec)
    words = _own_words(block, layout)
    padded = padded_vectors(np.asarray(vector)[None], spec)[0]
    cpu.deposit_to_section(
        words,
        _base(layout, role),
        layout.plan,
        int(time),
        int(amount),
        int(counterpart),
        int(counterpart_role),
        padded,
    )


def read_mail(block: Block | bytes, *, spec: StateSpec) -> Mail:
    """Return the messages of all roles, most recent first."""
    layout = layout_of(spec)
    record = view(_words(block, layout).view(np.uint8), spec)
    section = record["roles"]
    slots = spec.mail_slots
    count = section["mails"][:, None]
    age = np.arange(slots)[None, :]
    present = age < np.minimum(count, slots)
    at = (count - 1 - age) % slots
    rings = section["mail"]

    def newest_first(name: str) -> NDArray[np.int64]:
        return np.take_along_axis(rings[name], at, axis=1)

    vector = np.take_along_axis(rings["vector"], at[..., None], axis=1)[..., : spec.mail_width]
    return Mail(
        present,
        np.where(present, newest_first("time"), 0),
        np.where(present, newest_first("amount"), 0),
        np.where(present, newest_first("counterpart"), -1),
        np.where(present, newest_first("role"), -1),
        np.where(present[..., None], vector, np.float32(0)),
    )


def padded_vectors(vectors: NDArray[np.float32], spec: StateSpec) -> NDArray[np.int64]:
    """Return float32 [n, mail_width] as int64 [n, words], an odd width padded with a zero."""
    if vectors.ndim != 2 or vectors.shape[1] != spec.mail_width:
        raise ValueError(f"message vectors must be [n, {spec.mail_width}], got {vectors.shape}")
    width = layout_of(spec).plan.mail_words * 2
    padded = np.zeros((len(vectors), width), np.float32)
    padded[:, : spec.mail_width] = vectors
    return padded.view(np.int64)


def _base(layout: Layout, role: int) -> int:
    if not 0 <= role < layout.spec.roles:
        raise ValueError(f"role {role} does not exist; this kind has {layout.spec.roles}")
    return layout.plan.header + role * layout.plan.section


def _words(block: Block | bytes, layout: Layout) -> NDArray[np.int64]:
    """Return the block as int64 words, copied if it is read-only or not 8-byte aligned.

    Copying 4 KiB is cheaper than compiling every function for read-only arrays as well.
    """
    raw = np.frombuffer(block, np.uint8)
    if len(raw) != layout.size:
        raise BlockError(
            f"state block has {len(raw)} bytes, this spec needs {layout.size}; "
            "rebuild the state with the current spec"
        )
    words = raw.view(np.int64)
    return words if words.flags.aligned and words.flags.writeable else words.copy()


def _own_words(block: Block, layout: Layout) -> NDArray[np.int64]:
    """Return writable words that share the block's memory."""
    words = _words(block, layout)
    if words.flags.owndata:
        raise BlockError("state block is read-only or not 8-byte aligned; pass a copy of it")
    return words
