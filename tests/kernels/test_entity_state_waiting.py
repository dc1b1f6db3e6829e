"""Labels beside a block: released like the batch releases them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.entity_state import (
    BlockError,
    StateSpec,
    Window,
    apply_event,
    entity_features,
    new_block,
    read_state,
    release_label,
)
from kernels.entity_state.waiting import insert_label, release_due

SPEC = StateSpec(windows=(Window("a", 30, 10), Window("b", 60, 20)), label_tile=10, delay=15)
NOTHING = np.empty((0, 4), np.int64)


@st.composite
def labels(draw):
    row = st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(-2, 2), st.integers(0, 1))
    return draw(st.lists(row, max_size=12))


@settings(deadline=None)
@given(labels(), st.integers(0, 70), st.integers(-2, 2))
def test_released_one_by_one_or_at_once(rows, time, event_id):
    table = NOTHING
    for row in rows:
        table = insert_label(table, *row)
    assert [tuple(r[:3]) for r in table.tolist()] == sorted(r[:3] for r in rows)
    wanted, count = new_block(SPEC), 0
    for label_time, event_time, of, label in table.tolist():
        if label_time > time or (event_time, of) >= (time, event_id):
            break
        release_label(wanted, 0, event_time, label, spec=SPEC)
        count += 1
    block = new_block(SPEC)
    table.flags.writeable = False
    assert release_due(block, 0, table, time, event_id, spec=SPEC) == count
    assert block.tobytes() == wanted.tobytes()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(-1, 1), st.integers(0, 30)), max_size=25))
def test_an_entity_read_lazily_has_the_features_of_the_batch(rows):
    time = np.cumsum([step for step, _, _ in rows], dtype=np.int64)
    ids = np.arange(len(rows))
    amount = np.arange(len(rows)) + 5
    label = np.array([label for _, label, _ in rows], np.int8)
    known = time + SPEC.delay + np.array([late for _, _, late in rows], np.int64)
    keys = np.zeros((len(rows), 1), np.int32)
    wanted, _ = entity_features(time, ids, amount, label, known, keys, spec=SPEC, n_entities=1)
    block, waiting = new_block(SPEC), NOTHING
    for i in range(len(rows)):
        t = int(time[i])
        waiting = waiting[release_due(block, 0, waiting, t, i, spec=SPEC) :]
        np.testing.assert_array_equal(read_state(block, 0, t, i + 5, spec=SPEC), wanted[i, 0])
        apply_event(block, 0, i, t, i + 5, spec=SPEC)
        if label[i] >= 0:
            waiting = insert_label(waiting, int(known[i]), t, i, int(label[i]))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="0 or 1"):
        insert_label(NOTHING, 1, 1, 1, -1)
    with pytest.raises(ValueError, match="got 7"):
        release_due(new_block(SPEC), 0, np.array([[1, 1, 1, 7]]), 5, 5, spec=SPEC)
    with pytest.raises(ValueError, match="4"):
        release_due(new_block(SPEC), 0, np.array([[1, 1, 1]]), 5, 5, spec=SPEC)
    frozen = new_block(SPEC)
    frozen.flags.writeable = False
    with pytest.raises(BlockError, match="read-only"):
        release_due(frozen, 0, np.array([[1, 1, 1, 1]]), 5, 5, spec=SPEC)
    with pytest.raises(ValueError, match="role 3"):
        release_due(new_block(SPEC), 3, np.array([[1, 1, 1, 1]]), 5, 5, spec=SPEC)
