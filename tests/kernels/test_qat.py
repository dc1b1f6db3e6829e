"""Training on the grid of a quantised file: the net in torch is the file, before and after."""

from __future__ import annotations

import copy
import functools

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from kernels.compression.distillation import DistillationConfig, Learner
from kernels.compression.export import ExportConfig, ExportError, export_onnx
from kernels.compression.fake_quantisation import FakeQuantise
from kernels.compression.mixed import MixedConfig, mix
from kernels.compression.qat import QatConfig, QuantisedNet
from kernels.compression.qdq import QdqConfig, quantise
from kernels.compression.sessions import answers_to
from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import run
from tests.benchmarks._patches import Patches

SIDE = 32


class Mixed(nn.Module):
    """Residual, depthwise, clipped, pooled, dense: what exported nets are made of."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.deep = nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False)
        self.norm_2 = nn.BatchNorm2d(16)
        self.point, self.pool = nn.Conv2d(16, 16, 1), nn.MaxPool2d(3, 2, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.pool(torch.relu(self.norm(self.first(x))))
        y = self.point(functional.relu6(self.norm_2(self.deep(x))))
        return self.head(torch.relu(x + y).mean((2, 3)))


@functools.cache
def made(kind, batch="batch"):
    """Return net, float file, int8 file and the inputs that set its ranges."""
    torch.manual_seed(0)
    net = (Mixed() if kind == "convolutions" else Patches(5, 32, 2, 1)).eval()
    dynamic = {"x": {0: (batch, 1, 512)}} if batch else {}
    config = ExportConfig(inputs=("x",), outputs=("y",), dynamic=dynamic)
    whole = export_onnx(net, [torch.randn(2, 3, SIDE, SIDE)], config)
    settings = QdqConfig(rules=("min-max",), most_float=0, threads=1, whole=True)
    fed = [{"x": torch.randn(2, 3, SIDE, SIDE).numpy()} for _ in range(8)]
    return net, whole, quantise(whole, fed, shift, settings).model, fed


def shift(reference, answers):
    apart = [a["y"] - b["y"] for a, b in zip(reference, answers, strict=True)]
    return float(np.sqrt(np.mean(np.square(apart))) / np.std([a["y"] for a in reference]))


def file_answers(file, x):
    return answers_to(file, [{"x": x.numpy()}], threads=1)[0]["y"]


def images(count=32):
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(9))


def trained(net, batches, steps, loss, rate=1e-2):
    config = RunConfig(steps=steps, optimizer=OptimizerConfig(learning_rate=rate))
    run(net, batches, loss, config)


def towards(target):
    def loss(net, batch):
        return (net(batch) - target(batch)).square().mean(1).sum(), len(batch)

    return loss


@pytest.mark.parametrize(
    "kind", ["convolutions", pytest.param("transformer", marks=pytest.mark.long)]
)
def test_the_net_is_the_file_before_and_after_training(kind):
    net, whole, int8, _ = made(kind)
    grid = QuantisedNet(int8, float_file=whole).eval()
    x = images()
    spread = float(file_answers(whole, x).std())
    with torch.no_grad():
        np.testing.assert_allclose(grid(x).numpy(), file_answers(int8, x), atol=0.03 * spread)
    target = copy.deepcopy(net)
    with torch.no_grad():
        target.head.weight.mul_(1.5)

    def answer(batch):
        with torch.no_grad():
            return target(batch)

    before = file_answers(int8, x) - answer(x).numpy()
    trained(grid, lambda _: x, 30, towards(answer), rate=1e-2 if kind == "convolutions" else 1e-3)
    after = file_answers(grid.to_file(), x)
    with torch.no_grad():
        ours = grid(x)
    assert np.square(after - answer(x).numpy()).mean() < 0.7 * np.square(before).mean()
    assert np.array_equal(after.argmax(1), ours.argmax(1).numpy())
    # A rounding of the float32 sums may turn one step somewhere, no more.
    np.testing.assert_allclose(ours.numpy(), after, atol=0.03 * spread)


def test_the_same_places_of_the_file_are_filled_and_nothing_else():
    _, whole, int8, _ = made("convolutions")
    grid = QuantisedNet(int8, float_file=whole)
    trained(grid, lambda _: images(8), 2, towards(lambda x: torch.ones(len(x), 5)))
    before, after = (onnx.load_model_from_string(f).graph for f in (int8, grid.to_file()))
    assert [n.SerializeToString() for n in before.node] == [
        n.SerializeToString() for n in after.node
    ]
    kinds = [[(t.name, t.data_type, list(t.dims)) for t in g.initializer] for g in (before, after)]
    assert kinds[0] == kinds[1]
    weights = [onnx.numpy_helper.to_array(t) for t in after.initializer if t.data_type == 3]
    assert max(int(np.abs(w.astype(np.int32)).max()) for w in weights if w.ndim == 4) <= 64


def test_four_bits_are_trained_where_they_are():
    _, _, int8, fed = made("convolutions")
    # What the file answers is judged: its first answers are the reference.
    mixed = mix(
        int8, fed, answers_to(int8, fed, threads=1), shift, MixedConfig(tolerance=9.0, threads=1)
    )
    assert mixed.four_bits
    grid = QuantisedNet(mixed.model).eval()
    x = images()
    with torch.no_grad():
        spread = float(grid(x).std())
        np.testing.assert_allclose(
            grid(x).numpy(), file_answers(mixed.model, x), atol=0.05 * spread
        )
        wanted = torch.from_numpy(file_answers(int8, x))
    before = np.square(file_answers(mixed.model, x) - wanted.numpy()).mean()
    trained(grid, lambda _: x, 30, towards(lambda _: wanted), rate=3e-3)
    file = grid.to_file()
    assert len(file) <= 1.01 * len(mixed.model)
    assert np.square(file_answers(file, x) - wanted.numpy()).mean() < 0.7 * before


def test_a_schedule_goes_down_to_the_grid_and_stays_there():
    _, whole, int8, fed = made("convolutions")
    stages = QatConfig(stages=((32, 2), (16, 2)))
    grid = QuantisedNet(int8, stages, float_file=whole).train()
    x, seen = torch.from_numpy(fed[0]["x"]), []  # within the ranges
    with torch.no_grad():
        exact = torch.from_numpy(file_answers(whole, x))
        apart = []
        for _ in range(6):
            seen.append(grid.parts)
            apart.append(float((grid(x) - exact).abs().max()))
    assert seen == [0, 0, 256, 256, 1, 1]
    assert apart[0] < 0.01 * apart[4]
    assert apart[2] < 0.1 * apart[4]
    # The count is a part of the state, so that a run goes on where it stopped.
    other = QuantisedNet(int8, stages, float_file=whole).train()
    other.load_state_dict(grid.state_dict())
    assert other.parts == 1
    assert QuantisedNet(int8, stages).eval().parts == 1


def test_the_float_net_repairs_what_rounding_broke():
    net, whole, int8, _ = made("convolutions")
    grid = QuantisedNet(int8, float_file=whole)
    with torch.no_grad():
        for name, weight in grid.weights.items():
            if name.endswith("_quantized"):
                weight.mul_(1.3)
    x = images()
    learner = Learner(grid, net, x[:2], DistillationConfig(labels=0.0, answers=1.0, temperature=1))

    def unlabelled(answers, batch):
        return answers.sum() * 0, len(batch[0])

    exact = net(x).detach().numpy()
    before = np.abs(file_answers(grid.to_file(), x) - exact).mean()
    trained(learner, lambda _: (x,), 30, learner.loss(unlabelled), rate=3e-3)
    assert np.abs(file_answers(grid.to_file(), x) - exact).mean() < 0.8 * before


def test_gradients_are_those_of_the_paper():
    """Esser et al. 2020, equation 3: round(v) - v inside, the end of the grid outside."""
    x = torch.tensor([-9.0, -0.3, 0.3, 1.4, 9.0], dtype=torch.float64, requires_grad=True)
    one = FakeQuantise(torch.tensor(0.5), torch.tensor(0), -4, 3).double()
    weight = (1 / (x.numel() * 3)) ** 0.5
    one(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    v = np.array([-0.3, 0.3, 1.4]) / 0.5
    by_step = -4 + 3 + float((np.round(v) - v).sum())
    # Of the logarithm of the step: times the step.
    assert one.growth.grad.item() == pytest.approx(by_step * weight * 0.5)


def test_what_cannot_be_trained_is_said():
    _, whole, int8, _ = made("convolutions")
    with pytest.raises(ExportError, match="no rounded weights"):
        QuantisedNet(whole)
    _, _, fixed, _ = made("convolutions", batch="")
    with pytest.raises(ExportError, match="fixed first size of 2"):
        QuantisedNet(fixed)
    graph = onnx.load_model_from_string(int8)
    graph.graph.node[-1].op_type = "Loop"
    with pytest.raises(ExportError, match="does not know Loop"):
        QuantisedNet(graph.SerializeToString())
    with pytest.raises(ValueError, match="stage"):
        QatConfig(stages=((4, 10),))
    with pytest.raises(ValueError, match="not above 0"):
        FakeQuantise(torch.tensor(0.0), torch.tensor(0), 0, 255)
