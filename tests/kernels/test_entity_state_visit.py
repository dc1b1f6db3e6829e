"""Several events in one call equal the functions that take one block at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.entity_state import (
    StateSpec,
    apply_event,
    days,
    deposit,
    layout_of,
    new_block,
    read_mail,
    read_state,
)
from kernels.entity_state.fields import feature_names
from kernels.entity_state.mailbox import holds_message, read_mailbox
from kernels.entity_state.visit import Mail, exchange_mail, visit_rows

SPEC = StateSpec(windows=(days(1), days(7)), roles=2, mail_slots=3, mail_width=8, recent_ids=4)
LAYOUT = layout_of(SPEC)
WORDS = LAYOUT.size // 8
SCRATCH = 8
DAY = 86_400_000

events = st.lists(
    st.tuples(
        st.integers(0, 2),  # payer
        st.integers(0, 2),  # payee; may be the payer
        st.integers(0, 40),  # half days
        st.integers(0, 10_000),
        st.integers(0, 12),  # id; repeats now and then
    ),
    min_size=1,
    max_size=25,
)


def arena(entities):
    memory = np.zeros(SCRATCH + entities * WORDS, np.int64)
    memory[SCRATCH:] = np.tile(LAYOUT.empty.view(np.int64), entities)
    return memory


def place(entity, role):
    return SCRATCH + entity * WORDS + LAYOUT.plan.header + role * LAYOUT.plan.section


def without_version(block):
    raw = block.copy()
    raw[16:24] = 0
    return raw


def arrays(rows):
    payer, payee, when, amount, ids = (np.array(c, np.int64) for c in zip(*rows, strict=True))
    bases = np.array([[place(a, 0), place(b, 1)] for a, b in zip(payer, payee, strict=True)])
    vectors = np.arange(len(rows) * 8, dtype=np.float32).reshape(-1, 8)
    return bases, ids, when * (DAY // 2) + 40 * DAY, amount, vectors


def room(n, groups, slots=SPEC.mail_slots):
    shape = (n, groups, slots)
    return (
        np.zeros(shape, np.bool_),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
        np.zeros((*shape, LAYOUT.plan.mail_words), np.int64),
    )


@settings(max_examples=60, deadline=None)
@given(events)
def test_events_are_seen_and_counted_as_one_by_one(rows):
    bases, ids, time, amount, _ = arrays(rows)
    memory = arena(3)
    out = np.empty((len(rows), 2, len(feature_names(SPEC))))
    visit_rows(memory, memory.view(np.float64), LAYOUT.plan, bases, ids, time, amount, out)
    blocks = [new_block(SPEC) for _ in range(3)]
    for i, (payer, payee, *_) in enumerate(rows):
        for role, entity in enumerate((payer, payee)):
            seen = read_state(blocks[entity], role, time[i], amount[i], spec=SPEC)
            np.testing.assert_array_equal(out[i, role], seen)
        for role, entity in enumerate((payer, payee)):
            apply_event(blocks[entity], role, ids[i], time[i], amount[i], spec=SPEC)
    raw = memory[SCRATCH:].view(np.uint8).reshape(3, -1)
    for entity in range(3):
        np.testing.assert_array_equal(raw[entity], without_version(blocks[entity]))


@settings(max_examples=60, deadline=None)
@given(events, st.integers(1, SPEC.mail_slots))
def test_mail_is_read_and_left_as_one_by_one(rows, slots):
    bases, _, time, amount, vectors = arrays(rows)
    n = len(rows)
    memory = arena(3)
    keys = np.array([[100 + a, 100 + b] for a, b, *_ in rows], np.int64)
    # Payer reads both of its mailboxes, payee its own.
    reads = np.array([[place(a, 0), place(a, 1), place(b, 1)] for a, b, *_ in rows], np.int64)
    mail = Mail(reads, *room(n, 3, slots))
    exchange_mail(memory, LAYOUT.plan, bases, keys, time, amount, vectors.view(np.int64), mail)
    blocks = [new_block(SPEC) for _ in range(3)]
    found = mail.vector.view(np.float32)
    for i, (payer, payee, *_) in enumerate(rows):
        for group, (entity, role) in enumerate(((payer, 0), (payer, 1), (payee, 1))):
            box = read_mail(blocks[entity], spec=SPEC)
            there = box.present[role, :slots]
            np.testing.assert_array_equal(mail.present[i, group], there)
            np.testing.assert_array_equal(mail.time[i, group][there], box.time[role, :slots][there])
            np.testing.assert_array_equal(
                mail.counterpart[i, group][there], box.counterpart[role, :slots][there]
            )
            np.testing.assert_array_equal(found[i, group][there], box.vector[role, :slots][there])
        for role, entity in enumerate((payer, payee)):
            deposit(
                blocks[entity],
                role,
                time[i],
                amount[i],
                keys[i, 1 - role],
                1 - role,
                vectors[i],
                spec=SPEC,
            )
    raw = memory[SCRATCH:].view(np.uint8).reshape(3, -1)
    for entity in range(3):
        np.testing.assert_array_equal(raw[entity], without_version(blocks[entity]))


def test_one_entity_column_has_no_counterpart():
    spec = StateSpec(windows=(days(1),))
    layout = layout_of(spec)
    memory = np.concatenate([np.zeros(SCRATCH, np.int64), layout.empty.view(np.int64)])
    bases = np.array([[SCRATCH + layout.plan.header]], np.int64)
    one = np.array([5], np.int64)
    vectors = np.ones((1, 8), np.float32).view(np.int64)
    shape = (1, 0, 8)
    nothing = Mail(
        np.zeros((1, 0), np.int64),
        np.zeros(shape, np.bool_),
        *(np.zeros(shape, np.int64) for _ in range(3)),
        np.zeros((*shape, 4), np.int64),
    )
    exchange_mail(memory, layout.plan, bases, np.array([[7]]), one, one, vectors, nothing)
    box = read_mail(memory[SCRATCH:].view(np.uint8), spec=spec)
    assert box.present.sum() == 1
    assert (box.counterpart[0, 0], box.role[0, 0]) == (-1, -1)


def test_messages_are_found_again_until_they_are_pushed_out():
    block = new_block(SPEC)
    words, base = block.view(np.int64), LAYOUT.plan.header
    for i in range(5):
        assert not holds_message(words, base, LAYOUT.plan, i, 10 + i, 20 + i)
        deposit(block, 0, i, 10 + i, 20 + i, 1, np.zeros(8, np.float32), spec=SPEC)
        assert holds_message(words, base, LAYOUT.plan, i, 10 + i, 20 + i)
    assert not holds_message(words, base, LAYOUT.plan, 0, 10, 20)
    assert not holds_message(words, base, LAYOUT.plan, 4, 14, 99)
    present, time, *rest = (array[0, 0] for array in room(1, 1))
    read_mailbox(words, base, LAYOUT.plan, present, time, *rest)
    assert time.tolist() == [4, 3, 2]
