"""Triton's kernels in a process of its own, where its interpreter is switched on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import unmeasured

pytest.importorskip("triton")

CODE = """
import torch
from kernels.ops.graph import CsrGraph, aggregate
from kernels.ops.graph.edge_softmax import gat_attention, gatv2_attention

torch.manual_seed(0)


def same(operate, *given):
    results = [operate(*given, backend=backend) for backend in ("triton", "reference")]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad((r ** 3).sum(), given) for r in results)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def drawn(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


# Node 3 has more edges than a program takes at a time, nodes 9 and 10 have none.
ends = torch.stack([torch.randint(0, n, (64,)) for n in (7, 9)])
ends[:, :45] = torch.where(torch.arange(45) % 9 > 0, 3, ends[:, :45])
graph = CsrGraph(ends, 7, 11)
x, weight = drawn(7, 70), drawn(64)
for reduce in ("sum", "mean"):
    for given in ((x,), (x, weight)):
        same(lambda *t, backend: aggregate(graph, *t, reduce=reduce, backend=backend), *given)
wide = drawn(7, 200)
same(lambda t, w, backend: aggregate(graph, t[:, 50:], w, backend=backend), wide, weight)
narrow = drawn(7, 2)
assert torch.autograd.gradcheck(
    lambda *t: aggregate(graph, *t, reduce="mean", backend="triton"), (narrow, weight)
)
for heads, channels in ((1, 3), (3, 5), (2, 16)):
    scores = drawn(7, heads), drawn(11, heads)
    same(lambda *t, backend: gat_attention(graph, *t, backend=backend),
         drawn(7, heads, channels), *scores)
    same(lambda *t, backend: gatv2_attention(graph, *t, backend=backend),
         drawn(7, heads, channels), drawn(11, heads, channels), drawn(heads, channels))
large = [t.detach() * 300 for t in scores]
found = gat_attention(graph, drawn(7, 2, 16).detach(), *large, backend="triton")
assert found.isfinite().all()
for wrong in (float("nan"), float("inf"), float("-inf"), -1e31):
    given = drawn(7, 2, 3).detach(), drawn(7, 2).detach(), drawn(11, 2).detach()
    given[1][3, 1] = wrong
    pair = [gat_attention(graph, *given, backend=b) for b in ("triton", "reference")]
    torch.testing.assert_close(*pair, equal_nan=True)
    both = drawn(7, 2, 3).detach(), drawn(11, 2, 3).detach(), drawn(2, 3).detach()
    both[0][3, 1, 0] = wrong
    pair = [gatv2_attention(graph, *both, backend=b) for b in ("triton", "reference")]
    assert torch.equal(pair[0].isfinite().all(2), pair[1].isfinite().all(2))
empty = CsrGraph(torch.zeros((2, 0), dtype=torch.int64), 7, 3)
assert not aggregate(empty, x, backend="triton").any()
assert not gat_attention(empty, drawn(7, 2, 3), drawn(7, 2), drawn(3, 2), backend="triton").any()
print("ok")
"""


@pytest.mark.long
def test_triton_equals_the_reference():
    root = Path(__file__).resolve().parents[3]
    environment = unmeasured() | {"TRITON_INTERPRET": "1"}  # coverage would double its time
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip().endswith("ok"), done.stderr
