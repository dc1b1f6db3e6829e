"""Triton's CSR sum in a process of its own, where its interpreter is switched on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

CODE = """
import torch
from kernels.ops.graph import CsrGraph, aggregate

torch.manual_seed(0)
ends = [torch.randint(0, n, (40,)) for n in (7, 9)]
graph = CsrGraph(torch.stack(ends), 7, 11)
x = torch.randn(7, 70, dtype=torch.float64, requires_grad=True)
weight = torch.randn(40, dtype=torch.float64, requires_grad=True)
for reduce in ("sum", "mean"):
    for given in ((x,), (x, weight)):
        found = aggregate(graph, *given, reduce=reduce, backend="triton")
        wanted = aggregate(graph, *given, reduce=reduce, backend="reference")
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
        gradients = (torch.autograd.grad((r ** 3).sum(), given) for r in (found, wanted))
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
narrow = x.detach()[:, :2].contiguous().requires_grad_()
assert torch.autograd.gradcheck(
    lambda *t: aggregate(graph, *t, reduce="mean", backend="triton"), (narrow, weight)
)
empty = CsrGraph(torch.zeros((2, 0), dtype=torch.int64), 7, 3)
assert not aggregate(empty, x, backend="triton").any()
print("ok")
"""


def test_sums_equal_the_reference():
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip().endswith("ok"), done.stderr
