"""Calibration: probabilities meet frequencies, and order is kept."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.fraud.heads.calibration import Calibration, fit_calibration, logit, sigmoid


def distorted(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds that are 2 x too steep and shifted, with labels from the true ones."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-2.0, 1.5, n)
    return 2.0 * truth + 1.0, (rng.random(n) < sigmoid(truth)).astype(int)


def gap(probability: np.ndarray, label: np.ndarray) -> float:
    """Mean gap of mean probability and share of positives among tenths of the rows."""
    order = np.argsort(probability, kind="stable")
    means = [[v[part].mean() for v in (probability, label)] for part in np.array_split(order, 10)]
    return float(np.abs(np.diff(means)).mean())


def test_platt_recovers_slope_and_shift() -> None:
    z, y = distorted(40_000, 1)
    found = fit_calibration(z, y, method="platt")
    assert found.a == found.b == pytest.approx(0.5, abs=0.02)
    assert found.c == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize("method", ["platt", "beta"])
def test_calibrated_scores_meet_frequencies(method: str) -> None:
    z, y = distorted(20_000, 2)
    held_z, held_y = distorted(20_000, 3)
    found = fit_calibration(z, y, method=method)
    before, after = sigmoid(held_z), found.probability(held_z)
    assert gap(after, held_y) < 0.02 < gap(before, held_y)
    assert np.mean((after - held_y) ** 2) < np.mean((before - held_y) ** 2)


def test_order_is_kept_even_against_the_labels() -> None:
    z, y = distorted(2_000, 4)
    for method in ("platt", "beta"):
        found = fit_calibration(z, 1 - y, method=method)
        grid = np.linspace(-20, 20, 200)
        assert (np.diff(found.log_odds(grid)) > 0).all()


def test_identity_changes_nothing() -> None:
    z = np.linspace(-30, 30, 61)
    assert np.allclose(Calibration().log_odds(z), z)
    assert np.allclose(logit(sigmoid(z[20:41])), z[20:41])


def test_extremes_stay_finite() -> None:
    p = Calibration(2.0, 0.5, 1.0).probability(np.array([-1e4, 0.0, 1e4]))
    assert p[0] == 0.0
    assert p[2] == 1.0
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="both classes"):
        fit_calibration([0.1, 0.2], [0, 0])
    with pytest.raises(ValueError, match="finite"):
        fit_calibration([0.1, np.nan], [0, 1])
    with pytest.raises(ValueError, match="positive"):
        Calibration(a=0.0)


@pytest.mark.parametrize("floor", [None, -2.0])
def test_one_row_is_calibrated_as_many(floor: float | None) -> None:
    calibration = Calibration(1.3, 0.8, -0.4, floor)
    values = np.array([-800.0, -40.0, -2.5, 0.0, 1e-9, 3.0, 60.0, 900.0])
    found = [calibration.probability_of(float(v)) for v in values]
    np.testing.assert_allclose(found, calibration.probability(values), rtol=1e-13, atol=0)
