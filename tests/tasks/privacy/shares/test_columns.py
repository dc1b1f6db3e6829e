"""Each party encodes its own columns, and together they make the inputs of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.privacy.encoding import Encoding
from tasks.privacy.shares.columns import split_encoding
from tasks.privacy.shares.plan import PlanError

WHOLE = Encoding(
    ("a", "b", "c"),
    [0.0, 1.0, 2.0],
    [1.0, 2.0, 3.0],
    [9.0, 9.0, 9.0],
    [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]],
    steps=((2, 0.5), (0, -0.5), (2, 1.5), (1, 0.0)),
)


@pytest.mark.parametrize("first", [("a",), ("c", "a"), ("b", "c"), ("a", "b", "c"), ()])
def test_hinges_and_steps_go_with_their_columns(first):
    rows = np.random.default_rng(0).normal(size=(20, 3))
    whole = WHOLE.encode(rows)
    (one, other), (inputs, more) = split_encoding(WHOLE, first)
    rest = [name for name in WHOLE.columns if name not in first]
    rebuilt = np.full_like(whole, np.nan)
    for encoding, places, names in ((one, inputs, first), (other, more, rest)):
        picked = rows[:, [WHOLE.columns.index(name) for name in names]]
        assert encoding.inputs == len(places)
        if len(names):
            rebuilt[:, places] = encoding.encode(picked)
    np.testing.assert_array_equal(rebuilt, whole)


def test_unknown_columns_are_refused():
    with pytest.raises(PlanError, match="party 0"):
        split_encoding(WHOLE, ("d",))
