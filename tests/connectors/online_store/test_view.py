"""Parts become a block again, with the labels that are due."""

from __future__ import annotations

import numpy as np
import pytest

from connectors.online_store import EntityView, Record, read_views
from connectors.online_store.errors import RecordError
from connectors.online_store.record import first_version
from connectors.online_store.view import part_keys
from kernels.entity_state import (
    StateSpec,
    Window,
    apply_event,
    deposit,
    new_block,
    read_mail,
    read_state,
    release_label,
)

CARD = StateSpec(windows=(Window("a", 30, 10),), label_tile=10, delay=5)
ACCOUNT = StateSpec(windows=(Window("a", 30, 10),), label_tile=10, delay=5, roles=2, mail_width=3)
SPECS = {"card": CARD, "account": ACCOUNT}


def test_an_entity_never_seen_is_an_empty_block(store):
    card, account = read_views(store, [("card", "x"), ("account", "y")], SPECS)
    for view, spec in ((card, CARD), (account, ACCOUNT)):
        assert not view.known
        assert view.block.tobytes() == new_block(spec).tobytes()
        assert view.release(10**9, 0) == 0
        assert view.emitted_at == 0


def test_written_and_read_again(store):
    view = EntityView("account", "y", ACCOUNT)
    apply_event(view.block, 0, 1, 100, 50, spec=ACCOUNT)
    apply_event(view.block, 1, 2, 110, 70, spec=ACCOUNT)
    deposit(view.block, 1, 110, 70, 9, 0, np.ones(3, np.float32), spec=ACCOUNT)
    view.add_label(1, 120, 110, 2, 1)
    view.add_label(1, 119, 90, 7, 0)
    view.add_label(0, 200, 100, 1, 1)
    assert store.write(view.records((0, 2, 3), epoch=5, emitted_at=1_000)) == 3
    other = EntityView("card", "y", CARD)
    store.write(other.records((0,), epoch=5, emitted_at=1_000))
    got, card = read_views(store, [("account", "y"), ("card", "y")], SPECS)
    assert got.known
    assert got.block[32:].tobytes() == view.block[32:].tobytes()
    assert got.versions == {0: first_version(5), 2: first_version(5), 3: first_version(5)}
    assert [w.tolist() for w in got.waiting] == [w.tolist() for w in view.waiting]
    assert card.known
    assert read_mail(got.block, spec=ACCOUNT).counterpart[1, 0] == 9

    assert got.release(119, 2) == 1
    assert got.release(120, 3) == 1
    assert got.release(10**6, 10**6) == 1
    for role, time, label in ((1, 90, 0), (1, 110, 1), (0, 100, 1)):
        release_label(view.block, role, time, label, spec=ACCOUNT)
    for role in (0, 1):
        np.testing.assert_array_equal(
            read_state(got.block, role, 130, 1, spec=ACCOUNT),
            read_state(view.block, role, 130, 1, spec=ACCOUNT),
        )
    store.write(got.records((0, 2), epoch=4, emitted_at=2_000))
    again = read_views(store, [("account", "y")], SPECS)[0]
    assert not any(len(w) for w in again.waiting)
    assert again.versions == {0: first_version(5) + 1, 2: first_version(5) + 1, 3: first_version(5)}
    assert again.emitted_at == 2_000


def test_state_of_another_spec_is_refused(store):
    view = EntityView("card", "x", CARD)
    store.write(view.records((0, 1), epoch=1, emitted_at=0))
    longer = StateSpec(windows=(Window("a", 60, 10),), label_tile=10, delay=5)
    with pytest.raises(RecordError, match="Seed the store again"):
        read_views(store, [("card", "x")], {"card": longer})
    key = part_keys("card", "x", CARD)[0]
    strange = Record(key[:-1] + b"\x09", view.records((0,), epoch=1, emitted_at=0)[0].value)
    with pytest.raises(RecordError, match="part 9"):
        EntityView("card", "x", CARD, [strange])
