"""Parts of a block: they cover it, and joined they are it."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.entity_state import (
    BlockError,
    StateSpec,
    apply_event,
    deposit,
    join_parts,
    layout_of,
    new_block,
    parts_of,
    read_mail,
    read_state,
    release_label,
    split_block,
)

SPEC = StateSpec(roles=2, mail_width=3)


def used_block():
    block = new_block(SPEC)
    for number in range(30):
        time = 1_600_000_000_000 + number * 7_000_000
        apply_event(block, number % 2, number, time, 100 + number, spec=SPEC)
        vector = np.array([number, 1, 2], np.float32)
        deposit(block, number % 2, time, 100 + number, number, 1, vector, spec=SPEC)
    release_label(block, 0, 1_600_000_000_000, 1, spec=SPEC)
    return block


def test_parts_cover_everything_but_the_header():
    at = 32
    for number, part in enumerate(parts_of(SPEC)):
        assert (part.number, part.role, part.mail) == (number, number // 2, number % 2 == 1)
        assert part.offset == at
        at += part.size
    assert at == layout_of(SPEC).size


def test_joined_parts_are_the_block():
    block = used_block()
    joined = join_parts(split_block(block, SPEC), SPEC)
    assert joined[32:].tobytes() == block[32:].tobytes()
    now = 1_600_200_000_000
    for role in range(2):
        np.testing.assert_array_equal(
            read_state(joined, role, now, 5, spec=SPEC), read_state(block, role, now, 5, spec=SPEC)
        )
    for mine, theirs in zip(read_mail(joined, spec=SPEC), read_mail(block, spec=SPEC), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_missing_parts_have_seen_nothing():
    parts = split_block(used_block(), SPEC)
    joined = join_parts({2: parts[2]}, SPEC)
    assert joined[:32].tobytes() == new_block(SPEC)[:32].tobytes()
    assert not read_mail(joined, spec=SPEC).present.any()
    assert read_state(joined, 0, 1_600_200_000_000, 5, spec=SPEC)[0] == 1
    assert read_state(joined, 1, 1_600_200_000_000, 5, spec=SPEC)[0] > 1


def test_foreign_bytes_are_refused():
    with pytest.raises(BlockError, match="this spec needs"):
        split_block(b"short", SPEC)
    with pytest.raises(BlockError, match="part 0 of 3 bytes"):
        join_parts({0: b"abc"}, SPEC)
    with pytest.raises(BlockError, match="part 9"):
        join_parts({9: b""}, SPEC)
