"""The Python source of the loops, vector instructions said in NumPy, against the machine code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernels.ops.graph import (
    CsrGraph,
    TemporalSampler,
    aggregate,
    attention,
    attention_v2,
    csr,
    gat_attention,
    gatv2_attention,
    messages,
    pool_messages,
    sampling,
    sums,
)


def add_scaled(out, o, x, a, factor, lanes):
    out[o : o + len(lanes)] += factor * x[a : a + len(lanes)]


def add_four_scaled(out, o, x, a, b, c, d, fa, fb, fc, fd, lanes):
    for place, factor in ((a, fa), (b, fb), (c, fc), (d, fd)):
        add_scaled(out, o, x, place, factor, lanes)


def product_adding(out, o, g, a, x, b, factor, lanes):
    add_scaled(out, o, g, a, factor, lanes)
    return g[a : a + len(lanes)] @ x[b : b + len(lanes)]


def leaky(z, slope):
    return np.where(z < 0, slope, 1.0)


def leaky_sum(out, o, x, a, y, b, slope, most, m, lanes):
    n = len(lanes)
    z = x[a : a + n] + y[b : b + n]
    out[o : o + n] = z * leaky(z, slope)
    most[m : m + n] = np.maximum(most[m : m + n], out[o : o + n])


def pair_score(x, a, y, b, att, s, slope, lanes):
    n = len(lanes)
    z = x[a : a + n] + y[b : b + n]
    return att[s : s + n] @ (z * leaky(z, slope))


def return_score(x, a, y, b, att, s, slope, d, out, o, lanes):
    n = len(lanes)
    out[o : o + n] += d * att[s : s + n] * leaky(x[a : a + n] + y[b : b + n], slope)


def return_vector(x, a, y, b, att, s, slope, d, out, o, lanes):
    n = len(lanes)
    z = x[a : a + n] + y[b : b + n]
    out[o : o + n] += d * z * leaky(z, slope)


def message(x, a, attributes, b, along, s, width, fields, n):
    columns = [along[s + f * width : s + f * width + n] for f in range(len(fields))]
    return x[a : a + n] + attributes[b : b + len(fields)] @ np.array(columns)


def pool_message(
    x, a, attributes, b, along, s, width, out, mean, most, winner, w, e, fields, lanes
):
    n = len(lanes)
    value = np.maximum(message(x, a, attributes, b, along, s, width, fields, n), 0)
    out[mean : mean + n] += value
    better = value > out[most : most + n]
    out[most : most + n][better] = value[better]
    winner[w : w + n][better] = e


def return_message(
    x, a, attributes, b, along, s, width, gradient, mean, most, winner, w, e, dx, dalong, fields,
    lanes,
):  # fmt: skip
    n = len(lanes)
    value = message(x, a, attributes, b, along, s, width, fields, n)
    back = gradient[mean : mean + n] + np.where(
        winner[w : w + n] == e, gradient[most : most + n], 0
    )
    back = np.where(value > 0, back, 0)
    dx[a : a + n] += back
    for f in range(len(fields)):
        dalong[s + f * width : s + f * width + n] += attributes[b + f] * back


MODULES = (attention, attention_v2, csr, messages, sampling, sums)


@pytest.fixture
def as_python(monkeypatch):
    """Return a call that makes every loop of the kernels run as Python."""

    def switch():
        for module in MODULES:
            for name, value in list(vars(module).items()):
                if hasattr(value, "py_func"):
                    monkeypatch.setattr(module, name, value.py_func)
                elif name in globals() and name != "message":
                    monkeypatch.setattr(module, name, globals()[name])
        monkeypatch.setattr(sampling, "prefetch_line", lambda array, i: None)
        from kernels.ops.graph import sampler

        monkeypatch.setattr(sampler, "sample_roots", sampling.sample_roots)

    return switch


def tensors(*shapes):
    draw = torch.Generator().manual_seed(len(shapes))
    return [
        torch.randn(shape, dtype=torch.float64, generator=draw, requires_grad=True)
        for shape in shapes
    ]


def results(edge_index):
    """Return what every operator gives over some edges, with all gradients."""
    graph = CsrGraph(edge_index, 7, 9)
    attributes = tensors((60, 2))[0].detach()
    cases = [
        (lambda x, w, how=how: aggregate(graph, x, w, reduce=how), tensors((7, 5), (60,)))
        for how in ("sum", "mean", "max", "min")
    ]
    cases += [
        (lambda x: aggregate(graph, x, reduce="max"), tensors((7, 5))),
        (lambda *t: gat_attention(graph, *t), tensors((7, 2, 8), (7, 2), (9, 2))),
        (lambda *t: gatv2_attention(graph, *t), tensors((7, 2, 8), (9, 2, 8), (2, 8))),
        (lambda x, w: pool_messages(graph, x, attributes, w), tensors((7, 6), (6, 2))),
    ]
    found = [graph.csr.edge, graph.csc.edge]
    for operator, given in cases:
        out = operator(*given)
        found += [out, *torch.autograd.grad((out**3).sum(), given)]
    return found


def test_operators(as_python):
    draw = torch.Generator().manual_seed(0)
    edge_index = torch.stack([torch.randint(0, n, (60,), generator=draw) for n in (7, 8)])
    fast = results(edge_index)
    as_python()
    for slow, wanted in zip(results(edge_index), fast, strict=True):
        torch.testing.assert_close(slow, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("last", [False, True])
def test_sampler(as_python, last):
    rng = np.random.default_rng(1)
    ends, when = rng.integers(0, 6, (2, 400)), rng.integers(0, 50, 400)
    sampler = TemporalSampler(*ends, when, 6, [5, 3], last=last)
    roots, before = rng.integers(0, 6, 20), rng.integers(0, 60, 20)
    fast = sampler.sample(roots, before, seed=3)
    as_python()
    with np.errstate(over="ignore"):  # random words are meant to wrap around
        slow = sampler.sample(roots, before, seed=3)
    for name in fast.__slots__:
        assert np.array_equal(getattr(slow, name), getattr(fast, name))
