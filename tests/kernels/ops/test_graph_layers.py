"""Attention and layers: against plain torch, and against PyG with the same parameters."""

from __future__ import annotations

import warnings

import pytest
import torch

from kernels.ops.graph import (
    CsrGraph,
    GATConv,
    GATv2Conv,
    HeteroConv,
    SAGEConv,
    aggregate,
    gat_attention,
    gatv2_attention,
)
from kernels.ops.graph import threads as sharing
from kernels.ops.graph.sage import transform_first

with warnings.catch_warnings():
    # torch_geometric 2.8 decorates functions with torch.jit.script at import; torch 2.14 warns.
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric import nn as pyg

BACKENDS = ("cpu", "reference")

# Loops are compiled for each number of heads and channels, seconds each: all tests share few.
HEADS, CHANNELS = 2, 8


def edges(seed: int, n_src: int, n_dst: int, count: int) -> torch.Tensor:
    """Return edges with duplicates; the last target has none."""
    draw = torch.Generator().manual_seed(seed)
    ends = [torch.randint(0, n, (count,), generator=draw) for n in (n_src, max(n_dst - 1, 1))]
    return torch.stack(ends)


def gat_inputs(graph: CsrGraph, heads: int, channels: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(heads)
    shapes = (graph.n_src, heads, channels), (graph.n_src, heads), (graph.n_dst, heads)
    return [
        torch.randn(shape, dtype=torch.float64, generator=draw, requires_grad=True)
        for shape in shapes
    ]


def gatv2_inputs(graph: CsrGraph, heads: int, channels: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(heads)
    size = heads, channels
    return [
        torch.randn(shape, dtype=torch.float64, generator=draw, requires_grad=True)
        for shape in ((graph.n_src, *size), (graph.n_dst, *size), size)
    ]


ATTENTION = [(gat_attention, gat_inputs), (gatv2_attention, gatv2_inputs)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("heads", "channels"),
    [(1, 3), (HEADS, CHANNELS), (4, 1), pytest.param(5, 2, marks=pytest.mark.long)],
)
@pytest.mark.parametrize(("operator", "make"), ATTENTION)
def test_attention(operator, make, backend, heads, channels):
    graph = CsrGraph(edges(1, 6, 8, 30), 6, 8)
    tensors = make(graph, heads, channels)
    wanted = operator(graph, *tensors, backend="reference")
    found = operator(graph, *tensors, backend=backend)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert not found[-1].any()
    # Plain torch is right by construction: random directions do.
    quick = backend == "reference"
    assert torch.autograd.gradcheck(
        lambda *t: operator(graph, *t, backend=backend), tensors, fast_mode=quick
    )


@pytest.mark.parametrize(("operator", "make"), ATTENTION)
@pytest.mark.parametrize(
    ("heads", "channels"), [(HEADS, CHANNELS), pytest.param(4, 8, marks=pytest.mark.long)]
)
def test_attention_is_the_same_on_any_number_of_threads(
    operator, make, heads, channels, monkeypatch
):
    monkeypatch.setattr(sharing, "WORTH", 1)
    graph = CsrGraph(edges(8, 90, 80, 900), 90, 80)
    tensors = [t.detach().float().requires_grad_() for t in make(graph, heads, channels)]
    before, seen = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            out = operator(graph, *tensors)
            seen.append((out, *torch.autograd.grad((out**2).sum(), tensors)))
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize(("operator", "make"), ATTENTION)
def test_attention_over_no_edges(operator, make):
    graph = CsrGraph(torch.zeros((2, 0), dtype=torch.int64), 3, 4)
    tensors = make(graph, HEADS, CHANNELS)
    out = operator(graph, *tensors)
    gradients = torch.autograd.grad(out.sum(), tensors)
    assert not out.any()
    assert not any(g.any() for g in gradients)


@pytest.mark.parametrize(
    ("heads", "channels"), [(HEADS, CHANNELS), pytest.param(4, 16, marks=pytest.mark.long)]
)
def test_attention_in_single_precision_and_with_extreme_scores(heads, channels):
    graph = CsrGraph(edges(2, 50, 40, 600), 50, 40)
    tensors = [t.detach() for t in gat_inputs(graph, heads, channels)]
    tensors[1][:10] *= 1000
    wanted = gat_attention(graph, *tensors, backend="reference")
    found = gat_attention(graph, *(t.float() for t in tensors))
    torch.testing.assert_close(found.double(), wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("operator", "make"), ATTENTION)
def test_attention_inputs_need_not_be_contiguous(operator, make):
    graph = CsrGraph(edges(7, 6, 8, 30), 6, 8)
    tensors = make(graph, HEADS, CHANNELS)
    turned = [
        t.detach().permute(*reversed(range(t.dim()))).contiguous()
        .permute(*reversed(range(t.dim()))).requires_grad_()
        for t in tensors
    ]  # fmt: skip
    assert not turned[0].is_contiguous()
    slope = torch.randn(CHANNELS, HEADS, 8, dtype=torch.float64).permute(2, 1, 0)
    results = []
    for given in (tensors, turned):
        out = operator(graph, *given)
        results.append((out, *torch.autograd.grad(out, given, slope)))
    for found, wanted in zip(*results, strict=True):
        assert torch.equal(found, wanted)


def test_exponential_of_single_precision():
    import numpy as np
    from numba import njit

    from kernels.ops.graph.exponential import exp_below_zero

    @njit
    def all_of(values, out):
        for i in range(len(values)):
            out[i] = exp_below_zero(values[i])

    values = np.linspace(-100, 0, 200_001).astype(np.float32)
    out = np.empty_like(values)
    all_of(values, out)
    wanted = np.exp(np.maximum(values, np.float32(-87)).astype(np.float64))
    assert np.abs(out / wanted - 1).max() < 2e-7
    assert out[-1] == 1
    assert exp_below_zero(-1.0) == pytest.approx(np.exp(-1))


def test_wrong_attention_inputs_are_refused():
    graph = CsrGraph(edges(3, 6, 8, 30), 6, 8)
    x, source, target = (t.detach() for t in gat_inputs(graph, 2, 3))
    with pytest.raises(ValueError, match=r"x must be \[6, H, C\]"):
        gat_attention(graph, x[:5], source, target)
    with pytest.raises(ValueError, match=r"scores must be \[6, 2\] and \[8, 2\]"):
        gat_attention(graph, x, target, source)
    with pytest.raises(ValueError, match="all inputs must be float32"):
        gat_attention(graph, x, source.float(), target)
    x, y, att = (t.detach() for t in gatv2_inputs(graph, 2, 3))
    with pytest.raises(ValueError, match=r"x_src must be \[6, H, C\]"):
        gatv2_attention(graph, x[:5], y, att)
    with pytest.raises(ValueError, match=r"x_dst must be \[8, 2, 3\] and att \[2, 3\]"):
        gatv2_attention(graph, x, x, att)


def compare(ours, theirs, graph, edge_index, x):
    """Check outputs and gradients of two modules with the same state to 1e-10."""
    ours, theirs = ours.double(), theirs.double()
    ours.load_state_dict(theirs.state_dict())
    leaves = [t for t in (x if isinstance(x, tuple) else (x,)) if t is not None]
    results = []
    for module, structure in ((ours, graph), (theirs, edge_index)):
        out = module(x, structure)
        wanted = [*leaves, *dict(module.named_parameters()).values()]
        results.append((out, *torch.autograd.grad((out**3).sum(), wanted)))
    names = [list(dict(m.named_parameters())) for m in (ours, theirs)]
    assert sorted(names[0]) == sorted(names[1])
    order = [names[1].index(n) for n in names[0]]
    first, second = results
    start = 1 + len(leaves)
    second = [*second[:start], *(second[start + i] for i in order)]
    for found, expected in zip(first, second, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bipartite", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"aggr": "sum", "normalize": True},
        {"aggr": "max", "project": True},
        {"aggr": "min", "root_weight": False, "bias": False},
        {"bias": False},
    ],
)
@pytest.mark.parametrize("out", [2, 9])
def test_sage_is_pyg_s(options, bipartite, out):
    n_src, n_dst = (12, 7) if bipartite else (12, 12)
    edge_index = edges(4, n_src, n_dst, 60)
    graph = CsrGraph(edge_index, n_src, n_dst)
    widths = (5, 3) if bipartite else 5
    x = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)
    if bipartite:
        x = x, torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    given = {k: ("add" if v == "sum" else v) for k, v in options.items()}
    if not options.get("root_weight", True) and bipartite:
        x = (x[0], None)
        edge_index = edge_index[:, edge_index[1].argsort(stable=True)]
        graph = CsrGraph(edge_index, n_src, int(edge_index[1].max()) + 1)
        theirs = pyg.SAGEConv(widths, out, **given)
        plain = theirs.forward
        theirs.forward = lambda x, e: plain(x, e, size=(n_src, graph.n_dst))
    else:
        theirs = pyg.SAGEConv(widths, out, **given)
    compare(SAGEConv(widths, out, **options), theirs, graph, edge_index, x)


