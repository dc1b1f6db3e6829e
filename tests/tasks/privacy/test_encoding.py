"""What is encrypted: bounded, finite, and the same for owner and scorer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tasks.fraud.heads.scaling import fit_scaling
from tasks.privacy.encoding import Encoding, RowError, plain_encoding
from tasks.privacy.readout import Readout


class TestEncoding:
    def test_standardises_within_limits(self):
        rows = np.random.default_rng(0).normal(5, 3, (500, 4))
        encoding = plain_encoding(rows)
        encoded = encoding.encode(rows)
        np.testing.assert_allclose(encoded.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(encoded.std(axis=0), 1)
        assert (np.abs(encoded) <= encoding.bounds).all()

    def test_rows_beyond_are_refused_with_row_and_column(self):
        encoding = plain_encoding(np.random.default_rng(0).normal(size=(100, 3)), ["a", "b", "c"])
        rows = np.zeros((5, 3))
        rows[1, 2], rows[3, 0], rows[4, 1] = 1e6, np.nan, np.inf
        with pytest.raises(RowError, match="row 3: a is not a finite number") as refused:
            encoding.encode(rows)
        assert refused.value.rows == [1, 3, 4]
        with pytest.raises(RowError, match="row 1: c lies outside") as refused:
            encoding.encode(rows[:3])
        assert refused.value.reasons == ["c lies outside what the model was compiled for"]

    def test_many_refused_rows_are_counted(self):
        encoding = plain_encoding(np.eye(2))
        with pytest.raises(RowError, match=r"10 rows, such as row 0"):
            encoding.encode(np.full((10, 2), 1e9))

    def test_a_constant_column_stays_finite(self):
        encoding = plain_encoding(np.ones((10, 1)))
        assert encoding.encode([[1.0]]).tolist() == [[0.0]]

    @pytest.mark.parametrize("knots", [0, 3])
    def test_equals_the_encoding_of_the_fraud_heads(self, knots):
        rows = np.random.default_rng(1).lognormal(3, 2, (300, 5)).astype(np.float32)
        scaling = fit_scaling(rows, knots=knots)
        encoding = Encoding(
            tuple("abcde"),
            scaling.mean,
            scaling.scale,
            np.full(5, 8.0),
            scaling.knots,
            signed_log=True,
            beyond="clip",
        )
        rows[0] = 1e30
        np.testing.assert_array_equal(encoding.encode(rows), scaling.encode(rows))
        assert (np.abs(encoding.encode(rows)) <= encoding.bounds).all()

    def test_comes_back_from_json(self):
        encoding = Encoding(
            ("a", "b"), [1, 2], [3, 4], [5, 6], [[0.5], [1.5]], signed_log=True, beyond="clip"
        )
        again = Encoding.from_dict(json.loads(json.dumps(encoding.to_dict())))
        rows = np.random.default_rng(2).normal(size=(20, 2)) * 100
        np.testing.assert_array_equal(again.encode(rows), encoding.encode(rows))

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(ValueError, match=r"encoding\.mean must be 2"):
            Encoding(("a", "b"), [1], [1, 1], [1, 1])
        with pytest.raises(ValueError, match="must be positive"):
            Encoding(("a",), [1], [0], [1])
        encoding = Encoding(("a",), [1], [1], [1])
        with pytest.raises(ValueError, match=r"\[n, 1\]"):
            encoding.encode([[1, 2]])
        with pytest.raises(ValueError, match="'refuse' or 'clip'"):
            Encoding.from_dict(encoding.to_dict() | {"beyond": "wrap"})


class TestReadout:
    def test_probabilities_and_bands(self):
        readout = Readout(thresholds=(("review", 0.5), ("block", 0.9)))
        scores = np.array([[-1.0], [0.1], [5.0]])
        probability = readout.outcome(scores)
        np.testing.assert_allclose(probability, 1 / (1 + np.exp(-scores)))
        assert readout.bands(probability[:, 0]) == ["", "review", "block"]

    def test_a_floor_ties_what_lies_below(self):
        found = Readout(a=0.7, b=1.2, c=-0.3, floor=-2.0).outcome(np.array([[-9.0], [-2.0], [1.0]]))
        assert found[0] == found[1] < found[2]

    def test_classes_add_up_to_one(self):
        found = Readout("class").outcome(np.array([[1e3, 0.0], [0.0, 0.0]]))
        np.testing.assert_allclose(found, [[1, 0], [0.5, 0.5]])

    def test_values_stay(self):
        scores = np.array([[3.5]])
        assert Readout("value").outcome(scores) is scores

    def test_what_cannot_be_is_refused(self):
        for wrong, said in (
            ({"kind": "x"}, "kind"),
            ({"a": 0}, "positive"),
            ({"c": np.inf}, "finite"),
            ({"thresholds": (("a", 0.9), ("b", 0.1))}, "rise"),
            ({"thresholds": (("a", 1.9),)}, "rise"),
        ):
            with pytest.raises(ValueError, match=said):
                Readout(**wrong)

    def test_comes_back_from_json(self):
        readout = Readout(a=2.0, floor=-3.0, thresholds=(("review", 0.5),))
        assert Readout.from_dict(json.loads(json.dumps(readout.to_dict()))) == readout
