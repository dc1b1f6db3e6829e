"""Two lists of keys: the common ones, in one order on both sides, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.curve25519.membership import on_curve
from tasks.privacy.shares.intersect import (
    Blinder,
    KeyListError,
    PointError,
    as_bytes,
    hash_to_curve,
)
from tasks.privacy.shares.steps import together


def intersected(mine, theirs, chunk=7):
    lists = as_bytes(mine), as_bytes(theirs)
    sides = [Blinder(one) for one in lists]
    tags = [
        together(sides[0].step(at, chunk, len(theirs)), sides[1].step(at, chunk, len(mine)))
        for at in range(0, max(len(mine), len(theirs)), chunk)
    ]
    return [
        side.matched(*(np.concatenate([pair[i][which] for pair in tags]) for which in (0, 1)))
        for i, side in enumerate(sides)
    ]


class TestIntersection:
    @settings(max_examples=15, deadline=None)
    @given(
        st.lists(st.text(max_size=4), min_size=1, max_size=25, unique=True),
        st.lists(st.text(max_size=4), min_size=1, max_size=25, unique=True),
    )
    def test_both_sides_list_the_common_keys_in_one_order(self, mine, theirs):
        first, second = intersected(mine, theirs)
        found = [mine[i] for i in first.rows]
        assert found == [theirs[i] for i in second.rows]
        assert set(found) == set(mine) & set(theirs)
        assert first.alignment == second.alignment
        assert (first.others, second.others) == (len(theirs), len(mine))

    def test_another_intersection_has_another_alignment(self):
        assert intersected("abc", "bcd")[0].alignment != intersected("abc", "bcd")[0].alignment

    def test_what_is_sent_differs_each_time_and_in_order(self):
        keys = [b"%d" % i for i in range(40)]
        sent = [next(Blinder(keys).step(0, 40, 40)).outgoing.reshape(-1, 32) for _ in range(2)]
        assert not {one.tobytes() for one in sent[0]} & {one.tobytes() for one in sent[1]}
        orders = [Blinder(keys)._order.tolist() for _ in range(2)]
        assert orders[0] != orders[1] != sorted(orders[1])

    def test_hashes_lie_on_the_curve(self):
        points = hash_to_curve([b"%d" % i for i in range(200)])
        assert on_curve(points).all()
        assert len({one.tobytes() for one in points}) == 200
        sent = next(Blinder([b"a", b"b"]).step(0, 2, 0)).outgoing
        assert on_curve(sent.reshape(-1, 32)).all()

    def test_keys_listed_twice_are_refused(self):
        with pytest.raises(KeyListError, match="rows 0 and 2 have the same key"):
            as_bytes(["a", "b", "a"])

    def test_text_and_bytes_are_one(self):
        assert as_bytes(["ä"]) == as_bytes(["ä".encode()])

    @pytest.mark.parametrize("point", [0, 1, 2**255 - 20])
    def test_points_of_small_order_are_refused(self, point):
        steps = Blinder([b"a"]).step(0, 1, 1)
        next(steps)
        with pytest.raises(PointError, match="small order"):
            steps.send(np.frombuffer(point.to_bytes(32, "little"), np.uint8))
