"""A small net that decides, as an ONNX file, with examples of its inputs."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from kernels.compression.export import ExportConfig, export_onnx
from tasks.compress.onnx_subject import OnnxSubject

WIDTH = 64


def file_and_items(count: int = 64, seed: int = 0) -> tuple[bytes, list[dict[str, np.ndarray]]]:
    """Return a float file with two wide layers, and inputs of single items."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(WIDTH, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4)
    ).eval()
    config = ExportConfig(inputs=("rows",), outputs=("logits",))
    model = export_onnx(net, (torch.zeros(1, WIDTH),), config)
    rng = np.random.default_rng(seed)
    items = [{"rows": rng.standard_normal((1, WIDTH)).astype(np.float32)} for _ in range(count)]
    return model, items


def subject(count: int = 64) -> OnnxSubject:
    """Return the net as a plan sees it."""
    model, items = file_and_items(count)
    return OnnxSubject(name="small", model=model, items=items)