@pytest.mark.parametrize("bipartite", [False, True])
@pytest.mark.parametrize("options", [{}, {"concat": False, "negative_slope": 0.1}, {"bias": False}])
@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv"])
def test_gat_is_pyg_s(name, options, bipartite):
    n_src, n_dst = (12, 7) if bipartite else (12, 12)
    edge_index = edges(5, n_src, n_dst, 60)
    graph = CsrGraph(edge_index, n_src, n_dst)
    widths = (5, 3) if bipartite else 5
    x = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)
    if bipartite:
        x = x, torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    theirs = getattr(pyg, name)(widths, CHANNELS, heads=HEADS, add_self_loops=False, **options)
    ours = {"GATConv": GATConv, "GATv2Conv": GATv2Conv}[name](
        widths, CHANNELS, heads=HEADS, **options
    )
    compare(ours, theirs, graph, edge_index, x)


def test_gatv2_with_shared_weights_is_pyg_s():
    edge_index = edges(6, 12, 12, 60)
    x = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)
    theirs = pyg.GATv2Conv(5, CHANNELS, heads=HEADS, add_self_loops=False, share_weights=True)
    ours = GATv2Conv(5, CHANNELS, heads=HEADS, share_weights=True)
    compare(ours, theirs, CsrGraph(edge_index, 12, 12), edge_index, x)


