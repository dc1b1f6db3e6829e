"""Mailboxes: the batch index, its reference and the block's own ring agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kernels.entity_state import (
    StateSpec,
    days,
    deposit,
    deposit_rows,
    empty_state,
    mail_index,
    mail_index_reference,
    new_block,
    read_mail,
)

EXAMPLES = settings(max_examples=60, deadline=None)


@st.composite
def key_tables(draw):
    n, roles = draw(st.integers(0, 40)), draw(st.integers(1, 3))
    return draw(hnp.arrays(np.int32, (n, roles), elements=st.integers(0, 3)))


def spec_of(roles: int, slots: int, width: int) -> StateSpec:
    return StateSpec(windows=(days(1),), roles=roles, mail_slots=slots, mail_width=width)


@EXAMPLES
@given(key_tables(), st.integers(1, 5))
def test_index_equals_reference(keys, slots):
    got = mail_index(keys, 4, slots)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, mail_index_reference(keys, 4, slots))


def test_index_by_hand():
    # Account 0 sends to 1, 1 sends to 0, 0 sends to itself, 0 sends to 1.
    keys = np.array([[0, 1], [1, 0], [0, 0], [0, 1]], np.int32)
    got = mail_index(keys, 2, 2)
    sent, received = 0, 1
    assert (got[0] == -1).all()
    assert got[1, 1, sent].tolist() == [0, -1]  # the receiver of row 1 has sent row 0
    assert got[1, 0, received].tolist() == [0, -1]
    assert got[2, 0].tolist() == got[2, 1].tolist() == [[0, -1], [1, -1]]  # row 2 is not in it
    assert got[3, 0].tolist() == [[2, 0], [2, 1]]


@EXAMPLES
@given(key_tables(), st.integers(1, 4), st.integers(0, 3))
def test_blocks_hold_what_the_index_says(keys, slots, width):
    n, roles = keys.shape
    spec = spec_of(roles, slots, width)
    rng = np.random.default_rng(1)
    vectors = rng.random((n, roles, width)).astype(np.float32)
    time, amount = np.arange(n) * 10 + 1, np.arange(n) * 7
    index = mail_index(keys, 4, slots)
    blocks = [new_block(spec) for _ in range(4)]
    for i in range(n):
        for reader in range(roles):
            mail = read_mail(blocks[keys[i, reader]].tobytes(), spec=spec)
            rows = index[i, reader]
            there = rows >= 0
            np.testing.assert_array_equal(mail.present, there)
            np.testing.assert_array_equal(mail.time, np.where(there, rows * 10 + 1, 0))
            np.testing.assert_array_equal(mail.amount, np.where(there, rows * 7, 0))
            sections = np.broadcast_to(np.arange(roles)[:, None], rows.shape)
            np.testing.assert_array_equal(mail.counterpart, np.where(there, rows + sections, -1))
            np.testing.assert_array_equal(mail.role, np.where(there, roles - sections, -1))
            np.testing.assert_array_equal(mail.vector[there], vectors[rows[there], sections[there]])
            assert not mail.vector[~there].any()
        for role in range(roles):
            deposit(
                blocks[keys[i, role]],
                role,
                time[i],
                amount[i],
                i + role,
                roles - role,
                vectors[i, role],
                spec=spec,
            )
    state = empty_state(spec, 4)
    counterpart = np.arange(n)[:, None] + np.arange(roles)
    other = np.broadcast_to(roles - np.arange(roles), (n, roles))
    deposit_rows(state, time, amount, keys, counterpart, other, vectors)
    assert state.blocks.tobytes() == np.stack(blocks).tobytes()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"entity codes must lie in 0\.\.1"):
        mail_index(np.array([[2]], np.int32), 2, 1)
    with pytest.raises(ValueError, match="slots"):
        mail_index(np.array([[0]], np.int32), 2, 0)
    with pytest.raises(ValueError, match="keys must be"):
        mail_index(np.array([0], np.int32), 2, 1)
    spec = spec_of(1, 2, 3)
    with pytest.raises(ValueError, match="message vectors"):
        deposit(new_block(spec), 0, 1, 1, 1, 0, np.zeros(2, np.float32), spec=spec)
    state = empty_state(spec, 1)
    zeros = np.zeros((1, 1), np.int64)
    with pytest.raises(ValueError, match="vectors"):
        deposit_rows(
            state,
            zeros[0],
            zeros[0],
            zeros.astype(np.int32),
            zeros,
            zeros,
            np.zeros((1, 1, 4), np.float32),
        )
