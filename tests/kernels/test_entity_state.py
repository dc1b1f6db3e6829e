"""The compiled engine equals the plain definition; nothing leaks from the future."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kernels.entity_state import (
    BlockError,
    StateSpec,
    Window,
    apply_event,
    batch,
    check_block,
    days,
    deposit_rows,
    entity_features,
    feature_names,
    mail_index,
    new_block,
    read_state,
    release_label,
    seen,
)
from kernels.entity_state.layout import version, view
from kernels.entity_state.reference import ReferenceSection

# Small units, so that few events meet every tile edge.
WINDOWS = (
    (Window("a", 30, 10),),
    (Window("a", 30, 10), Window("b", 60, 20), Window("c", 120, 20)),
    (Window("a", 10, 10), Window("b", 35, 5), Window("c", 70, 10), Window("d", 7, 7)),
)
EXAMPLES = settings(max_examples=60, deadline=None)


@st.composite
def specs(draw):
    return StateSpec(
        windows=draw(st.sampled_from(WINDOWS)),
        label_tile=draw(st.sampled_from((7, 10, 20))),
        delay=draw(st.sampled_from((0, 15, 40))),
        roles=draw(st.integers(1, 3)),
        recent_ids=draw(st.sampled_from((1, 4))),
    )


@st.composite
def streams(draw, max_rows=40):
    """A spec and sorted rows: ties, gaps, tile edges, unknown labels, labels known late."""
    spec = draw(specs())
    n = draw(st.integers(0, max_rows))
    step = st.sampled_from((0, 0, 1, 3, 9, 10, 11, 25, 130))
    times = np.cumsum([draw(st.integers(-60, 60)), *draw(st.lists(step, min_size=n, max_size=n))])
    time = times[:n].astype(np.int64)
    event_id = np.arange(n, dtype=np.int64) - 3
    amount = draw(hnp.arrays(np.int64, n, elements=st.integers(-5, 10**7)))
    label = draw(hnp.arrays(np.int8, n, elements=st.integers(-1, 1)))
    late = draw(hnp.arrays(np.int64, n, elements=st.sampled_from((0, 0, 0, 5, 60))))
    keys = draw(hnp.arrays(np.int32, (n, spec.roles), elements=st.integers(0, 2)))
    return spec, (time, event_id, amount, label, time + spec.delay + late, keys)


def run(spec, rows, **options):
    return entity_features(*rows, spec=spec, n_entities=3, **options)


def cut(rows, part):
    return tuple(column[part] for column in rows)


def assert_close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=0)


def card_rows(n=3000, entities=3, seed=5):
    """Rows of default windows: epoch milliseconds over 100 days."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, 100 * 86_400_000, n)) + 1_522_540_800_000
    label = rng.choice(np.array([-1, 0, 1], np.int8), n, p=(0.1, 0.7, 0.2))
    known = time + 7 * 86_400_000 + rng.integers(0, 3, n) * 86_400_000
    keys = rng.integers(0, entities, (n, 1), dtype=np.int32)
    return time, np.arange(n), rng.integers(1, 500_000, n), label, known, keys


@EXAMPLES
@given(streams())
def test_compiled_engine_equals_reference(case):
    spec, rows = case
    got, state = run(spec, rows, keep_state=True)
    wanted, truth = run(spec, rows, keep_state=True, backend="reference")
    assert got.shape == (len(rows[0]), spec.roles, len(feature_names(spec)))
    assert_close(got, wanted)
    assert state.blocks.tobytes() == truth.blocks.tobytes()
    assert state.pending.tobytes() == truth.pending.tobytes()
    assert_close(run(spec, rows)[0], got)


def test_default_windows_equal_reference():
    rows = card_rows(700)
    spec = StateSpec()
    got, state = entity_features(*rows, spec=spec, n_entities=3, keep_state=True)
    wanted, truth = entity_features(
        *rows, spec=spec, n_entities=3, backend="reference", keep_state=True
    )
    assert_close(got, wanted)
    assert state.blocks.tobytes() == truth.blocks.tobytes()
    assert got[:, 0, feature_names(spec).index("known_30d")].max() > 20


