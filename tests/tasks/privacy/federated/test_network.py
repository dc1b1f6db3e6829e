"""Gradients against differences, clipping against rows one by one."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.privacy.federated.network import Network

SHAPES = [(), (5,), (4, 3)]


def rows(n=40, width=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)), (rng.random(n) < 0.3).astype(np.float64)


@pytest.mark.parametrize("hidden", SHAPES)
class TestGradient:
    def test_is_that_of_the_loss(self, hidden):
        network = Network(6, hidden)
        x, y = rows()
        start = np.random.default_rng(1).normal(scale=0.4, size=network.parameters)
        _, gradient = network.gradient(start, x, y)
        for place in range(0, network.parameters, 3):
            step = np.zeros_like(start)
            step[place] = 1e-6
            up, down = (
                network.gradient(start + step, x, y)[0],
                network.gradient(start - step, x, y)[0],
            )
            assert gradient[place] == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-6)

    @pytest.mark.parametrize("clip", [0.05, 0.7, 100.0])
    def test_clipped_is_the_sum_of_rows_each_clipped(self, hidden, clip):
        network = Network(6, hidden)
        x, y = rows()
        start = np.random.default_rng(2).normal(scale=0.5, size=network.parameters)
        expected = np.zeros(network.parameters)
        for i in range(len(x)):
            _, one = network.gradient(start, x[i : i + 1], y[i : i + 1])
            expected += one * min(1.0, clip / np.linalg.norm(one))
        _, found = network.gradient(start, x, y, clip=clip)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)

    def test_no_row_moves_a_clipped_sum_by_more(self, hidden):
        network = Network(6, hidden)
        x, y = rows()
        x[0] *= 1e6
        start = network.initial(0)
        with_it = network.gradient(start, x, y, clip=0.5)[1]
        without = network.gradient(start, x[1:], y[1:], clip=0.5)[1]
        assert np.linalg.norm(with_it - without) <= 0.5 + 1e-9

    def test_no_rows_have_no_gradient(self, hidden):
        network = Network(6, hidden)
        loss, gradient = network.gradient(network.initial(0), *rows(0), clip=1.0)
        assert loss == 0
        assert not gradient.any()

    def test_every_parameter_has_a_name_of_its_own(self, hidden):
        network = Network(6, hidden)
        names = {network.name(place) for place in range(network.parameters)}
        assert len(names) == network.parameters
        with pytest.raises(IndexError):
            network.name(network.parameters)


@pytest.mark.parametrize("hidden", [(), (4,)])
def test_a_row_whose_gradient_is_no_number_adds_nothing(hidden):
    """Parameters that are made for it must not tell by a refusal whether a row is there."""
    network = Network(6, hidden)
    x, y = rows()
    x[3, 0] = 5.0
    x[:3, 0] = x[4:, 0] = 0.0
    start = network.initial(0)
    start[0] = 1.7e308  # times 5 it is infinite
    with_it = network.gradient(start, x, y, clip=1.0)[1]
    without = network.gradient(start, np.delete(x, 3, 0), np.delete(y, 3), clip=1.0)[1]
    assert np.isfinite(with_it).all()
    assert np.linalg.norm(with_it - without) <= 1.0 + 1e-9


def test_names_are_places_in_the_layers():
    network = Network(6, (5,))
    parameters = np.arange(network.parameters, dtype=np.float64)
    (first, bias), (last, _) = network.layers(parameters)
    assert network.name(int(first[2, 3])) == "layer 0 weight [2, 3]"
    assert network.name(int(bias[4])) == "layer 0 bias [4]"
    assert network.name(int(last[1, 0])) == "layer 1 weight [1, 0]"


def test_widths_are_checked():
    with pytest.raises(ValueError, match="at least 1"):
        Network(0)
    with pytest.raises(ValueError, match="at least 1"):
        Network(3, (0,))
