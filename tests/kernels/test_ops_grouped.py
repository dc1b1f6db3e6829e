"""Grouped means and errors against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.ops.grouped import grouped_mean_and_error


@pytest.mark.parametrize("models", [1, 2, 5])
@pytest.mark.parametrize("source", ["machine code", "python"])
def test_means_and_errors_equal_numpy(models, source):
    call = grouped_mean_and_error
    call = call if source == "machine code" else call.py_func
    rng = np.random.default_rng(models)
    values = rng.normal(size=(models, 12))
    group = rng.integers(0, 4, 12)
    variance = rng.random(5)
    mean, error, single = call(values, variance, group, 5)
    sums = np.stack([values[:, group == g].sum(axis=1) for g in range(5)], axis=1)
    np.testing.assert_allclose(mean, sums.mean(axis=0), atol=1e-12)
    wanted = sums.var(axis=0, ddof=1) / models if models > 1 else np.zeros(5)
    np.testing.assert_allclose(error, np.sqrt(wanted + variance), atol=1e-12)
    np.testing.assert_allclose(single, values.mean(axis=0), atol=1e-12)