def test_window_is_exact_at_the_head_and_tile_aligned_at_the_tail():
    spec = StateSpec(windows=(Window("w", 30, 10),), delay=0, label_tile=10)
    time = np.array([9, 10, 11, 45, 49, 50])
    n, ones = len(time), np.ones(6, np.int64)
    got, _ = entity_features(
        time, np.arange(n), ones, ones * -1, time, np.zeros((n, 1)), spec=spec, n_entities=1
    )
    # At 45 the tail is the tile of 15, which starts at 10: 10 and 11 count, 9 does not.
    assert got[:, 0, 0].tolist() == [1, 2, 3, 3, 4, 3]


def test_labels_wait_for_delay_and_for_the_time_they_are_known():
    spec = StateSpec(windows=(Window("7d", 1000, 100),), delay=100, label_tile=10)
    time = np.array([0, 99, 100, 149, 150])
    label = np.array([1, 1, -1, -1, -1])
    known = np.array([100, 250, 0, 0, 0])
    keys = np.zeros((5, 1))
    got, _ = entity_features(time, np.arange(5), time, label, known, keys, spec=spec, n_entities=1)
    names = feature_names(spec)
    assert got[:, 0, names.index("frauds_7d")].tolist() == [0, 0, 1, 1, 1]
    assert got[:, 0, names.index("since_fraud")].tolist() == [-1, -1, 0.1, 0.149, 0.15]


def test_own_label_is_never_seen_without_delay():
    spec = StateSpec(windows=(days(7),), delay=0)
    time, label = np.array([5, 5, 5]), np.array([1, 1, 0])
    got, _ = entity_features(
        time, np.arange(3), time, label, time, np.zeros((3, 1)), spec=spec, n_entities=1
    )
    names = feature_names(spec)
    assert got[:, 0, names.index("known_7d")].tolist() == [0, 1, 2]
    assert got[:, 0, names.index("last_label")].tolist() == [-1, 1, 1]
    assert got[:, 0, names.index("run_length")].tolist() == [0, 1, 2]


@EXAMPLES
@given(streams(), st.data())
def test_prefix_invariance(case, data):
    spec, rows = case
    n = len(rows[0])
    head = data.draw(st.integers(0, n))
    full = run(spec, rows)[0]
    np.testing.assert_array_equal(run(spec, cut(rows, slice(head)))[0], full[:head])
    changed = [column.copy() for column in rows]
    changed[2][head:] += 17
    changed[3][head:] = 1 - np.abs(changed[3][head:])
    np.testing.assert_array_equal(run(spec, changed)[0][:head], full[:head])


@EXAMPLES
@given(streams(), st.data())
def test_split_and_continue_equals_one_run(case, data):
    spec, rows = case
    n = len(rows[0])
    cuts = sorted(data.draw(st.lists(st.integers(0, n), min_size=1, max_size=3)))
    whole, end = run(spec, rows, keep_state=True)
    parts, state, first = [], None, 0
    for last in [*cuts, n]:
        part, state = run(spec, cut(rows, slice(first, last)), state=state, keep_state=True)
        parts.append(part)
        first = last
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    # A last part without rows has no clock; until then labels due by the last row wait.
    if cuts[-1] < n:
        assert state.blocks.tobytes() == end.blocks.tobytes()
        assert state.pending.tobytes() == end.pending.tobytes()


def test_continuing_leaves_the_given_state_alone_and_takes_new_entities():
    rows = card_rows(400, entities=2)
    spec = StateSpec()
    head, tail = cut(rows, slice(200)), list(cut(rows, slice(200, None)))
    _, state = entity_features(*head, spec=spec, n_entities=2, keep_state=True)
    before = state.copy()
    tail[5] = tail[5] + 1
    got, grown = entity_features(*tail, spec=spec, n_entities=3, state=state)
    assert state.blocks.tobytes() == before.blocks.tobytes()
    assert grown.blocks.shape[0] == 3
    assert got[0, 0, 0] >= 1
    assert (grown.records["roles"]["events"][:, 0].sum()) == 400


