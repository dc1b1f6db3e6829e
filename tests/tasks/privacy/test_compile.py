"""Compiled models: what is proved holds, and what cannot be proved is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.privacy.bounds import linear_errors
from tasks.privacy.compile import CompileOptions, compile_model
from tasks.privacy.encoding import Encoding, plain_encoding
from tasks.privacy.flooding import flooding_deviation
from tasks.privacy.model import ModelError, PrivateModel, linear_model, power_model
from tasks.privacy.parameters import MOST_BITS, SETS, ParameterError
from tasks.privacy.plan import Plan, WholeWeights, digest_of
from tasks.privacy.readout import Readout
from tasks.privacy.simulate import simulate
from tests.tasks.privacy.models import INPUTS, KINDS, made, rows


class TestCompile:
    @pytest.mark.parametrize("kind", KINDS)
    def test_rounded_models_stay_within_what_is_proved(self, kind):
        model = made(kind)
        compiled = compile_model(model, rows(300))
        error = np.abs(simulate(compiled, rows(300)) - model.score(rows(300)))
        assert error.max() <= compiled.proof.likely_calibration <= compiled.options.allowed
        assert compiled.proof.likely_calibration <= compiled.proof.likely <= compiled.proof.certain

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_largest_score_that_can_be_fits_the_modulus(self, kind):
        """Rows at the corner of the box that each score likes most."""
        model = made(kind)
        compiled = compile_model(model, rows(300))
        bounds = model.encoding.bounds
        corners = np.sign(compiled.whole.weights.astype(np.float64)) * bounds
        scores = model.score_encoded(np.concatenate([corners, -corners])) - model.offset
        assert np.abs(scores).max() <= compiled.proof.largest + compiled.proof.certain
        half = compiled.plan.parameters.ring.modulus / 2
        reached = (compiled.proof.largest + compiled.proof.certain) * 2.0**compiled.plan.score_bits
        assert reached < half
        assert compiled.proof.spare_bits == pytest.approx(np.log2(half / reached), abs=0.01)

    def test_the_cheapest_set_that_keeps_the_tolerance_is_taken(self):
        assert compile_model(made("linear"), rows(50)).plan.parameters.name == "n4096-54"
        names = [
            compile_model(
                made("square"), rows(50), CompileOptions(tolerance=tolerance)
            ).plan.parameters.name
            for tolerance in (1e-2, 1e-7)
        ]
        assert names == ["n8192-120", "n8192-180"]

    def test_a_set_can_be_asked_for(self):
        options = CompileOptions(parameters="n8192-180")
        assert compile_model(made("linear"), rows(50), options).plan.parameters.name == "n8192-180"
        with pytest.raises(ParameterError, match="'n1' is unknown"):
            compile_model(made("linear"), rows(50), CompileOptions(parameters="n1"))

    def test_a_tolerance_that_none_keeps_is_refused_with_what_would_be(self):
        with pytest.raises(ParameterError, match=r"within 1e-30: the best of .* reaches \d"):
            compile_model(made("square"), rows(50), CompileOptions(tolerance=1e-30))

    def test_shareable_needs_room_for_the_noise_that_hides(self):
        compiled = compile_model(made("linear"), rows(50), CompileOptions(profile="shareable"))
        assert compiled.plan.parameters.name == "n8192-120"
        assert 0 < compiled.proof.flooding < 1e-4
        assert compiled.proof.released <= 1e-3
        one = CompileOptions(profile="shareable", releases=1)
        assert compile_model(made("linear"), rows(50), one).plan.parameters.name == "n4096-54"

    def test_owner_only_has_none(self):
        assert compile_model(made("linear"), rows(50)).proof.flooding == 0

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_zero_weight_is_no_special_case(self, kind):
        model = made(kind)
        weights = model.weights.copy()
        weights[0], weights[:, 0] = 0.0, 0.0
        if model.power == 1 and len(weights) == 1:
            weights[0, 1] = 1.0
        changed = dataclasses.replace(model, weights=weights)
        compiled = compile_model(changed, rows(100))
        error = np.abs(simulate(compiled, rows(100)) - changed.score(rows(100)))
        assert error.max() <= compiled.proof.likely_calibration

    def test_a_model_of_zeros_is_refused(self):
        model = made("square")
        with pytest.raises(ModelError, match="constant"):
            compile_model(dataclasses.replace(model, output=np.zeros((1, 5))), rows(10))
        with pytest.raises(ModelError, match="constant"):
            compile_model(
                dataclasses.replace(made("linear"), weights=np.zeros((1, INPUTS))), rows(9)
            )

    def test_no_calibration_rows_are_refused(self):
        with pytest.raises(ModelError, match="calibration rows"):
            compile_model(made("linear"), np.zeros((0, INPUTS)))

    def test_the_digest_tells_weights_and_plan_apart(self):
        digests = {compile_model(made("linear", seed), rows(50)).plan.digest for seed in range(4)}
        assert len(digests) == 4
        again = compile_model(made("linear", 0), rows(50))
        assert again.plan.digest in digests

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"profile": "public"}, "profile"),
            ({"tolerance": 0}, "positive"),
            ({"max_rows": 0}, "1"),
        ],
    )
    def test_options_name_the_fix(self, wrong, said):
        with pytest.raises(ValueError, match=said):
            CompileOptions(**wrong)

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 10_000), st.sampled_from(KINDS), st.floats(-3, 3), st.floats(-2, 2))
    def test_any_model_is_within_its_proof_or_refused(self, seed, kind, size, limits):
        model = made(kind, seed)
        encoding = dataclasses.replace(
            model.encoding, limits=model.encoding.limits * 10.0**limits, beyond="clip"
        )
        model = dataclasses.replace(model, encoding=encoding, weights=model.weights * 10.0**size)
        try:
            compiled = compile_model(model, rows(60, seed))
        except ParameterError:
            return
        noisy = simulate(compiled, rows(60, seed), np.random.default_rng(seed))
        error = np.abs(noisy - model.score(rows(60, seed))).max()
        assert error <= compiled.proof.likely_calibration


class TestBounds:
    def test_noise_that_is_drawn_stays_within(self):
        """Ten thousand rows of the noise that SEAL draws, against what is likely and certain."""
        rng = np.random.default_rng(3)
        weights = rng.normal(size=(2, 30))
        errors = linear_errors(weights, input_bits=20, rows=10_000)
        coins = rng.integers(0, 2, (10_000, 30, 42), dtype=np.int8)
        noise = coins[:, :, :21].sum(axis=2) - coins[:, :, 21:].sum(axis=2).astype(np.int64)
        drawn = np.abs(noise @ weights.T).max(axis=0) * 2.0**-20
        assert (drawn <= errors.likely).all()
        assert (errors.likely < errors.certain).all()
        assert (drawn > errors.likely / 4).all()  # and not absurdly far away

    def test_flooding_grows_with_releases(self):
        assert flooding_deviation(2.0, 4) == pytest.approx(2 * flooding_deviation(2.0, 1))
        with pytest.raises(ValueError, match="allows none"):
            flooding_deviation(1.0, 0)


class TestSets:
    @pytest.mark.parametrize("name", SETS)
    def test_security_is_that_of_the_standard(self, name):
        one = SETS[name]
        assert one.total_bits <= MOST_BITS[one.ring.degree][one.security_bits]
        assert one.security_bits >= 128

    def test_a_linear_model_has_more_than_needed(self):
        assert SETS["n4096-54"].security_bits == 256


class TestPlan:
    @pytest.mark.parametrize("kind", KINDS)
    def test_comes_back_from_json(self, kind):
        compiled = compile_model(made(kind), rows(50))
        assert Plan.from_dict(compiled.plan.to_dict()) == compiled.plan
        again = WholeWeights.from_dict(compiled.whole.to_dict())
        assert digest_of(compiled.plan, again, compiled.public) == compiled.plan.digest

    def test_few_rows_go_as_products_and_many_as_rows(self):
        plan = compile_model(made("linear"), rows(50)).plan
        assert plan.packing_for(1) == "products"
        assert plan.packing_for(100_000) == "rows"
        few = plan.request_bytes("products", 1) + plan.answer_bytes("products", 1)
        assert few < 100_000 < plan.request_bytes("rows", 1)

    def test_capacities(self):
        plan = compile_model(made("linear"), rows(50)).plan
        assert plan.stride == 8
        assert plan.capacity("rows") == 4096
        assert plan.capacity("products") == 512
        assert plan.groups("rows", 4097) == 2
        slots = compile_model(made("square"), rows(50)).plan
        assert slots.capacity("slots") == slots.parameters.ring.degree // 2


class TestModel:
    def test_shapes_are_checked(self):
        encoding = Encoding(("a", "b"), [0, 0], [1, 1], [3, 3])
        with pytest.raises(ModelError, match=r"weights has shape \[1, 3\]"):
            linear_model(encoding, [1, 2, 3], 0)
        with pytest.raises(ModelError, match="not finite"):
            linear_model(encoding, [1, np.nan], 0)
        with pytest.raises(ModelError, match="3 layers: two can be scored"):
            power_model(encoding, [([[1, 2]], [0])] * 3, 2)
        with pytest.raises(ModelError, match="square and the cube"):
            power_model(encoding, [([[1, 2]], [0]), ([[1]], [0])], 4)
        with pytest.raises(ModelError, match=r"output has shape \[1, 2\]"):
            power_model(encoding, [([[1, 2]], [0]), ([[1, 2]], [0])], 2)
        with pytest.raises(ModelError, match="no log-odds"):
            linear_model(encoding, np.eye(2), [0, 0], Readout())

    def test_a_power_is_what_it_says(self):
        encoding = plain_encoding(np.array([[-1.0], [1.0]]))
        model = power_model(encoding, [([[2.0]], [1.0]), ([[0.5]], [3.0])], 3)
        assert model.score([[1.0]]).tolist() == [[0.5 * 3.0**3 + 3.0]]
        assert isinstance(model, PrivateModel)
