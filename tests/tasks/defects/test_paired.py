"""Two detectors on the same parts: the figures, and how often equals are told apart."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tasks.defects.paired import compare_paired


def line(seed, gain=0.0, parts=40, each=3):
    """Images of good and bad parts; the images of one part have much in common."""
    rng = np.random.default_rng(seed)
    bad = np.repeat(np.arange(parts) % 2 == 1, each)
    own = np.repeat(rng.normal(size=parts), each)
    names = np.repeat([f"p{i}" for i in range(parts)], each)
    scores = [own + rng.normal(size=len(bad)) * 0.5 + bad * (1 + more) for more in (gain, 0)]
    return bad, names, *scores


def test_the_figures_are_those_of_the_library():
    bad, names, first, second = line(0, gain=0.5)
    found = compare_paired(bad, names, first, second, resamples=50)
    assert found.first == pytest.approx(roc_auc_score(bad, first))
    assert found.second == pytest.approx(roc_auc_score(bad, second))
    assert found.low <= found.difference <= found.high
    assert (found.ok_parts, found.ng_parts) == (20, 20)


def test_equals_are_seldom_told_apart_and_a_better_one_mostly():
    equal = [compare_paired(*line(seed), resamples=200).low > 0 for seed in range(60)]
    better = [compare_paired(*line(seed, gain=2), resamples=200).low > 0 for seed in range(20)]
    assert sum(equal) <= 6  # 2.5 % one-sided would be 1.5
    assert sum(better) >= 18


def test_ties_count_half_and_images_of_a_part_are_one_unit():
    bad, names, first, _ = line(1)
    same = compare_paired(bad, names, np.zeros(len(bad)), first, resamples=50)
    assert same.first == 0.5
    once = compare_paired(bad[::3], names[::3], first[::3], np.zeros(len(bad))[::3], resamples=400)
    copied = np.repeat(np.arange(0, len(bad), 3), 3)
    thrice = compare_paired(
        bad[copied], names[copied], first[copied], np.zeros(len(bad)), resamples=400
    )
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, abs=1e-9)


def test_too_few_parts_and_scores_that_are_none_are_refused():
    bad, names, first, second = line(2, parts=8)
    with pytest.raises(ValueError, match="4 good parts to compare on; label at least 5"):
        compare_paired(bad, names, first, second)
    first[0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        compare_paired(bad, names, first, second)