@EXAMPLES
@given(streams(), st.data())
def test_label_firewall(case, data):
    """Flipping labels that are not due changes no feature; the flipped label shows when due."""
    spec, rows = case
    if not len(rows[0]):
        return
    i = data.draw(st.integers(0, len(rows[0]) - 1))
    flipped = [column.copy() for column in rows]
    young = (rows[4] > rows[0][i]) & (rows[3] >= 0)
    flipped[3][young] = 1 - flipped[3][young]
    np.testing.assert_array_equal(run(spec, flipped)[0][: i + 1], run(spec, rows)[0][: i + 1])


def test_flipping_a_label_that_is_due_changes_features():
    rows = card_rows(500, entities=1)
    flipped = [column.copy() for column in rows]
    known = np.flatnonzero(rows[3] >= 0)[0]
    flipped[3][known] = 1 - flipped[3][known]
    a = entity_features(*rows, spec=StateSpec(), n_entities=1)[0]
    b = entity_features(*flipped, spec=StateSpec(), n_entities=1)[0]
    assert (a != b).any()


def test_unseen_entity_gets_the_cold_start():
    spec = StateSpec()
    names = feature_names(spec)
    got = dict(zip(names, read_state(new_block(spec), 0, 1_000, 250, spec=spec), strict=True))
    assert got["n_30d"] == 1
    assert got["sum_1d"] == got["min_7d"] == got["max_30d"] == 250
    assert [got[name] for name in names[-5:]] == [-1, -1, -1, -1, 0]


@st.composite
def operations(draw):
    """Events and labels of one entity in any order: late, duplicate and replayed ones."""
    event = st.tuples(
        st.just("apply"), st.integers(0, 12), st.integers(-100, 300), st.integers(-9, 10**6)
    )
    label = st.tuples(st.just("release"), st.just(0), st.integers(-100, 300), st.integers(0, 1))
    return draw(specs()), draw(st.lists(st.one_of(event, event, label), max_size=40))


@EXAMPLES
@given(operations())
def test_block_equals_reference_for_late_and_duplicate_events(case):
    spec, steps = case
    role = spec.roles - 1
    block, truth = new_block(spec), ReferenceSection(spec)
    for kind, event_id, time, value in steps:
        if kind == "apply":
            assert_close(read_state(block, role, time, value, spec=spec), truth.read(time, value))
            assert seen(block.tobytes(), role, event_id, spec=spec) == (
                event_id in [e for _, e, _ in truth.events[-spec.recent_ids :]]
            )
            applied = truth.apply(event_id, time, value)
            assert apply_event(block, role, event_id, time, value, spec=spec) == applied
        else:
            release_label(block, role, time, value, spec=spec)
            truth.release(time, value)
    wanted = new_block(spec)
    truth.write(view(wanted, spec)["roles"][role : role + 1])
    assert block[32:].tobytes() == wanted[32:].tobytes()
    assert version(block) == len(truth.events) + len(truth.labels)


@EXAMPLES
@given(operations(), st.randoms(use_true_random=False))
def test_final_tiles_do_not_depend_on_the_order(case, random):
    spec, steps = case
    unique = list({s[1:3] if s[0] == "apply" else s: s for s in steps}.values())
    ends = []
    for order in (unique, random.sample(unique, len(unique))):
        block = new_block(spec)
        for number, (kind, _, time, value) in enumerate(order):
            if kind == "apply":
                apply_event(block, 0, 100 + number, time, value, spec=spec)
            else:
                release_label(block, 0, time, value, spec=spec)
        ends.append(view(block, spec)["roles"][0])
    for name in ends[0].dtype.names:
        if name.startswith("tiles_") or name in ("labels", "last_time", "last_fraud_time"):
            assert ends[0][name].tobytes() == ends[1][name].tobytes()


