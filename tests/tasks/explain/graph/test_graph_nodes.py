"""Explanations of graph networks, judged by Shapley's formula on the whole graph by other code."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kernels.ops.graph.csr import CsrGraph
from kernels.ops.graph.sage import SAGEConv
from tasks.explain.background import Background
from tasks.explain.errors import (
    BackgroundError,
    GraphInputError,
    PlayersError,
    ScoreError,
    UnstableScoreError,
)
from tasks.explain.graph.inputs import GraphInputs
from tasks.explain.graph.links import edge_values
from tasks.explain.graph.nodes import GraphOptions, NodeExplainer
from tests.benchmarks._pyg import pyg

CONVS = {
    "gcn": pyg.GCNConv,
    "sage": pyg.SAGEConv,
    "gat": pyg.GATConv,
    "sum": pyg.GraphConv,
}


class Net(nn.Module):
    def __init__(self, conv="sage", layers=2, features=3, outputs=1, dropout=0.0, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        sizes = [features, *[4] * (layers - 1), outputs]
        self.layers = nn.ModuleList(CONVS[conv](a, b) for a, b in pairwise(sizes))
        self.drop = nn.Dropout(dropout)

    def forward(self, x, edge_index):
        for number, layer in enumerate(self.layers):
            x = layer(self.drop(torch.tanh(x) if number else x), edge_index)
        return x


def graph(n, edges, seed=0, **more):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    return GraphInputs(x, index, **more)


def brute(net, inputs, explained, background, own_groups=None):
    """Return values of the players by the formula: every copy is the whole graph, thinned."""
    node, members = explained.node, explained.members
    columns = own_groups or {"own features": range(3)}
    names = explained.found.players

    def worth(coalition):
        x = inputs.x.clone()
        gone = set()
        for player, name in enumerate(names):
            if player not in coalition:
                gone.update(members[player])
                if name in columns:
                    held = list(columns[name])
                    x[node, held] = torch.tensor(background)[held].double()
        kept = [i for i, (a, b) in enumerate(inputs.edge_index.T.tolist())
                if a not in gone and b not in gone]  # fmt: skip
        with torch.no_grad():
            return float(net(x, inputs.edge_index[:, kept])[node])

    count = len(names)
    found = []
    for player in range(count):
        others = [p for p in range(count) if p != player]
        value = 0.0
        for size in range(count):
            weight = 1 / (count * math.comb(count - 1, size))
            for some in combinations(others, size):
                value += weight * (worth({*some, player}) - worth(set(some)))
        found.append(value)
    return np.array(found), worth(set())


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n=st.integers(1, 6), conv=st.sampled_from(sorted(CONVS)))
def test_values_are_shapleys_of_the_thinned_graph(data, n, conv):
    """Also with self loops, duplicated edges and isolated nodes: hypothesis draws them."""
    ends = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))
    inputs = graph(n, data.draw(st.lists(ends, max_size=14)))
    node = data.draw(st.integers(0, n - 1))
    net = Net(conv).double().eval()
    explainer = NodeExplainer(net, inputs, 2)
    explained = explainer.explain(node)
    wanted, base = brute(net, inputs, explained, explainer.background.values[0])
    np.testing.assert_allclose(explained.found.values[0], wanted, atol=1e-10)
    assert explained.found.base == pytest.approx(base, abs=1e-10)
    assert explained.found.gap < 1e-9
    edges = edge_values(explained)
    linked = edges.shares.any(axis=1)
    np.testing.assert_allclose(
        edges.shares.sum(axis=1)[linked], explained.found.values[0, linked], atol=1e-9
    )


def random_graph(n, links, seed, **more):
    rng = np.random.default_rng(seed)
    ends = rng.integers(n, size=(links, 2))
    both = np.concatenate([ends, ends[:, ::-1]])
    return graph(n, both.tolist(), seed, **more)


@pytest.mark.parametrize("conv", sorted(CONVS))
def test_groups_by_distance_relation_and_age_are_shapleys_too(conv):
    rng = np.random.default_rng(1)
    inputs = random_graph(
        40, 60, 1, relation=np.tile(rng.integers(2, size=60), 2), relations=("paid", "device"),
        time=np.tile(rng.integers(100, size=60), 2),
    )  # fmt: skip
    options = GraphOptions(7, (("new", 30.0),), {"amount": [0]})
    net = Net(conv).double().eval()
    explainer = NodeExplainer(net, inputs, 2, options=options)
    explained = explainer.explain(int(torch.bincount(inputs.edge_index[1]).argmax()))
    assert len(explained.found.players) == 7
    assert explained.found.players[:2] == ("amount", "own features")
    wanted, _ = brute(
        net, inputs, explained, explainer.background.values[0],
        {"amount": [0], "own features": [1, 2]},
    )  # fmt: skip
    np.testing.assert_allclose(explained.found.values[0], wanted, atol=1e-10)
    neighbours = [v for members in explained.members for v in members]
    assert len(set(neighbours)) == len(neighbours)  # each has one player
    assert set(neighbours) == set(explained.copies.around.nodes[1:].tolist())


def test_the_groups_say_distance_relation_and_age():
    """A star of 30 leaves, two of which lead on: what is far is told more coarsely."""
    edges = [(leaf, 0) for leaf in range(1, 31)] + [(31, 1), (32, 2)]
    inputs = graph(
        33, edges, relation=np.array([0] * 15 + [1] * 15 + [0, 1]), relations=("paid", "device"),
        time=np.arange(32), now=40, names=[f"A{v}" for v in range(33)], clock=lambda t: f"day {t}",
    )  # fmt: skip
    net = Net("sum").double().eval()
    options = GraphOptions(11, (("this week", 15.0), ("this month", 30.0)))
    found = NodeExplainer(net, inputs, 2, options=options).explain(0).found
    groups = [name for name in found.players if "away" in name]
    assert "1 hop away, paid, older" in groups
    assert "1 hop away, device, this week" in groups
    assert "2 hops away, any relation, any age" in groups
    alone = [name for name in found.players if name.startswith("A")]
    assert alone
    assert all(", day " in name for name in alone)


def test_the_most_telling_neighbour_stands_alone():
    edges = [(leaf, 0) for leaf in range(1, 400)]
    inputs = graph(400, edges)
    inputs.x[1:] *= 0.01
    inputs.x[277] = 50.0  # among 399, by halves and quarters
    net = Net("sum", layers=1).double().eval()
    found = NodeExplainer(net, inputs, 1).explain(0)
    assert found.members[int(np.abs(found.found.values[0]).argmax())] == (277,)


def test_a_hub_of_5000_neighbours_is_explained_within_its_bound():
    edges = [(leaf, 0) for leaf in range(1, 5001)]
    inputs = graph(5001, edges)
    inputs.x[4321] = 3000.0
    net = Net("sage").double().eval()
    explainer = NodeExplainer(net, inputs, 2, options=GraphOptions(edges=2**18))
    explained = explainer.explain(0)
    assert len(explained.found.players) == 5  # 2^5 copies of 5,000 edges
    assert explained.found.gap < 1e-9
    edges = edge_values(explained)
    assert edges.shares.sum() == pytest.approx(explained.found.values[0, 1:].sum())
    assert edges.edges[edges.order[0]] == (4320,)
    leaf = explainer.explain(5000)
    assert leaf.found.players == ("own features",)
    assert leaf.found.values[0, 0] == pytest.approx(leaf.found.scores[0] - leaf.found.base)


def test_a_small_budget_merges_all_distances():
    edges = [(leaf, 0) for leaf in range(1, 70)] + [(70, 1), (71, 70)]
    net = Net("sum", layers=3).double().eval()
    options = GraphOptions(3, edges=1)
    found = NodeExplainer(net, graph(72, edges), 3, options=options).explain(0).found
    assert found.players[0] == "own features"
    assert found.players[2] == "1 or more hops away, any relation"


def test_two_neighbours_of_one_name_are_two_players():
    inputs = graph(4, [(1, 0), (2, 0), (3, 1)], names=["a", "b", "b", "c"])
    found = NodeExplainer(Net().double().eval(), inputs, 2).explain(0)
    assert found.found.players[1:3] == ("b (neighbours)", "b (neighbours), node 2")
    assert found.members[1:] == ((1,), (2,), (3,))


def test_the_same_bits_again_and_beside_other_nodes():
    inputs = random_graph(60, 150, 3)
    inputs = GraphInputs(inputs.x.float(), inputs.edge_index)
    net = Net("gat").eval()
    first = NodeExplainer(net, inputs, 2)
    alone = first.explain(7)
    for node in (3, 7, 9):
        again = first.explain(node)
    again = NodeExplainer(net, inputs, 2).explain(7)
    assert np.array_equal(alone.found.values, again.found.values)
    assert np.array_equal(edge_values(alone).values, edge_values(again).values)
    assert alone.found.players == again.found.players


def test_outputs_of_one_and_of_several_columns():
    inputs = random_graph(12, 20, 5)

    class Flat(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x, edge_index):
            return self.net(x, edge_index)[:, 1]

    net = Net("gcn", outputs=3).double().eval()
    chosen = NodeExplainer(net, inputs, 2, output=1).explain(4).found.values
    flat = NodeExplainer(Flat(net).eval(), inputs, 2).explain(4).found.values
    assert np.array_equal(chosen, flat)
    for output in (None, 3):
        with pytest.raises(ScoreError, match="name one of its outputs"):
            NodeExplainer(net, inputs, 2, output=output)


def test_edge_inputs_go_with_their_edges():
    torch.manual_seed(0)
    inputs = random_graph(15, 30, 6)
    weights = torch.rand(60, dtype=torch.float64)
    inputs = GraphInputs(inputs.x, inputs.edge_index, {"edge_weight": weights})
    net = pyg.GraphConv(3, 1).double().eval()
    explained = NodeExplainer(net, inputs, 1).explain(2)
    into = inputs.edge_index[1] == 2
    said = (inputs.x @ net.lin_rel.weight[0]).detach()[inputs.edge_index[0]] * weights
    for members, value in zip(explained.members, explained.found.values[0], strict=True):
        sent = torch.isin(inputs.edge_index[0], torch.tensor(members, dtype=torch.long))
        if members:  # a sum is additive: a neighbour's value is what it sends
            own = (inputs.edge_index[0] != 2) & into & sent
            assert value == pytest.approx(float(said[own].sum()), abs=1e-9)
    edges = edge_values(explained)
    for link, value in zip(edges.edges, edges.values, strict=True):
        sent = float(sum(said[e] for e in link if into[e]))
        assert value == pytest.approx(sent, abs=1e-9)


def test_the_graph_kernels_layers_by_a_call_of_ones_own():
    inputs = random_graph(20, 40, 8)
    net = SAGEConv(3, 1).double().eval()
    theirs = pyg.SAGEConv(3, 1).double().eval()
    theirs.load_state_dict(net.state_dict())

    def call(module, x, edge_index, _):
        return module(x, CsrGraph(edge_index, len(x), len(x)))

    found = NodeExplainer(net, inputs, 1, call=call).explain(5).found
    wanted = NodeExplainer(theirs, inputs, 1).explain(5).found
    assert found.players == wanted.players
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-12)


def test_several_background_rows_are_averaged():
    inputs = random_graph(9, 14, 2)
    net = Net("sum").double().eval()
    names = ("a", "b", "c")
    rows = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    each = [NodeExplainer(net, inputs, 2, background=Background(names, rows[i : i + 1]))
            for i in range(3)]  # fmt: skip
    together = NodeExplainer(net, inputs, 2, background=Background(names, rows)).explain(1)
    mean = np.mean([one.explain(1).found.values for one in each], axis=0)
    np.testing.assert_allclose(together.found.values, mean, atol=1e-12)


def test_what_is_refused():
    inputs = random_graph(8, 10, 0)
    net = Net().double()
    with pytest.raises(UnstableScoreError, match=r"\.eval\(\)"):
        NodeExplainer(Net(dropout=0.5).double().train(), inputs, 2)
    net.eval()
    with pytest.raises(GraphInputError, match="hops is 0; give the number of message-passing"):
        NodeExplainer(net, inputs, 0)
    explainer = NodeExplainer(net, inputs, 2)
    for node in (-1, 8):
        with pytest.raises(GraphInputError, match=rf"node {node} is not in the graph.*0 to 7"):
            explainer.explain(node)
    ring = graph(9, [(v, (v + 1) % 9) for v in range(9)])
    with pytest.raises(GraphInputError, match="say how many message-passing layers"):
        NodeExplainer(Net("sum", layers=4).double().eval(), ring, 1).explain(0)
    with pytest.raises(BackgroundError, match="1 features, the graph 3"):
        NodeExplainer(net, inputs, 2, background=Background(("a",), np.zeros((1, 1), np.float32)))
    for groups in ({"a": [0, 3]}, {"a": [0], "b": [0]}):
        with pytest.raises(GraphInputError, match="named once"):
            NodeExplainer(net, inputs, 2, options=GraphOptions(feature_groups=groups))
    for players in (2, 13):
        with pytest.raises(PlayersError, match="choose 3 to 12"):
            GraphOptions(players)
    with pytest.raises(GraphInputError, match="rename it"):
        NodeExplainer(net, inputs, 2, options=GraphOptions(feature_groups={"own features": [0]}))
    with pytest.raises(GraphInputError, match="cached=False"):
        NodeExplainer(pyg.GCNConv(3, 1, cached=True).double().eval(), inputs, 1)
    spoilt = GraphInputs(inputs.x.clone(), inputs.edge_index)
    spoilt.x[3, 0] = torch.nan
    with pytest.raises(ScoreError, match="not finite"):
        NodeExplainer(net, spoilt, 2)


def test_noise_that_eval_does_not_stop_is_found():
    class Noisy(nn.Module):
        def forward(self, x, edge_index):
            return x[:, 0] + torch.rand(len(x), dtype=torch.float64)

    with pytest.raises(GraphInputError, match="draws random numbers"):
        NodeExplainer(Noisy().eval(), random_graph(8, 10, 0), 2).explain(0)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"edge_index": torch.tensor([[0], [9]])}, "there are 5"),
        ({"time": np.arange(3)}, "time has 3 rows for 2 edges"),
        ({"relation": np.array([0, 1])}, "0 to 1, 1 have names"),
        ({"names": ["a"]}, "1 names for 5 nodes"),
        ({"edge_inputs": {"edge_attr": torch.ones(7)}}, "edge_attr has 7 rows"),
        ({"x": torch.ones(5)}, r"x must be \[nodes, features\]"),
    ],
)
def test_parts_that_do_not_fit(more, match):
    given = {"x": torch.ones(5, 2), "edge_index": torch.tensor([[0, 1], [1, 2]])}
    with pytest.raises(GraphInputError, match=match):
        GraphInputs(**given | more)
