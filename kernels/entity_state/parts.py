"""A block cut into the parts that different operators own, and put together again.

A stream keeps the tiles of each role in one operator and the mailboxes in another (state first,
then mail), so each publishes its own bytes. Parts follow each other in the block: for role ``r``,
part ``2 r`` holds everything up to the mailbox and part ``2 r + 1`` the mailbox. Joined parts make
a block that every function of this package reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.layout import WORD, BlockError, layout_of, new_block
from kernels.entity_state.spec import StateSpec


class Part(NamedTuple):
    """One part of a block.

    Attributes:
        number: Place of the part: ``2 * role``, plus 1 for the mailbox.
        role: Role whose section it belongs to.
        mail: Whether it is the mailbox.
        offset: First byte in the block.
        size: Bytes.
    """

    number: int
    role: int
    mail: bool
    offset: int
    size: int


@lru_cache(maxsize=64)
def parts_of(spec: StateSpec) -> tuple[Part, ...]:
    """Return the parts of a block, in the order of their bytes."""
    plan = layout_of(spec).plan
    parts = []
    for role in range(spec.roles):
        base = plan.header + role * plan.section
        mailbox = base + plan.mail - 1  # the count of messages belongs to the mailbox
        end = base + plan.section
        for first, last in ((base, mailbox), (mailbox, end)):
            mail = first == mailbox
            parts.append(Part(2 * role + mail, role, mail, WORD * first, WORD * (last - first)))
    return tuple(parts)


def split_block(block: NDArray[np.uint8] | bytes, spec: StateSpec) -> dict[int, bytes]:
    """Return the bytes of every part by its number.

    Raises:
        BlockError: If the size of the block does not fit the spec.
    """
    raw, size = bytes(block), layout_of(spec).size
    if len(raw) != size:
        raise BlockError(f"state block has {len(raw)} bytes, this spec needs {size}")
    return {p.number: raw[p.offset : p.offset + p.size] for p in parts_of(spec)}


def join_parts(parts: Mapping[int, bytes | memoryview], spec: StateSpec) -> NDArray[np.uint8]:
    """Return a block uint8 [size] from parts by number; missing ones have seen nothing.

    Raises:
        BlockError: On an unknown number, or bytes of another size.
    """
    block = new_block(spec)
    known = parts_of(spec)
    for number, content in parts.items():
        if not 0 <= number < len(known) or len(content) != known[number].size:
            raise BlockError(
                f"part {number} of {len(content)} bytes does not belong to this spec, whose parts "
                f"have {[p.size for p in known]} bytes; rebuild the state with the current spec"
            )
        part = known[number]
        block[part.offset : part.offset + part.size] = np.frombuffer(content, np.uint8)
    return block