def test_batch_equals_block_operations_in_event_order():
    rows = card_rows(600)
    spec = StateSpec()
    got, state = entity_features(*rows, spec=spec, n_entities=3, keep_state=True)
    blocks = [new_block(spec) for _ in range(3)]
    waiting: list[tuple[int, int, int, int]] = []
    for i, (time, event_id, amount, label, known, key) in enumerate(zip(*rows, strict=True)):
        for due in sorted(w for w in waiting if w[0] <= time):
            release_label(blocks[due[2]], 0, due[1], due[3], spec=spec)
            waiting.remove(due)
        block = blocks[key[0]]
        np.testing.assert_array_equal(read_state(block, 0, time, amount, spec=spec), got[i, 0])
        assert apply_event(block, 0, event_id, time, amount, spec=spec)
        if label >= 0:
            waiting.append((int(known), int(time), int(key[0]), int(label)))
    for due in sorted(w for w in waiting if w[0] <= rows[0][-1]):
        release_label(blocks[due[2]], 0, due[1], due[3], spec=spec)
    assert np.stack(blocks).tobytes() == state.blocks.tobytes()


def test_duplicate_rows_and_their_labels_leave_no_trace():
    rows = [np.repeat(column, 2, axis=0) for column in card_rows(200)]
    spec = StateSpec()
    once = entity_features(*(c[::2] for c in rows), spec=spec, n_entities=3, keep_state=True)
    twice = entity_features(*rows, spec=spec, n_entities=3, keep_state=True)
    np.testing.assert_array_equal(twice[0][::2], once[0])
    assert twice[1].blocks.tobytes() == once[1].blocks.tobytes()


def test_ids_far_apart_at_one_time_are_in_order():
    """Ids made from text fill the whole int64 range; their difference would overflow."""
    keys = np.zeros((2, 1), np.int32)
    columns = ([1, 1], [-(2**62) - 2**61, 2**62 + 2**61], [5, 7], [-1, -1], [9**9, 9**9])
    rows = [np.array(c, np.int8 if i == 3 else np.int64) for i, c in enumerate(columns)]
    block, _ = entity_features(*rows, keys, spec=StateSpec(), n_entities=1)
    assert block[1, 0, 0] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": [3, 2]}, "row 1 comes before row 0: sort rows"),
        ({"event_id": [2, 1], "time": [2, 2]}, "sort rows"),
        ({"amount": [1, 2, 3]}, r"amount must have shape \(2,\)"),
        ({"keys": [[0, 0], [1, 1]]}, "keys must have shape"),
        ({"keys": [[0], [2]]}, "entity codes must lie in 0..1"),
        ({"keys": [[0], [-1]]}, "code of their own"),
        ({"label": [0, 3], "label_time": [100, 100]}, "labels must be"),
        ({"label_time": [11, 11]}, "row 1: its label may be used"),
    ],
)
def test_bad_batches_are_refused(change, message):
    rows = {
        "time": [1, 2],
        "event_id": [0, 1],
        "amount": [5, 5],
        "label": [0, 1],
        "label_time": [11, 12],
        "keys": [[0], [1]],
    }
    with pytest.raises(ValueError, match=message):
        entity_features(**{**rows, **change}, spec=StateSpec(delay=10), n_entities=2)


