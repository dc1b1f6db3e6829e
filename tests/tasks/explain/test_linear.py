"""Closed-form contributions of linear models, and sums of explanations."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from tasks.explain.errors import AdditivityError
from tasks.explain.linear import combine, explain_linear
from tasks.explain.tree import Explanation

NAMES = ("a", "b", "c")
OWNER = np.array([0, 1, 2, 0])


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 4)), rng.normal(size=(20, 4)), np.array([1.0, -2.0, 0.5, 0.3])


def test_linear_values_equal_enumeration(case):
    rows, background, weights = case
    result = explain_linear(NAMES, rows, background, weights, 0.7, OWNER, background_sha256="f")
    assert result.background_sha256 == "f"

    def worth(row, known):
        mixed = background.copy()
        columns = np.isin(OWNER, known)
        mixed[:, columns] = row[columns]
        return (mixed @ weights).mean()

    for row, found in zip(rows, result.values, strict=True):
        for p in range(3):
            others = [q for q in range(3) if q != p]
            exact = sum(
                math.factorial(s)
                * math.factorial(2 - s)
                / 6
                * (worth(row, [*k, p]) - worth(row, k))
                for s in range(3)
                for k in map(list, itertools.combinations(others, s))
            )
            assert found[p] == pytest.approx(exact)


def test_shapes_must_fit(case):
    rows, background, weights = case
    with pytest.raises(ValueError, match="encoded alike"):
        explain_linear(NAMES, rows[:, :3], background, weights, 0.0, OWNER)
    with pytest.raises(ValueError, match="needs background rows"):
        explain_linear(NAMES, rows, background[:0], weights, 0.0, OWNER)


def _part(per_model, base, method="path", names=NAMES):
    per_model, base = np.array(per_model, dtype=float), np.array(base, dtype=float)
    raw = (base[:, None] + per_model.sum(axis=2)).mean(axis=0)
    return Explanation(names, per_model, base, raw, 0.0, method)


def test_blend_keeps_the_spread_of_its_trees(case):
    rows, background, weights = case
    trees = _part(np.random.default_rng(1).normal(size=(3, 5, 3)), [0.1, 0.2, 0.3])
    line = explain_linear(NAMES, rows, background, weights, 0.0, OWNER)
    both = combine([trees, line], [1.0, 0.3])
    assert both.method == "mixed"
    assert both.per_model.shape == (3, 5, 3)
    np.testing.assert_allclose(both.values, trees.values + 0.3 * line.values)
    np.testing.assert_allclose(both.raw_score, trees.raw_score + 0.3 * line.raw_score)
    np.testing.assert_allclose(both.per_model.std(0), trees.per_model.std(0))


def test_parts_whose_models_cannot_be_paired_are_refused():
    """Their means would add up, but with an error of 0, so without any tie."""
    rng = np.random.default_rng(2)
    one, two, three = (_part(rng.normal(size=(k, 4, 3)), np.arange(k)) for k in (3, 2, 1))
    with pytest.raises(ValueError, match=r"parts of 2 and 3 models.*same number of seeds"):
        combine([one, two, three], [0.5, 0.25, 0.25])


def test_parts_of_different_backgrounds_are_refused():
    one, two, none = (
        replace(_part(np.zeros((1, 2, 3)), [0.0]), background_sha256=d) for d in ("aaa", "bbb", "")
    )
    with pytest.raises(ValueError, match=r"different backgrounds \(aaa, bbb\)"):
        combine([one, two], [1, 1])
    assert combine([none, one, one], [1, 1, 1]).background_sha256 == "aaa"


def test_a_missing_input_is_named(case):
    rows, background, weights = case
    gap = rows.copy()
    gap[2, 3] = np.nan
    with pytest.raises(ValueError, match="'a' of row 2 is nan: a linear model"):
        explain_linear(NAMES, gap, background, weights, 0.0, OWNER)
    held = background.copy()
    held[1, 1] = np.inf
    with pytest.raises(ValueError, match="'b' of background row 1 is inf"):
        explain_linear(NAMES, rows, held, weights, 0.0, OWNER)


def test_parts_must_belong_together():
    one = _part(np.zeros((1, 2, 3)), [0.0])
    with pytest.raises(ValueError, match="other features or rows"):
        combine([one, _part(np.zeros((1, 2, 3)), [0.0], names=("x", "y", "z"))], [1, 1])
    with pytest.raises(ValueError, match="one weight for each"):
        combine([one], [1, 2])
    broken = Explanation(NAMES, np.zeros((1, 2, 3)), np.zeros(1), np.ones(2), 0.0, "path")
    with pytest.raises(AdditivityError):
        combine([broken], [1.0])