def test_features_that_never_change_are_aggregated_once():
    graph = CsrGraph(edges(9, 12, 12, 60), 12, 12)
    x, layer = torch.randn(12, 5), SAGEConv(5, 3)
    means = aggregate(graph, x, reduce="mean")
    torch.testing.assert_close(layer(x, graph, aggregated=means), layer(x, graph))
    with pytest.raises(ValueError, match="do not go with project=True"):
        SAGEConv(5, 3, project=True)(x, graph, aggregated=means)


@pytest.mark.parametrize("aggr", ["sum", "mean", "max", "min", "cat"])
def test_hetero_is_pyg_s(aggr):
    sizes = {"card": 9, "shop": 6}
    relations = [("card", "pays", "shop"), ("shop", "paid.by", "card"), ("card", "knows", "card")]
    indices = {r: edges(i, sizes[r[0]], sizes[r[2]], 40) for i, r in enumerate(relations)}
    graphs = {r: CsrGraph(e, sizes[r[0]], sizes[r[2]]) for r, e in indices.items()}
    x = {k: torch.randn(n, 4, dtype=torch.float64) for k, n in sizes.items()}
    ours = HeteroConv({r: SAGEConv((4, 4), 3) for r in relations}, aggr).double()
    theirs = pyg.HeteroConv({r: pyg.SAGEConv((4, 4), 3) for r in relations}, aggr).double()
    ours.load_state_dict(theirs.state_dict())
    found, wanted = ours(x, graphs), theirs(x, indices)
    assert found.keys() == wanted.keys()
    for kind in found:
        torch.testing.assert_close(found[kind], wanted[kind], rtol=1e-10, atol=1e-10)
    assert ours(x, {relations[0]: graphs[relations[0]]}).keys() == {"shop"}
    with pytest.raises(ValueError, match="no features for"):
        ours({"card": x["card"]}, graphs)


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="unknown aggr 'lstm'"):
        SAGEConv(3, 3, "lstm")
    with pytest.raises(ValueError, match="unknown aggr 'mul'"):
        HeteroConv({}, "mul")


def test_what_moves_less_comes_first():
    graph = CsrGraph(edges(6, 100, 100, 2000), 100, 100)
    learning = {"x_learns": True, "weight_learns": True}
    assert transform_first(graph, 64, 2, **learning)
    assert not transform_first(graph, 2, 64, **learning)
    # Constant features need no way back: aggregated first, they cost half.
    assert not transform_first(graph, 60, 40, x_learns=False, weight_learns=True)
    assert transform_first(graph, 60, 40, **learning)
    assert transform_first(graph, 60, 40, x_learns=False, weight_learns=False)
