"""Trees over published splits: the same scores, whatever the trees."""

from __future__ import annotations

import json

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.forest import Tree, read_model
from tasks.privacy.compile import CompileOptions, compile_model
from tasks.privacy.encoding import Encoding
from tasks.privacy.model import ModelError
from tasks.privacy.readout import Readout
from tasks.privacy.shares.columns import split_encoding
from tasks.privacy.shares.plan import PlanError
from tasks.privacy.simulate import simulate
from tasks.privacy.trees import tree_model

COLUMNS = tuple("abcdef")


def grown(seed: int, trees: int = 20, leaves: int = 8):
    """A LightGBM model and rows of numbers, some of which tie."""
    rng = np.random.default_rng(seed)
    rows = np.round(rng.normal(size=(600, 6)), 1).astype(np.float32)
    label = rows[:, 0] * rows[:, 1] + (rows[:, 2] > 0.5) + rng.normal(size=600) > 0
    settings = {"objective": "binary", "num_leaves": leaves, "verbose": -1, "num_threads": 1}
    return lightgbm.train(settings, lightgbm.Dataset(rows, label), trees), rows


def trees_of(booster):
    return read_model(booster.model_to_string())[0]


def of_columns(model, rows):
    return rows[:, [COLUMNS.index(column) for column in model.encoding.columns]]


def made(feature, threshold, left, right, value):
    ones = np.ones(len(value))
    nothing = np.zeros(len(feature))
    return Tree(feature, threshold, left, right, nothing, nothing, ones[1:], value, ones)


class TestTreeModel:
    @given(st.integers(0, 2**16), st.integers(1, 12), st.integers(2, 12))
    def test_scores_are_those_of_the_trees(self, seed, trees, leaves):
        booster, rows = grown(seed, trees, leaves)
        model = tree_model(trees_of(booster), COLUMNS)
        at_thresholds = rows.astype(np.float64)
        for column, (place, limit) in enumerate(model.encoding.steps[:600]):
            at_thresholds[column, COLUMNS.index(model.encoding.columns[place])] = limit
        next_to_zero = np.sign(rows) * 1e-35
        for one in (rows, at_thresholds, next_to_zero):
            found = model.score(of_columns(model, one))[:, 0]
            wanted = booster.predict(one, raw_score=True)
            np.testing.assert_allclose(found, wanted, atol=1e-12)

    def test_several_models_are_their_mean(self):
        boosters = [grown(seed)[0] for seed in (1, 2)]
        _, rows = grown(3)
        model = tree_model([t for one in boosters for t in trees_of(one)], COLUMNS, models=2)
        wanted = np.mean([one.predict(rows, raw_score=True) for one in boosters], axis=0)
        np.testing.assert_allclose(model.score(of_columns(model, rows))[:, 0], wanted, atol=1e-12)

    def test_encrypted_they_lose_less_than_is_proved(self):
        booster, rows = grown(4)
        model = tree_model(trees_of(booster), COLUMNS, readout=Readout(floor=-1.0))
        own = of_columns(model, rows).astype(np.float64)
        compiled = compile_model(model, own, CompileOptions(tolerance=1e-4))
        assert compiled.plan.packings == ("rows", "products")
        error = np.abs(simulate(compiled, own)[:, 0] - booster.predict(rows, raw_score=True))
        assert error.max() <= compiled.proof.likely_calibration

    def test_a_path_that_contradicts_itself_is_taken_by_no_row(self):
        """Left of x <= 1 comes x <= 1 again: its right leaf is dead, and counts for nothing."""
        tree = made([0, 0], [1.0, 1.0], [1, ~0], [~2, ~1], [2.0, 99.0, 3.0])
        model = tree_model([tree], ["x"])
        assert model.score(np.array([[0.0], [5.0]]))[:, 0].tolist() == [2.0, 3.0]

    def test_equal_paths_are_one_input(self):
        stump = made([0], [1.0], [~0], [~1], [-1.0, 1.0])
        model = tree_model([stump, stump, stump], ["x"])
        assert len(model.encoding.rules) == 1
        assert model.score(np.array([[0.0], [2.0]]))[:, 0].tolist() == [-3.0, 3.0]

    def test_what_cannot_be_scored_is_refused(self):
        constant = made([], [], [], [], [2.0])
        with pytest.raises(ModelError, match="split nothing"):
            tree_model([constant], ["x"])
        _, rows = grown(5)
        rows[:50, 0] = 0
        data = lightgbm.Dataset(rows, rows[:, 0] > 0.5)
        settings = {"objective": "binary", "zero_as_missing": True, "verbose": -1}
        with pytest.raises(ModelError, match="zero_as_missing=false"):
            tree_model(trees_of(lightgbm.train(settings, data, 3)), COLUMNS)


class TestRules:
    @pytest.fixture
    def encoding(self):
        return tree_model(trees_of(grown(6)[0]), COLUMNS).encoding

    def test_come_back_from_json(self, encoding):
        assert (
            Encoding.from_dict(json.loads(json.dumps(encoding.to_dict()))).rules == encoding.rules
        )

    def test_name_steps_that_there_are(self, encoding):
        for wrong in (((len(encoding.steps), True),), ((-1, True),), ()):
            with pytest.raises(ValueError, match=r"encoding\.rules each name one or more"):
                Encoding(("x",), [0], [1], [1], steps=((0, 1.0),), rules=(wrong,))

    def test_are_not_shared_out_between_two_parties(self, encoding):
        with pytest.raises(PlanError, match="rules"):
            split_encoding(encoding, encoding.columns[:2])