def test_wrong_backend_state_and_blocks_are_refused():
    spec, other = StateSpec(), StateSpec(windows=(days(1),))
    rows = card_rows(10)
    _, state = entity_features(*rows, spec=spec, n_entities=3, keep_state=True)
    with pytest.raises(ValueError, match="backend 'gpu' does not exist"):
        entity_features(*rows, spec=spec, n_entities=3, backend="gpu")
    with pytest.raises(ValueError, match="another spec"):
        entity_features(*rows, spec=other, n_entities=3, state=state)
    with pytest.raises(ValueError, match="cannot continue"):
        entity_features(*rows, spec=spec, n_entities=3, state=state, backend="reference")
    rows[5][:] = 0
    with pytest.raises(ValueError, match="holds 3 entities"):
        entity_features(*rows, spec=spec, n_entities=1, state=state)
    with pytest.raises(BlockError, match="other windows"):
        check_block(new_block(spec), StateSpec(delay=1))
    with pytest.raises(BlockError, match="bytes, this spec needs"):
        read_state(new_block(other), 0, 0, 1, spec=spec)
    with pytest.raises(ValueError, match="role 1 does not exist"):
        read_state(new_block(spec), 1, 0, 1, spec=spec)
    with pytest.raises(BlockError, match="read-only"):
        apply_event(np.frombuffer(new_block(spec).tobytes(), np.uint8), 0, 1, 1, 1, spec=spec)
    with pytest.raises(ValueError, match="label must be 0 or 1"):
        release_label(new_block(spec), 0, 0, -1, spec=spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": ()}, "at least one window"),
        ({"windows": (days(1), days(1))}, "unique"),
        ({"mail_width": 9}, "mail_width"),
        ({"roles": 0}, "at least 1"),
        ({"delay": -1}, "delay"),
        ({"label_tile": 1000}, "choose a longer one"),
    ],
)
def test_bad_specs_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StateSpec(**options)


def test_bad_windows_are_refused():
    with pytest.raises(ValueError, match="choose a tile that divides it"):
        Window("x", 25, 10)
    with pytest.raises(ValueError, match="positive"):
        Window("x", 0, 10)
    with pytest.raises(ValueError, match="choose a longer tile"):
        Window("x", 10**7, 10)


@pytest.fixture
def interpreted(monkeypatch):
    """Return a function that loads a module of the package with compilation switched off."""

    def load(name):
        monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
        found = importlib.util.find_spec(f"kernels.entity_state.{name}")
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        monkeypatch.setattr(numba.config, "DISABLE_JIT", 0)
        return module

    return load


def test_compiled_code_does_what_its_source_says(interpreted, monkeypatch):
    """Machine code against the same lines run by Python: no overflow, wrap or cast between."""
    cpu, mail = interpreted("cpu"), interpreted("mail")
    monkeypatch.setattr(cpu, "prefetch", lambda *place: None)  # exists in machine code only
    assert not hasattr(cpu.run_role, "py_func")
    rng = np.random.default_rng(3)
    spec = StateSpec(windows=WINDOWS[1], label_tile=10, delay=15, roles=2, mail_slots=2)
    time = np.sort(rng.integers(-50, 300, 60))
    event_id = np.arange(60) // 2 * 2  # every second row repeats an id
    label = rng.integers(-1, 2, 60)
    keys = rng.integers(0, 3, (60, 2), dtype=np.int32)
    rows = (time, event_id, rng.integers(1, 10**6, 60), label, time + 15, keys)
    vectors = rng.random((60, 2, 8)).astype(np.float32)
    got, state = run(spec, rows, keep_state=True)
    index = mail_index(keys, 3, 2)
    deposit_rows(state, time, rows[2], keys, keys[:, ::-1], keys * 0, vectors)

    for name in ("run_role", "group"):
        monkeypatch.setattr(batch, name, getattr(cpu, name))
    monkeypatch.setattr(mail, "deposit_to_section", cpu.deposit_to_section)
    wanted, plain = run(spec, rows, keep_state=True)
    np.testing.assert_array_equal(mail.mail_index(keys, 3, 2), index)
    mail.deposit_rows(plain, time, rows[2], keys, keys[:, ::-1], keys * 0, vectors)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(run(spec, rows)[0], wanted)
    assert state.blocks.tobytes() == plain.blocks.tobytes()


def test_importing_the_package_is_light():
    code = (
        "import sys, kernels.entity_state as k; assert 'numba' not in sys.modules; "
        "k.entity_features; assert all(hasattr(k, name) for name in k.__all__); "
        "assert not hasattr(k, 'nothing')"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
