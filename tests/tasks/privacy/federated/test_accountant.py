"""Epsilon against published values, and divergences against their integrals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.privacy.federated.accountant import epsilon, epsilon_of, renyi_cost


class TestPublished:
    def test_opacus(self):
        """Value of opacus/tests/accountants_test.py: 90 epochs at rate .04."""
        assert epsilon(0.04, 1.5, 2_250, 1e-5) == pytest.approx(7.32911117143, abs=1e-6)

    def test_tensorflow_privacy(self):
        """Two mechanisms composed, rdp_accountant_test.py; it converted as Mironov 2017 did."""
        orders = (
            1.25,
            1.5,
            1.75,
            2,
            2.5,
            3,
            4,
            5,
            6,
            7,
            8,
            10,
            12,
            14,
            16,
            20,
            24,
            28,
            32,
            64,
            256,
        )
        costs = [
            40_000 * renyi_cost(1e-4, 0.4, order) + 100 * renyi_cost(0.1, 2, order)
            for order in orders
        ]
        classic = [
            (cost + math.log(1e5) / (order - 1), order)
            for cost, order in zip(costs, orders, strict=True)
        ]
        assert min(classic)[0] == pytest.approx(8.509656, abs=1e-5)
        assert min(classic)[1] == 2.5
        assert epsilon_of(costs, 1e-5, orders) < min(classic)[0]


class TestCost:
    @pytest.mark.parametrize("order", [1.1, 1.7, 2, 2.5, 8, 31.5])
    @pytest.mark.parametrize(("rate", "noise"), [(0.01, 0.8), (0.2, 1.5), (0.9, 4.0)])
    def test_is_the_integral_that_defines_it(self, order, rate, noise):
        z = np.linspace(-40 * noise, 40 * noise + order, 400_001)
        density = -0.5 * (z / noise) ** 2 - math.log(noise * math.sqrt(2 * math.pi))
        ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * z - 1) / (2 * noise**2))
        inner = density + order * ratio
        moment = np.trapezoid(np.exp(inner - inner.max()), z)
        expected = (inner.max() + math.log(moment)) / (order - 1)
        assert renyi_cost(rate, noise, order) == pytest.approx(expected, rel=1e-6, abs=1e-11)

    def test_without_sampling_it_is_that_of_the_gaussian(self):
        assert renyi_cost(1.0, 3.0, 5.0) == pytest.approx(5 / 18)
        assert renyi_cost(0.0, 3.0, 5.0) == 0

    @settings(max_examples=8, deadline=None)
    @given(st.floats(0.001, 0.5), st.floats(0.7, 5), st.integers(1, 500))
    def test_more_rows_less_noise_or_more_steps_never_cost_less(self, rate, noise, steps):
        spent = epsilon(rate, noise, steps, 1e-5)
        assert spent <= epsilon(min(1.0, rate * 1.5), noise, steps, 1e-5) + 1e-9
        assert spent <= epsilon(rate, noise * 0.8, steps, 1e-5) + 1e-9
        assert spent <= epsilon(rate, noise, steps + 10, 1e-5)
        assert spent <= epsilon(1.0, noise, steps, 1e-5) + 1e-9

    def test_nothing_done_costs_nothing_and_no_noise_everything(self):
        assert epsilon(0.1, 1.0, 0, 1e-5) == 0
        assert epsilon(0.1, 0.0, 1, 1e-5) == math.inf

    @pytest.mark.parametrize("wrong", [(-0.1, 1, 2), (1.1, 1, 2), (0.1, 0, 2), (0.1, 1, 1)])
    def test_arguments_are_checked(self, wrong):
        with pytest.raises(ValueError, match=r"rate in 0\.\.1"):
            renyi_cost(*wrong)
        with pytest.raises(ValueError, match="less than 1 / rows"):
            epsilon(0.1, 1.0, 1, 1.0)
