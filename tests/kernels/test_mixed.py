"""Eight and four bits in one file: smaller, the same kernels, as much as the answers bear."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import nn
from torch.nn import functional

from kernels.compression.export import ExportConfig, ExportError, export_onnx
from kernels.compression.mixed import MixedConfig, mix
from kernels.compression.qdq import QdqConfig, quantise
from kernels.compression.sessions import open_session


def net(grid=0):
    """Return convolutions of several kinds; with ``grid``, weights that so many levels hold."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, groups=4), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=2, dilation=2), nn.ReLU(),
        nn.Conv2d(32, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 3),
    ).eval()  # fmt: skip
    if grid:
        with torch.no_grad():
            for layer in made:
                if isinstance(layer, nn.Conv2d):
                    step = layer.weight.abs().amax((1, 2, 3), keepdim=True) / grid
                    layer.weight.copy_(torch.round(layer.weight / step) * step)
    return made


def inputs(count=12):
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(0, 1, (1, 3, 20, 20)).astype(np.float32)} for _ in range(count)]


def shift(reference, answers):
    apart = [a["y"] - b["y"] for a, b in zip(reference, answers, strict=True)]
    return float(np.sqrt(np.mean(np.square(apart))) / np.std([a["y"] for a in reference]))


def answers(model, given):
    session = open_session(model, threads=1)
    return [{"y": session.run(["y"], one)[0]} for one in given]


def files(made):
    """Return the float file, the int8 file, and the float file's answers."""
    example = torch.zeros(1, 3, 20, 20)
    whole = export_onnx(made, [example], ExportConfig(inputs=("x",), outputs=("y",)))
    config = QdqConfig(rules=("min-max",), most_float=0, threads=1)
    return whole, quantise(whole, inputs(), shift, config).model, answers(whole, inputs())


def bits(model):
    """Return the number of weights of each type in a file."""
    found = {}
    for tensor in onnx.load_model_from_string(model).graph.initializer:
        if tensor.data_type in {TensorProto.INT4, TensorProto.INT8} and len(tensor.dims) == 4:
            found[tensor.data_type] = found.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    return found


def kernels(model, folder):
    """Return what ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return sorted(n.op_type for n in onnx.load(folder / "optimised.onnx").graph.node)


def test_all_that_the_answers_bear_goes_and_the_kernels_stay(tmp_path):
    _, int8, reference = files(net())
    found = mix(int8, inputs(), reference, shift, MixedConfig(tolerance=10.0, threads=1))
    before, after = bits(int8), bits(found.model)
    assert len(found.four_bits) == 5
    assert after == {TensorProto.INT4: before[TensorProto.INT8]}
    assert kernels(found.model, tmp_path) == kernels(int8, tmp_path)
    assert found.loss_int8 < found.loss < 0.5
    assert np.isclose(shift(reference, answers(found.model, inputs())), found.loss)


def test_weights_that_4_bits_hold_lose_nothing():
    """Scales, zero points and biases are right: the answers are those of 8 bits."""
    _, int8, reference = files(net(grid=7))
    found = mix(int8, inputs(), reference, shift, MixedConfig(tolerance=10.0, threads=1))
    assert len(found.four_bits) == 5
    assert found.loss < found.loss_int8 + 0.02


def test_the_tolerance_is_kept_and_the_most_tolerant_go_first():
    _, int8, reference = files(net())
    everything = mix(int8, inputs(), reference, shift, MixedConfig(tolerance=10.0, threads=1))
    tolerance = (everything.loss - everything.loss_int8) / 2
    found = mix(int8, inputs(), reference, shift, MixedConfig(tolerance=tolerance, threads=1))
    assert 0 < len(found.four_bits) < 5
    assert found.loss <= found.loss_int8 + tolerance
    none = mix(int8, inputs(), reference, shift, MixedConfig(tolerance=0.0, threads=1))
    assert none.loss <= none.loss_int8
    assert len(found.sensitivity) == 5


def test_a_size_is_reached_and_no_more_goes():
    _, int8, reference = files(net())
    size = len(int8) - 4_000
    config = MixedConfig(tolerance=10.0, size=size, threads=1)
    found = mix(int8, inputs(), reference, shift, config)
    assert len(found.model) <= size
    assert len(found.four_bits) < 5
    with pytest.raises(ExportError, match=r"1,000 bytes cannot be reached.*only \d+,\d+"):
        mix(int8, inputs(), reference, shift, MixedConfig(tolerance=10.0, size=1_000, threads=1))
    kept = MixedConfig(tolerance=10.0, keep=found.four_bits, threads=1)
    assert not set(found.four_bits) & set(mix(int8, inputs(), reference, shift, kept).four_bits)


class TwoSizes(nn.Module):
    """A net that sees each image at its own and at half its size."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        """Return the means of both answers."""
        half = functional.avg_pool2d(x, 2)
        return self.body(x).mean((2, 3)) + self.body(half).mean((2, 3))


def test_weights_that_two_nodes_read_go_once():
    _, int8, reference = files(TwoSizes(net(grid=7)).eval())
    found = mix(int8, inputs(), reference, shift, MixedConfig(tolerance=10.0, threads=1))
    before, after = bits(int8), bits(found.model)
    assert len(found.sensitivity) == 5
    assert len(set(found.four_bits)) == 10
    assert after == {TensorProto.INT4: before[TensorProto.INT8]}
    # Both biases fit the new scales: else answers would be far away, not a rounding.
    assert found.loss < found.loss_int8 + 0.02
    second = MixedConfig(tolerance=10.0, keep=found.four_bits[1:2], threads=1)
    assert len(mix(int8, inputs(), reference, shift, second).four_bits) == 8


def test_wrong_input_is_told():
    whole, _, reference = files(net())
    with pytest.raises(ExportError, match="no layers of int8 weights"):
        mix(whole, inputs(), reference, shift)
    for settings, says in (
        ({"tolerance": -1.0}, "tolerance"), ({"size": -1}, "size"),
        ({"ranking_inputs": 0}, "ranking_inputs"), ({"threads": 0}, "threads"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            MixedConfig(**settings)
