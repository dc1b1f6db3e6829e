"""Work shared out by cost: every sample once, and as even as the bounds of the methods say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kernels.runtime.balance import balance, share_out


@given(
    st.lists(st.floats(0, 1e6), max_size=40),
    st.integers(1, 6),
    st.sampled_from(["differences", "longest-first"]),
)
@example([5e-324], 2, "differences")  # its half is 0
def test_every_sample_goes_to_one_worker(costs, workers, method):
    sets = share_out(costs, workers, method)
    assert len(sets) == workers
    assert sorted(i for each in sets for i in each) == list(range(len(costs)))
    assert 0 < balance(costs, sets) <= 1 + 1e-12


@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=7), st.integers(2, 3))
def test_the_largest_load_keeps_its_bound(costs, workers):
    """Longest first is never worse than 4/3 - 1/(3m) of the best (Graham 1969)."""
    best = min(
        np.bincount(choice, weights=costs, minlength=workers).max()
        for choice in np.ndindex(*[workers] * len(costs))
    )
    sets = share_out(costs, workers, "longest-first")
    largest = max(sum(costs[i] for i in each) for each in sets)
    assert largest <= (4 / 3 - 1 / (3 * workers)) * best + 1e-9


@pytest.mark.parametrize("method", ["differences", "longest-first"])
def test_long_tailed_costs_are_balanced(method):
    """Ten seeds of lengths as of texts; dealt out in turn they are uneven."""
    dealt, shared = [], []
    for seed in range(10):
        costs = np.random.default_rng(seed).lognormal(5, 1, 256)
        dealt.append(balance(costs, [list(range(w, 256, 8)) for w in range(8)]))
        shared.append(balance(costs, share_out(costs, 8, method)))
    assert max(dealt) < 0.92
    assert min(shared) > 0.98


def test_differences_are_nearer_to_the_best_where_samples_are_few():
    gains = []
    for seed in range(10):
        costs = np.random.default_rng(seed).uniform(1, 2, 24)
        ways = [balance(costs, share_out(costs, 4, m)) for m in ("differences", "longest-first")]
        gains.append(ways[0] - ways[1])
    assert np.mean(gains) > 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (([1.0], 0), "at least 1"),
        (([-1.0], 2), "not negative"),
        (([float("nan")], 2), "finite"),
        (([1.0], 2, "random"), "unknown method"),
    ],
)
def test_what_cannot_be_shared_is_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        share_out(*arguments)
