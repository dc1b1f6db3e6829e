"""The benchmark prints its keys, and counts what it says it counts."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import federated


@pytest.mark.long
def test_smoke(capsys):
    federated.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "federated"
    assert result["bit_equal"]
    assert result["sums_compared"] == 2 * 2 + 2
    # Seven of ten must stay: a fourth that fails ends every round.
    assert result["right_rounds"] == [1, 1, 1, 0, 0]
    assert result["dropouts_survived"] == 0.3
    assert result["killed"] == 1


def test_a_share_counts_only_when_all_below_it_do():
    assert federated.survived([1, 1, 1, 1, 1]) == 0.5
    assert federated.survived([1, 1, 0.8, 1, 0]) == 0.2
    assert federated.survived([0.9, 1, 1, 1, 1]) == 0


def test_an_interval_is_students():
    assert federated.interval([1.0, 3.0]) == pytest.approx([2 - 12.7062, 2 + 12.7062], abs=1e-4)
    assert federated.interval([4.0]) == [4, 4]
