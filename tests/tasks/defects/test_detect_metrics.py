"""AUROC and AUPRO against slow definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from tasks.defects.detect.metrics import auroc, heat_metrics, resized


def slow_auroc(scores, truth):
    good, bad = scores[~truth], scores[truth]
    return np.mean((bad[:, None] > good) + 0.5 * (bad[:, None] == good))


def slow_aupro(heats, masks):
    regions, good = [], []
    for heat, mask in zip(heats, masks, strict=True):
        named, count = label(mask, structure=np.ones((3, 3)))
        regions += [heat[named == number] for number in range(1, count + 1)]
        good.append(heat[~mask])
    good = np.concatenate(good)
    levels = np.r_[np.inf, np.unique(np.concatenate([h.ravel() for h in heats]))[::-1]]
    x = np.array([np.mean(good >= level) for level in levels])
    y = np.array([np.mean([np.mean(r >= level) for r in regions]) for level in levels])
    grid = np.linspace(0, 0.3, 20_001)
    return float(np.trapezoid(np.interp(grid, x, y), grid) / 0.3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30))
def test_auroc_counts_pairs_and_halves_ties(rows):
    scores = np.array([score for score, _ in rows], float)
    truth = np.array([bad for _, bad in rows])
    if truth.all() or not truth.any():
        with pytest.raises(ValueError, match="at least one of each"):
            auroc(scores, truth)
    else:
        assert auroc(scores, truth) == pytest.approx(slow_auroc(scores, truth))


def test_heat_metrics_agree_with_their_definitions():
    rng = np.random.default_rng(3)
    masks = [np.zeros((40, 30), bool) for _ in range(4)]
    masks[0][2:6, 3:9] = masks[0][20:35, 10:12] = masks[2][0:3, 0:3] = True
    heats = [(rng.random((40, 30)) + 0.7 * mask).astype(np.float32) for mask in masks]
    pixel, aupro = heat_metrics(heats, masks)
    flat = np.concatenate([h.ravel() for h in heats]), np.concatenate([m.ravel() for m in masks])
    assert pixel == pytest.approx(slow_auroc(*flat), abs=5e-4)
    assert aupro == pytest.approx(slow_aupro(heats, masks), abs=3e-3)


def test_small_defects_count_as_much_as_large_ones_in_aupro_alone():
    mask = np.zeros((50, 50), bool)
    mask[:20, :20] = mask[40:42, 40:42] = True
    heat = mask.astype(np.float32)
    heat[40:42, 40:42] = 0  # the small one is missed
    pixel, aupro = heat_metrics([heat], [mask])
    assert pixel > 0.99
    assert 0.4 < aupro < 0.65


def test_maps_of_another_size_are_brought_to_the_mask():
    mask = np.zeros((32, 48), bool)
    mask[8:16, 8:16] = True
    heat = np.zeros((8, 12), np.float32)
    heat[2:4, 2:4] = 1
    assert resized(heat, mask.shape).shape == mask.shape
    assert heat_metrics([heat], [mask])[0] > 0.99


def test_metrics_say_what_is_missing():
    with pytest.raises(ValueError, match="at least one defect"):
        heat_metrics([np.zeros((8, 8), np.float32)], [np.zeros((8, 8), bool)])
    with pytest.raises(ValueError, match="1 heat maps but 0 masks"):
        heat_metrics([np.zeros((8, 8), np.float32)], [])
