"""Counts of `topk` that depend on an image's size, in files for images of any size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kernels.compression.export import ExportConfig, ExportError, export_onnx
from kernels.compression.sessions import open_session

CONFIG = ExportConfig(inputs=("x",), outputs=("y",), dynamic={"x": {1: ("length", 6, 4096)}})


class Highest(nn.Module):
    """Means of the highest, [n, 2]: some of every fourth number, and a twentieth of all."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        """Return the means."""
        few, length = x[:, ::4], x.shape[1]
        some = few.topk(min(7, few.shape[1]), dim=1).values.mean(dim=1)
        share = x.topk(min(self.part(length), length), dim=1).values.mean(dim=1)
        return torch.stack([some, share], dim=1)


def test_counts_follow_the_size():
    net = Highest(lambda length: (length + 19) // 20).eval()
    session = open_session(export_onnx(net, [torch.zeros(2, 46)], CONFIG), threads=1)
    for length in (6, 19, 20, 21, 46, 400, 1001):
        x = torch.randn(2, length, generator=torch.Generator().manual_seed(length))
        (found,) = session.run(None, {"x": x.numpy()})
        assert torch.allclose(torch.from_numpy(found), net(x), atol=1e-6)


def test_other_computed_counts_are_refused():
    net = Highest(lambda length: (2 * length + 3) // 40).eval()
    with pytest.raises(ExportError, match=r"give min\(count, length\) or min\(\(length"):
        export_onnx(net, [torch.zeros(2, 46)], CONFIG)
