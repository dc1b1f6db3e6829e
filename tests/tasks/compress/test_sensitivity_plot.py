"""Losses and bytes of each layer: the numbers are those of the files, the drawing shows them."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from kernels.compression.export import ExportConfig, ExportError, export_onnx
from kernels.compression.qdq import QdqConfig, quantise
from kernels.compression.sensitivity import LayerSensitivity, measure_sensitivity
from tasks.compress.sensitivity_plot import sensitivity_plot

SETTINGS = QdqConfig(rules=("min-max",), threads=1, ranking_inputs=8, tolerance=0.0)


def exported():
    """Return a net whose middle layer has one channel far larger than the others."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)
    ).eval()  # fmt: skip
    with torch.no_grad():
        net[2].weight[0] *= 300
        net[4].weight[:, 0] /= 300
    config = ExportConfig(inputs=("x",), outputs=("y",))
    return export_onnx(net, [torch.zeros(1, 3, 12, 12)], config)


def inputs():
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(0, 1, (1, 3, 12, 12)).astype(np.float32)} for _ in range(8)]


def shift(reference, answers):
    apart = [a["y"] - b["y"] for a, b in zip(reference, answers, strict=True)]
    return float(np.sqrt(np.mean(np.square(apart))) / np.std([a["y"] for a in reference]))


def test_numbers_are_those_by_which_files_are_made():
    file, fed = exported(), inputs()
    found = measure_sensitivity(file, fed, shift, SETTINGS)
    by_quantiser = quantise(file, fed, shift, SETTINGS).sensitivity
    assert {one.layer: one.loss_int8 for one in found} == pytest.approx(by_quantiser)
    assert [one.weights for one in found] == [216, 1152, 576]
    assert [one.saved_int8 for one in found] == [648, 3456, 1728]
    assert [one.saved_int4 for one in found] == [108, 576, 288]
    # What the wide channel spoils is the range of the layers that give and take it.
    assert min(found[1].loss_int8, found[2].loss_int8) > 2 * found[0].loss_int8
    assert found[0].loss_int4 > 2 * found[0].loss_int8
    assert all(one.loss_int4 > 0 for one in found)


def test_the_drawing_names_every_layer_and_leaves_out_what_cannot_be():
    layers = [
        LayerSensitivity("first", "Conv", 100, 0.1, 0.3, 300, 50),
        LayerSensitivity("shared", "Conv", 100, 0.2, math.nan, 300, 0),
        LayerSensitivity("a/" * 40 + "last", "Gemm", 4000, math.inf, 0.02, 12000, 2000),
    ]
    svg = sensitivity_plot(layers).render()
    for word in ("first", "shared", "last", "11.7 + 2.0 KiB", "0.3 KiB<"):
        assert word in svg
    assert svg.count('class="bits8"') == 3
    assert svg.count('class="bits4"') == 2
    widths = [float(one) for one in re.findall(r'<rect[^>]* width="([0-9.]+)"', svg)]
    assert max(widths) == widths[1] == widths[3] == pytest.approx(300), "infinity fills the row"
    assert widths[0] == pytest.approx(100)
    assert layers[0].as_dict()["loss_int4"] == 0.3


def test_small_losses_have_ticks_of_their_own():
    svg = sensitivity_plot([LayerSensitivity("only", "Conv", 9, 0.004, 0.005, 27, 4)]).render()
    assert all(f">{tick}</text>" in svg for tick in ("0.001", "0.003", "0.005"))


def test_nothing_to_measure_or_draw_is_said():
    with pytest.raises(ValueError, match="no layers"):
        sensitivity_plot([])
    with pytest.raises(ExportError, match="missing"):
        measure_sensitivity(exported(), [], shift, SETTINGS)
