"""The past-only sampler and the gather of mail tokens against plain references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.entity_state.mail import mail_index
from kernels.ops.mail_tokens import (
    Messages,
    gather_tokens,
    gather_tokens_reference,
    relate,
    relate_many,
)
from kernels.ops.temporal_graph import TemporalGraph

KEYS = st.lists(st.integers(0, 4), min_size=0, max_size=40)


def past(keys, entity, before):
    return [i for i, k in enumerate(keys) if k == entity and i < before][::-1]


@settings(max_examples=60, deadline=None)
@given(keys=KEYS, fan_out=st.integers(1, 6), data=st.data())
def test_most_recent_rows_lie_in_the_past_newest_first(keys, fan_out, data):
    graph = TemporalGraph.build(np.array(keys, np.int32), 5)
    entity = data.draw(st.integers(0, 4))
    before = data.draw(st.integers(0, len(keys)))
    found = graph.most_recent(np.array([entity]), np.array([before]), fan_out)[0]
    expected = past(keys, entity, before)[:fan_out]
    assert found.tolist() == expected + [-1] * (fan_out - len(expected))


def test_the_sampler_agrees_with_the_mailbox_of_the_state():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 6, size=(200, 2)).astype(np.int32)
    index = mail_index(keys, 6, 4)
    for section in range(2):
        graph = TemporalGraph.build(np.ascontiguousarray(keys[:, section]), 6)
        for reader in range(2):
            found = graph.most_recent(keys[:, reader].astype(np.int64), np.arange(200), 4)
            assert np.array_equal(found, index[:, reader, section])


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="entity codes"):
        TemporalGraph.build(np.array([5], np.int32), 5)
    graph = TemporalGraph.build(np.array([0], np.int32), 1)
    with pytest.raises(ValueError, match="fan_out"):
        graph.most_recent(np.array([0]), np.array([1]), 0)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_gathered_tokens_equal_the_reference(columns):
    rng = np.random.default_rng(columns)
    n, width = 300, 5
    entity = rng.integers(0, 12, size=(n, columns))
    named = np.roll(entity, -1, axis=1) if columns > 1 else np.full_like(entity, -1)
    messages = Messages(
        np.sort(rng.integers(0, 10**10, n)),
        rng.integers(0, 10_000, n),
        entity,
        named,
        rng.normal(size=(n, width)).astype(np.float32),
    )
    pairs = [(r, s) for r in range(columns) for s in range(columns)]
    index = mail_index(entity.astype(np.int32), 12, 4)
    index = np.stack([index[:, r, s] for r, s in pairs], axis=1)
    rows = np.arange(0, n, 3)
    reader, section = (np.array([p[i] for p in pairs]) for i in (0, 1))
    picked = np.ascontiguousarray(index[rows])
    tokens, mask = gather_tokens(rows, picked, reader, section, messages)
    slow, slow_mask = gather_tokens_reference(rows, picked, reader, section, messages)
    assert np.array_equal(mask, slow_mask)
    np.testing.assert_allclose(tokens, slow, rtol=1e-6, atol=1e-7)
    assert tokens.shape == (len(rows), len(pairs) * 4, 3 + width)
    assert (tokens[mask == 0] == 0).all()
    assert (tokens[..., 0] >= 0).all()
    assert np.abs(tokens[..., 1]).max() <= 6
    assert (tokens[..., 2].max() > 0) == (columns > 1)


def history(seed, n, columns, entities, width, slots):
    """Return messages, the index of their mailboxes, readers and sections."""
    rng = np.random.default_rng(seed)
    entity = rng.integers(0, entities, size=(n, columns))
    named = np.roll(entity, -1, axis=1) if columns > 1 else np.full_like(entity, -1)
    messages = Messages(
        np.sort(rng.integers(0, 10**10, n)),
        rng.integers(-5, 10_000, n),
        entity,
        named,
        rng.normal(size=(n, width)).astype(np.float32),
    )
    pairs = [(r, s) for r in range(columns) for s in range(columns)]
    index = mail_index(entity.astype(np.int32), entities, slots)
    index = np.ascontiguousarray(np.stack([index[:, r, s] for r, s in pairs], axis=1))
    reader, section = (np.array([p[i] for p in pairs]) for i in (0, 1))
    return messages, index, reader, section


def mailboxes(messages, index, section):
    """Return what state blocks hold: times, amounts, counterparts, vectors, present."""
    present = index >= 0
    named = messages.counterpart[index, section[:, None]]
    junk = np.where(present, 0, -(2**63))  # empty slots may hold anything
    return (
        np.where(present, messages.time[index], junk),
        np.where(present, messages.amount[index], junk),
        np.where(present, named, junk),
        np.where(present[..., None], messages.vector[index], np.nan).astype(np.float32),
        present,
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), n=st.integers(0, 40), columns=st.integers(1, 3),
    entities=st.integers(1, 6), width=st.integers(0, 4), slots=st.integers(1, 4),
)  # fmt: skip
def test_tokens_from_mailboxes_are_those_of_the_history(seed, n, columns, entities, width, slots):
    messages, index, reader, section = history(seed, n, columns, entities, width, slots)
    rows = np.arange(n)
    wanted, wanted_mask = gather_tokens(rows, index, reader, section, messages)
    mails = mailboxes(messages, index, section)
    own = messages.time, messages.amount, messages.entity
    tokens, mask = relate_many(*own, reader, *mails)
    assert tokens.dtype == mask.dtype == np.float32
    assert np.array_equal(tokens, wanted)
    assert np.array_equal(mask, wanted_mask)


def test_tokens_of_a_batch_are_those_of_single_messages():
    messages, index, reader, section = history(5, 50, 2, 4, 3, 8)
    mails = mailboxes(messages, index, section)
    own = messages.time, messages.amount, messages.entity
    tokens, mask = relate_many(*own, reader, *mails)
    # Fewer slots than the blocks hold, as views of the same arrays.
    fewer, _ = relate_many(*own, reader, *(m[:, :, :2] for m in mails))
    assert np.array_equal(fewer.reshape(50, 4, 2, 6), tokens.reshape(50, 4, 8, 6)[:, :, :2])
    time, amount, counterpart, vector, present = mails
    assert np.array_equal(mask.reshape(present.shape) > 0, present)
    for i, g, k in np.argwhere(present)[::7]:
        others = np.delete(messages.entity[i], reader[g])
        single = relate(
            int(messages.time[i]), int(messages.amount[i]), int(time[i, g, k]),
            int(amount[i, g, k]), vector[i, g, k], match=counterpart[i, g, k] in others,
        )  # fmt: skip
        np.testing.assert_allclose(tokens[i, g * 8 + k], single, rtol=1e-6)


def test_mailboxes_that_do_not_fit_are_refused():
    messages, index, reader, section = history(6, 10, 2, 4, 3, 2)
    mails = mailboxes(messages, index, section)
    own = messages.time, messages.amount, messages.entity
    with pytest.raises(ValueError, match="all must fit"):
        relate_many(messages.time[1:], *own[1:], reader, *mails)
    with pytest.raises(ValueError, match="all must fit"):
        relate_many(*own, reader, mails[0][:, :, :1], *mails[1:])
    with pytest.raises(ValueError, match=r"readers must be columns 0\.\.1, got \[0, 0, 1, 2\]"):
        relate_many(*own, np.array([0, 0, 1, 2]), *mails)


def test_the_python_source_of_the_kernels_agrees_with_their_machine_code(monkeypatch):
    from kernels.ops import mail_tokens, temporal_graph

    rng = np.random.default_rng(3)
    keys = rng.integers(0, 5, size=(80, 2)).astype(np.int32)
    graph = TemporalGraph.build(np.ascontiguousarray(keys[:, 0]), 5)
    entities, before = rng.integers(0, 5, 30), rng.integers(0, 80, 30)
    arguments = (graph.starts, graph.rows, entities, before)
    pairs = list(zip(entities, before, strict=True))
    ends = [temporal_graph._end.py_func(*arguments[:2], *p) for p in pairs]
    assert ends == [temporal_graph._end(*arguments[:2], *p) for p in pairs]
    recent = np.full((30, 3), -1, np.int32)
    temporal_graph._most_recent.py_func(*arguments, recent)
    assert np.array_equal(recent, graph.most_recent(entities, before, 3))
    time, amount = np.sort(rng.integers(0, 10**9, 80)), rng.integers(1, 999, 80)
    entity = keys.astype(np.int64)
    vector = rng.normal(size=(80, 2)).astype(np.float32)
    messages = Messages(time, amount, entity, np.roll(entity, -1, axis=1), vector)
    index = np.ascontiguousarray(mail_index(keys, 5, 4).reshape(80, 4, 4))
    reader, section, rows = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.arange(80)
    tokens, mask = gather_tokens(rows, index, reader, section, messages)
    slow, slow_mask = np.zeros_like(tokens), np.zeros_like(mask)
    mail_tokens._gather.py_func(rows, index, reader, section, messages, slow, slow_mask)
    np.testing.assert_allclose(tokens, slow, rtol=1e-6)
    assert np.array_equal(mask, slow_mask)
    monkeypatch.setattr(mail_tokens, "_ratio", mail_tokens._ratio.py_func)
    slow, slow_mask = np.zeros_like(tokens), np.zeros_like(mask)
    mails = mailboxes(messages, index, section)
    arguments = time, amount, entity, reader, mail_tokens._Mails(*mails), slow, slow_mask
    mail_tokens._relate_many.py_func(*arguments)
    np.testing.assert_allclose(tokens, slow, rtol=1e-6)
    assert np.array_equal(mask, slow_mask)
