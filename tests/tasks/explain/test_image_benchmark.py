"""The benchmark of image maps runs at its smallest size, and its measures are what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.benchmarks import shap_image
from tests.benchmarks._image_maps import curves, mask_iou, pointing


@pytest.mark.long
def test_smallest_size(capsys):
    shap_image.main(["--smoke", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found.keys() >= {"iou", "pointing", "deletion_auc", "insertion_auc", "ms"}
    assert found["classes"].keys() >= {"players", "grad_cam", "occlusion", "occlusion_fine"}
    assert found["detector"].keys() >= {"exact_map", "heat"}
    assert found["gap_max"] < 1e-6
    assert found["detector"]["exact_map"]["gap"] < 1e-6


def test_without_data_it_is_skipped_with_a_word(capsys, monkeypatch):
    monkeypatch.delenv("PENSTOCK_DATA", raising=False)
    shap_image.main([])
    assert "--data or PENSTOCK_DATA" in capsys.readouterr().out


def test_measures_tell_a_right_map_from_a_wrong_one():
    mask = np.zeros((16, 16), dtype=bool)
    mask[4:8, 4:8] = True
    image = np.where(mask, 1.0, 0.0).astype(np.float32)[None]
    right, wrong = mask.astype(float), (~mask).astype(float)
    assert (mask_iou(right, mask), pointing(right, mask)) == (1.0, 1.0)
    assert (mask_iou(wrong, mask), pointing(wrong, mask)) == (0.0, 0.0)
    assert pointing(np.ones((16, 16)), mask) == mask.mean()

    def lit(images):
        return images[:, 0, mask].mean(axis=1).astype(np.float64)

    for fill in ("blur", "mean"):
        deleted, inserted = curves(lit, image, right, fill)
        deleted_wrong, inserted_wrong = curves(lit, image, wrong, fill)
        assert deleted < deleted_wrong
        assert inserted > inserted_wrong


def test_intervals_are_those_of_student():
    mean, low, high = shap_image.interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert (low, high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)
