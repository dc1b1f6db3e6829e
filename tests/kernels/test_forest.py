"""Forests: compiled scores and contributions equal their definition, on any tree and any value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.forest import (
    Forest,
    ForestError,
    Tree,
    contributions_reference,
    cpu,
    paths,
    score_reference,
)
from kernels.forest.layout import round_down
from kernels.forest.trees import ZERO

FEATURES = 4
TINY = float(np.nextafter(np.float32(ZERO), np.float32(1)))
THRESHOLDS = (0.0, -0.0, 1.0, -2.5, 0.1, 1e300, -1e300, np.inf, -np.inf, ZERO, -ZERO, 1e-40, 3e38)
VALUES = (0.0, -0.0, 1.0, -2.5, 0.1, 0.3, 1e30, -1e30, np.inf, -np.inf, np.nan, ZERO, -ZERO, TINY,
          1e-37, -1e-37, float(np.float32(0.1)))  # fmt: skip
EXAMPLES = settings(max_examples=25, deadline=None)


def grow(draw_int, draw_of, leaves):
    """Return a random tree: leaves are split one after another; counts add up."""
    children: list[list[int]] = []
    open_leaves = [(None, 0)]  # (node, side) that leads to each leaf
    for node in range(leaves - 1):
        place = draw_int(0, len(open_leaves) - 1)
        parent, side = open_leaves.pop(place)
        if parent is not None:
            children[parent][side] = node
        children.append([0, 0])
        open_leaves += [(node, 0), (node, 1)]
    for leaf, (parent, side) in enumerate(open_leaves):
        if parent is not None:
            children[parent][side] = ~leaf
    leaf_count = np.array([draw_int(1, 50) for _ in range(leaves)], float)
    count = np.zeros(leaves - 1)
    for node in reversed(range(leaves - 1)):
        count[node] = sum(count[c] if c >= 0 else leaf_count[~c] for c in children[node])
    left, right = np.array(children, np.int32).reshape(-1, 2).T
    nodes = range(leaves - 1)
    return Tree(
        feature=[draw_int(0, FEATURES - 1) for _ in nodes],
        threshold=[draw_of(THRESHOLDS) for _ in nodes],
        left=left,
        right=right,
        missing=[draw_int(0, 2) for _ in nodes],
        default_left=[draw_int(0, 1) for _ in nodes],
        count=count,
        value=[draw_int(-1000, 1000) / 7 for _ in range(leaves)],
        leaf_count=leaf_count,
    )


@st.composite
def forests(draw):
    """Up to three models of up to twelve trees of up to ten leaves."""

    def draw_int(low, high):
        return draw(st.integers(low, high))

    def draw_of(choices):
        return draw(st.sampled_from(choices))

    sizes = draw(st.lists(st.lists(st.integers(1, 10), min_size=1, max_size=4), min_size=1,
                          max_size=3))  # fmt: skip
    return [[grow(draw_int, draw_of, leaves) for leaves in model] for model in sizes]


rows_of = st.lists(
    st.lists(st.sampled_from(VALUES), min_size=FEATURES, max_size=FEATURES), min_size=1, max_size=5
)


def random_forest(seed, sizes):
    rng = np.random.default_rng(seed)

    def draw_int(low, high):
        return int(rng.integers(low, high + 1))

    def draw_of(choices):
        return choices[rng.integers(len(choices))]

    return [[grow(draw_int, draw_of, leaves) for leaves in model] for model in sizes]


def in_block(call, x):
    """Call with enough rows for the block kernels; return the first ones."""
    many = np.tile(x, (300 // len(x) + 1, 1))
    return call(many)


SCORES = {
    "few": lambda forest, x: forest.score(x),
    "block": lambda forest, x: in_block(forest.score, x)[: len(x)],
    "row": lambda forest, x: np.array([forest.score_row(row) for row in x]),
    "explained": lambda forest, x: np.array([forest.explain_row(row)[0] for row in x]),
}
CONTRIBUTIONS = {
    "few": lambda forest, x: forest.contributions(x),
    "block": lambda forest, x: in_block(forest.contributions, x)[:, : len(x)],
    "row": lambda forest, x: np.stack([forest.explain_row(row)[1] for row in x], axis=1),
}


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("way", SCORES)
@EXAMPLES
@given(models=forests(), rows=rows_of)
def test_scores_equal_the_reference(models, rows, way, kind):
    x = np.array(rows).astype(kind)
    found = SCORES[way](Forest(models, FEATURES), x)
    np.testing.assert_allclose(found, score_reference(models, x), rtol=1e-13, atol=1e-11)


@pytest.mark.parametrize("table_bytes", [2**20, 2_000, 0])
@pytest.mark.parametrize("way", CONTRIBUTIONS)
@EXAMPLES
@given(models=forests(), rows=rows_of)
def test_contributions_equal_their_definition(models, rows, way, table_bytes):
    x = np.array(rows)
    forest = Forest(models, FEATURES, table_bytes=table_bytes)
    found = CONTRIBUTIONS[way](forest, x)
    np.testing.assert_allclose(found, contributions_reference(models, x), rtol=0, atol=1e-9)
    total = forest.base.sum() + found.sum(axis=(0, 2))
    np.testing.assert_allclose(total, score_reference(models, x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_row_scores_the_same_bit_by_bit_alone_and_among_others(kind):
    forest = Forest(random_forest(1, [[8] * 50, [40, 5, 33, 8, 1] * 3]), FEATURES)
    x = np.random.default_rng(2).normal(size=(700, FEATURES)).astype(kind)
    together = forest.score(x)
    assert np.array_equal(together, np.concatenate([forest.score(x[:3]), forest.score(x[3:])]))
    assert [forest.score_row(row) for row in x] == together.tolist()
    assert [forest.explain_row(row)[0] for row in x] == together.tolist()
    each = np.stack([forest.explain_row(row)[1] for row in x[:40]], axis=1)
    np.testing.assert_allclose(each, forest.contributions(x)[:, :40], rtol=0, atol=1e-12)


def test_trees_of_any_size_beside_each_other():
    """Masks end at 32 leaves and tables at their memory; beyond them paths are walked."""
    models = random_forest(3, [[1, 32, 33, 8], [60, 2, 16]])
    x = np.random.default_rng(4).choice(VALUES, (20, FEATURES))
    forest = Forest(models, FEATURES)
    assert (forest.models, forest.trees) == (2, 7)
    assert forest.tabulated < forest.trees
    np.testing.assert_allclose(forest.score(x), score_reference(models, x), atol=1e-11)
    wanted = contributions_reference(models, x)
    np.testing.assert_allclose(forest.contributions(x), wanted, rtol=0, atol=1e-9)
    for row, expected in zip(x, wanted.swapaxes(0, 1), strict=True):
        score, found = forest.explain_row(row)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        assert score == forest.score_row(row)


def test_the_memory_of_tables_is_bounded():
    models = random_forest(5, [[8] * 30])
    whole, half = Forest(models, FEATURES), Forest(models, FEATURES, table_bytes=20_000)
    assert whole.tabulated == 30 > half.tabulated > 0
    x = np.random.default_rng(6).normal(size=(30, FEATURES))
    np.testing.assert_allclose(whole.contributions(x), half.contributions(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("table_bytes", [2**20, 0])
def test_contributions_are_summed_into_groups(table_bytes):
    forest = Forest(random_forest(7, [[8] * 5, [6] * 4]), FEATURES, table_bytes=table_bytes)
    x = np.random.default_rng(8).normal(size=(50, FEATURES))
    each = forest.contributions(x)
    found = forest.contributions(x, groups=[1, 0, 1, 2])
    wanted = np.stack([each[..., 1], each[..., 0] + each[..., 2], each[..., 3]], axis=-1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_rows_of_other_types_and_orders_are_read_alike():
    forest = Forest(random_forest(9, [[8] * 5]), FEATURES)
    x = np.random.default_rng(10).integers(-3, 4, size=(40, FEATURES))
    wanted = forest.score(x.astype(np.float64))
    frozen = np.frombuffer(x.astype(np.float32).tobytes(), np.float32).reshape(x.shape)
    for rows in (x, np.asfortranarray(x, np.float32), frozen, x.astype(">f4"), x.astype("f2")):
        assert np.array_equal(forest.score(rows), wanted)
        assert forest.score_row(rows[0]) == wanted[0]
    assert forest.score(np.zeros((0, FEATURES))).shape == (0,)
    assert forest.contributions(np.zeros((0, FEATURES))).shape == (1, 0, FEATURES)


def test_constants_alone_make_a_forest():
    forest = Forest(random_forest(11, [[1], [1, 1]]), FEATURES)
    x = np.zeros((12, FEATURES))
    assert np.array_equal(forest.score(x), np.full(12, forest.base.sum()))
    assert not forest.contributions(x).any()
    assert not forest.explain_row(x[0])[1].any()


def test_float32_thresholds_part_the_same_values():
    thresholds = np.array(THRESHOLDS)
    rounded = round_down(thresholds)
    with np.errstate(over="ignore"):
        near = [np.nextafter(rounded, np.float32(side)) for side in (-np.inf, np.inf)]
    values = np.concatenate([np.array(VALUES, np.float32), rounded, *near])
    wide = values.astype(np.float64)[:, None] <= thresholds
    assert np.array_equal(values[:, None] <= rounded, wide)


def stump(**changes):
    arrays = {
        "feature": [0], "threshold": [1.0], "left": [-1], "right": [-2], "missing": [0],
        "default_left": [True], "count": [3], "value": [1.0, 2.0], "leaf_count": [1, 2],
    }  # fmt: skip
    return Tree(**{name: np.array(v) for name, v in (arrays | changes).items()})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threshold": [np.nan]}, "NaN threshold"),
        ({"value": [1.0, np.inf]}, "not finite"),
        ({"count": [0]}, "counts must be positive"),
        ({"feature": [-1]}, "negative feature"),
        ({"missing": [3]}, "missing type"),
        ({"left": [-2]}, "every node and leaf once"),
        ({"value": [1.0]}, r"value has shape \(1,\)"),
        ({"feature": [0, 0], "threshold": [0, 0], "left": [-1, 0], "right": [-2, -3],
          "missing": [0, 0], "default_left": [0, 0], "count": [3, 2], "value": [0, 0, 0],
          "leaf_count": [1, 1, 1]}, "every node"),
        ({"feature": [0, 0, 0], "threshold": [0, 0, 0], "left": [-1, 2, 1], "right": [-2, -3, -4],
          "missing": [0] * 3, "default_left": [0] * 3, "count": [3, 2, 2], "value": [0] * 4,
          "leaf_count": [1] * 4}, "numbered before its parent"),
    ],
)  # fmt: skip
def test_what_is_no_tree_is_refused(changes, reason):
    with pytest.raises(ForestError, match=reason):
        stump(**changes)


def test_what_does_not_fit_is_refused():
    forest = Forest([[stump()]], 2)
    with pytest.raises(ForestError, match="at least one model"):
        Forest([], 2)
    with pytest.raises(ForestError, match="tests feature 3, rows have 3"):
        Forest([[stump(feature=[3])]], 3)
    for wrong in (np.zeros((2, 3)), np.zeros(2)):
        with pytest.raises(ForestError, match=r"do not fit \[n, 2\]"):
            forest.score(wrong)
    for call in (forest.score_row, forest.explain_row):
        with pytest.raises(ForestError, match=r"does not fit \[2\]"):
            call(np.zeros(3))
    for groups in ([0], [0, -1]):
        with pytest.raises(ForestError, match="for each of 2 features"):
            forest.contributions(np.zeros((1, 2)), groups)


def test_the_python_source_of_the_kernels_agrees_with_their_machine_code(monkeypatch):
    models = random_forest(12, [[8, 5], [3, 34]])
    x = np.random.default_rng(13).choice(VALUES, (12, FEATURES)).astype(np.float32)

    def everything():
        whole = Forest(models, FEATURES)
        walked = Forest(models, FEATURES, table_bytes=0)
        found = [whole.score(x), whole.score(x[:2]), whole.contributions(x),
                 walked.contributions(x[:3]), *whole.explain_row(x[0])]  # fmt: skip
        return [np.asarray(part) for part in found]

    wanted = everything()
    for module in (cpu, paths):
        for name, function in list(vars(module).items()):
            if hasattr(function, "py_func"):
                monkeypatch.setattr(module, name, function.py_func)
    monkeypatch.setattr(cpu, "lowest_bit", lambda word: (int(word) & -int(word)).bit_length() - 1)
    with np.errstate(over="ignore"):
        for found, expected in zip(everything(), wanted, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
