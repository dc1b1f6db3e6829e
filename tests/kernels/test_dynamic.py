"""Weights of 8 bits and ranges of the moment: products, LSTM, GRU; the error that is stated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kernels.compression.dynamic import DynamicConfig, quantise_dynamic
from kernels.compression.export import ExportConfig, ExportError, export_onnx
from kernels.compression.sessions import answers_to

RNG = np.random.default_rng(0)
LENGTH, WIDTH = 12, 24


class Recurrent(nn.Module):
    """A recurrence and what is read from its end."""

    def __init__(self, kind):
        super().__init__()
        self.cells = kind(WIDTH, 48, batch_first=True)
        self.head = nn.Linear(48, 3)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


def exported(kind):
    torch.manual_seed(0)
    config = ExportConfig(inputs=("x",), outputs=("y",))
    return export_onnx(Recurrent(kind).eval(), [torch.zeros(1, LENGTH, WIDTH)], config)


def inputs(count=8, scale=1.0):
    return [
        {"x": (scale * RNG.normal(0, 1, (1, LENGTH, WIDTH))).astype(np.float32)}
        for _ in range(count)
    ]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU], ids=["lstm", "gru"])
def test_recurrent_nets_become_smaller_with_the_error_that_is_stated(kind):
    whole = exported(kind)
    fed = inputs()
    made = quantise_dynamic(whole, fed, DynamicConfig(threads=1))
    before = np.concatenate([one["y"] for one in answers_to(whole, fed, threads=1)])
    after = np.concatenate([one["y"] for one in answers_to(made.model, fed, threads=1)])
    error = np.sqrt(np.mean((after - before) ** 2)) / before.std()
    assert made.error["y"] == pytest.approx(error, rel=1e-5)
    assert made.largest["y"] == pytest.approx(np.abs(after - before).max(), rel=1e-5)
    assert 0 < made.error["y"] < 0.1
    assert len(made.model) < 0.36 * len(whole)
    assert made.operators == {"MatMulInteger": 1} | (
        {"DynamicQuantizeLSTM": 1} if kind is nn.LSTM else {}
    )
    assert len(made.stored) == (kind is nn.GRU)


def test_inputs_of_another_size_need_no_other_ranges():
    whole = exported(nn.LSTM)
    made = quantise_dynamic(whole, inputs(scale=100.0), DynamicConfig(threads=1))
    assert made.error["y"] < 0.1


def test_what_cannot_be_done_is_said_before_any_work():
    whole = exported(nn.LSTM)
    with pytest.raises(ExportError, match="missing"):
        quantise_dynamic(whole, [])
    spoilt = inputs(2)
    spoilt[1]["x"][0, 0, 0] = np.nan
    with pytest.raises(ExportError, match="input 1: x holds NaN"):
        quantise_dynamic(whole, spoilt)
    with pytest.raises(ExportError, match=r"x is \[1, 5, 24\], the file wants \[1, 12, 24\]"):
        quantise_dynamic(whole, [{"x": np.zeros((1, 5, 24), np.float32)}])
    with pytest.raises(ExportError, match=r"names \['z'\], the file \['x'\]"):
        quantise_dynamic(whole, [{"z": np.zeros((1, 12, 24), np.float32)}])
    config = ExportConfig(inputs=("x",), outputs=("y",))
    conv = export_onnx(nn.Conv2d(3, 4, 3).eval(), [torch.zeros(1, 3, 8, 8)], config)
    with pytest.raises(ExportError, match="static ranges"):
        quantise_dynamic(conv, [{"x": np.zeros((1, 3, 8, 8), np.float32)}])
