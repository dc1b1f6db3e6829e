"""Aggregation on every backend against plain torch: values, gradients, odd graphs, bad input."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.ops.graph import CsrGraph, aggregate, pool_messages
from kernels.ops.graph import threads as sharing

REDUCTIONS = ("sum", "mean", "max", "min")
BACKENDS = ("cpu", "reference")


def random_graph(seed: int, n_src: int, n_dst: int, edges: int) -> CsrGraph:
    """Return a graph with duplicates; the last target and the last source have no edges."""
    draw = torch.Generator().manual_seed(seed)
    source = torch.randint(0, max(n_src - 1, 1), (edges,), generator=draw)
    target = torch.randint(0, max(n_dst - 1, 1), (edges,), generator=draw)
    return CsrGraph(torch.stack([source, target]), n_src, n_dst)


def inputs(graph: CsrGraph, width: int, *, weighted: bool, seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(graph.n_src, width, dtype=torch.float64, generator=draw, requires_grad=True)
    shape = (graph.n_edges,)
    weight = torch.randn(shape, dtype=torch.float64, generator=draw, requires_grad=True)
    return [x, weight] if weighted else [x]


def test_rows_keep_the_order_of_their_edges():
    edge_index = torch.tensor([[2, 0, 2, 1, 2], [1, 0, 1, 1, 0]])
    graph = CsrGraph(edge_index, 3, 3)
    assert graph.csr.indptr.tolist() == [0, 2, 5, 5]
    assert graph.csr.indices.tolist() == [0, 2, 2, 2, 1]
    assert graph.csr.edge.tolist() == [1, 4, 0, 2, 3]
    assert graph.csc.indptr.tolist() == [0, 1, 2, 5]
    assert graph.csc.indices.tolist() == [0, 1, 0, 1, 1]
    assert graph.csc.edge.tolist() == [0, 4, 1, 2, 3]
    assert graph.csc is graph.csc
    assert graph.csr.indices.dtype == graph.csc.edge.dtype == torch.int32
    assert "n_edges=5" in repr(graph)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_values_and_gradients(backend, reduce, weighted):
    graph = random_graph(1, 7, 11, 60)
    tensors = inputs(graph, 5, weighted=weighted)
    wanted = aggregate(graph, *tensors, reduce=reduce, backend="reference")
    found = aggregate(graph, *tensors, reduce=reduce, backend=backend)
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
    assert not found[-1].any()
    assert torch.autograd.gradcheck(
        lambda *t: aggregate(graph, *t, reduce=reduce, backend=backend), tensors
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), n_src=st.integers(1, 6), n_dst=st.integers(1, 6),
    edges=st.integers(0, 30), width=st.integers(0, 9), reduce=st.sampled_from(REDUCTIONS),
    weighted=st.booleans(), single=st.booleans(),
)  # fmt: skip
def test_any_graph(seed, n_src, n_dst, edges, width, reduce, weighted, single):
    graph = random_graph(seed, n_src, n_dst, edges)
    tensors = inputs(graph, width, weighted=weighted, seed=seed)
    if single:
        tensors = [t.detach().float().requires_grad_() for t in tensors]
    results = []
    for backend in BACKENDS:
        out = aggregate(graph, *tensors, reduce=reduce, backend=backend)
        results.append((out, *torch.autograd.grad((out**2).sum(), tensors)))
    tolerance = 1e-4 if single else 1e-12
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def test_inputs_need_not_be_contiguous():
    graph = random_graph(2, 9, 8, 40)
    wide = torch.randn(5, 18, dtype=torch.float64)
    x = wide.t()[::2].requires_grad_()
    weight = torch.randn(40, 2, dtype=torch.float64)[:, 1]
    for reduce in REDUCTIONS:
        found = aggregate(graph, x, weight, reduce=reduce)
        wanted = aggregate(graph, x.contiguous(), weight.clone(), reduce=reduce)
        assert torch.equal(found, wanted)
        sliced = torch.randn(8, 10, dtype=torch.float64)[:, ::2]
        (gradient,) = torch.autograd.grad(found, x, sliced)
        (plain,) = torch.autograd.grad(wanted, x, sliced.contiguous())
        assert torch.equal(gradient, plain)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_gradients_nobody_asks_for_are_not_computed(reduce, monkeypatch):
    from kernels.ops.graph import sums

    graph = random_graph(3, 9, 8, 40)
    x, weight = inputs(graph, 3, weighted=True)
    out = aggregate(graph, x, weight.detach(), reduce=reduce)
    for name in ("weight_gradient", "extreme_weight_gradient"):
        monkeypatch.setattr(sums, name, None)
    out.sum().backward()
    assert x.grad is not None
    monkeypatch.undo()
    out = aggregate(graph, x.detach(), weight, reduce=reduce)
    for name in ("sum_rows", "extreme_gradient"):
        monkeypatch.setattr(sums, name, None)
    out.sum().backward()
    assert weight.grad is not None
    assert not aggregate(graph, x.detach(), reduce=reduce, backend="reference").requires_grad


@pytest.mark.parametrize("reduce", ["max", "min"])
def test_the_first_of_equal_messages_wins(reduce):
    graph = CsrGraph(torch.tensor([[1, 0, 2], [0, 0, 0]]), 3, 1)
    x = torch.ones(3, 2, requires_grad=True)
    aggregate(graph, x, reduce=reduce).sum().backward()
    assert x.grad.tolist() == [[0, 0], [1, 1], [0, 0]]


def test_nan_is_not_swallowed():
    graph = CsrGraph(torch.tensor([[0, 1, 2], [0, 0, 0]]), 3, 1)
    x = torch.tensor([[1.0], [torch.nan], [2.0]])
    for reduce in REDUCTIONS:
        assert aggregate(graph, x, reduce=reduce).isnan().all()
    pooled = pool_messages(graph, x, torch.zeros(3, 1), torch.zeros(1, 1))
    assert pooled.isnan().any()


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_any_number_of_threads_gives_the_same_bits(reduce, monkeypatch):
    monkeypatch.setattr(sharing, "WORTH", 1)
    graph = random_graph(4, 50, 60, 900)
    tensors = [t.detach().float().requires_grad_() for t in inputs(graph, 7, weighted=True)]
    attributes = torch.randn(900, 2)
    seen = []
    before = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            out = aggregate(graph, *tensors, reduce=reduce)
            along = torch.linspace(-1, 1, 14).reshape(7, 2).requires_grad_()
            pooled = pool_messages(graph, tensors[0], attributes, along)
            loss = (out**2).sum() + (pooled**3).sum()
            seen.append((out, pooled, *torch.autograd.grad(loss, [*tensors, along])))
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


def test_parts_hold_equal_work_and_every_row_once(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(sharing, "PARTS", 1)
    indptr = torch.tensor([0, 600_000, 600_000, 700_000, 800_000, 900_000]).numpy()
    assert sharing.by_edges(indptr, 4) == [0, 1, 1, 5]  # a row is one thread's
    assert sharing.by_edges(indptr[:1], 4) == [0, 0]
    assert sharing.by_columns(2, 10**9) == [0, 1, 2]
    assert sharing.by_columns(7, 10) == [0, 7]


def test_a_failing_thread_fails_the_call():
    def part(start, stop):
        done.append(start)
        if start:
            raise RuntimeError(f"part {start}")

    done = []
    sharing.share(part, [0, 1])
    assert done == [0]
    with pytest.raises(RuntimeError, match="part 1"):
        sharing.share(part, [0, 1, 2])


def test_the_backend_chosen_is_logged_and_a_missing_one_refused(caplog):
    graph = random_graph(5, 4, 4, 9)
    x = torch.zeros(4, 2)
    with caplog.at_level(logging.DEBUG, "kernels.ops.graph.backend"):
        aggregate(graph, x)
    assert "aggregate runs on cpu" in caplog.text
    with pytest.raises(ValueError, match="unknown backend 'cuda'"):
        aggregate(graph, x, backend="cuda")
    with pytest.raises(ValueError, match="backend 'triton' cannot run on cpu"):
        aggregate(graph, x, reduce="max", backend="triton")


def test_wrong_edges_are_refused():
    edges = torch.tensor([[0, 1], [0, 1]])
    with pytest.raises(ValueError, match=r"must be \[2, edges\]"):
        CsrGraph(edges.flatten(), 2, 2)
    with pytest.raises(ValueError, match=r"int64 or int32.*use edge_index.long"):
        CsrGraph(edges.float(), 2, 2)
    with pytest.raises(ValueError, match="sources reach from 0 to 1, but there are 1"):
        CsrGraph(edges, 1, 2)
    with pytest.raises(ValueError, match="targets reach from -1 to 1"):
        CsrGraph(torch.tensor([[0, 1], [-1, 1]]), 2, 2)
    with pytest.raises(ValueError, match="split the graph"):
        CsrGraph(edges, 2**31, 2)
    with pytest.raises(ValueError, match="split the graph"):
        CsrGraph(edges[:, :1].expand(2, 2**31), 2, 2)


def test_wrong_tensors_are_refused():
    graph = random_graph(6, 4, 5, 9)
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"x must be \[4, F\].*got \[5, 2\]"):
        aggregate(graph, torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"weight must be \[9\].*got \[4\]"):
        aggregate(graph, x, torch.zeros(4))
    with pytest.raises(ValueError, match=r"x is torch.float16.*use x.float"):
        aggregate(graph, x.half())
    with pytest.raises(ValueError, match=r"weight is torch.float64"):
        aggregate(graph, x, torch.zeros(9, dtype=torch.float64))
    with pytest.raises(ValueError, match="x lies on meta, the graph on cpu"):
        aggregate(graph, x.to("meta"))
    with pytest.raises(ValueError, match="unknown reduction 'median'"):
        aggregate(graph, x, reduce="median")
    good = torch.zeros(9, 3), torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"x must be \[4, F\]"):
        pool_messages(graph, torch.zeros(3, 2), *good)
    with pytest.raises(ValueError, match=r"attributes must be \[9, A\]"):
        pool_messages(graph, x, good[0][:4], good[1])
    with pytest.raises(ValueError, match=r"weight must be \[2, 3\]"):
        pool_messages(graph, x, good[0], good[1].t())
    with pytest.raises(ValueError, match="attributes get no gradient"):
        pool_messages(graph, x, good[0].requires_grad_(), good[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n_src", "n_dst", "edges"), [(7, 11, 60), (3, 2, 0), (4, 4, 25)])
def test_pooled_messages(backend, n_src, n_dst, edges):
    graph = random_graph(7, n_src, n_dst, edges)
    (x,) = inputs(graph, 5, weighted=False)
    attributes = torch.randn(edges, 2, dtype=torch.float64)
    weight = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    wanted = pool_messages(graph, x, attributes, weight, backend="reference")
    found = pool_messages(graph, x, attributes, weight, backend=backend)
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
    assert torch.autograd.gradcheck(
        lambda *t: pool_messages(graph, t[0], attributes, t[1], backend=backend), (x, weight)
    )
