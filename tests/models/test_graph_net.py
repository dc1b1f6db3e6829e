"""Mail attention, graph net, entity encoder: shapes, invariances, ONNX equality."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.entity_sage import EntitySage, EntitySageConfig, edges_of
from models.geometric import HeteroData
from models.graph_net import GraphNet, GraphNetConfig, asinh, export_onnx
from models.mail_attention import AGE_SCALES, RATIO_SCALES, MailAttention, MailAttentionConfig

MAIL = MailAttentionConfig(groups=2, slots=3, vector=4, query=8, hidden=8, heads=2)


def make_net(embedding=5):
    torch.manual_seed(0)
    net = GraphNet(GraphNetConfig(7, MAIL, columns=2, embedding=embedding, hidden=12)).eval()
    net.set_scales(
        (torch.linspace(-1, 1, 7), torch.linspace(0.5, 2, 7)),
        (torch.linspace(-1, 1, 4), torch.linspace(0.5, 2, 4)),
        prior=-3.0,
    )
    return net


def inputs(rows, embedding=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, 6, generator=generator) > 0.4
    mail = torch.rand(rows, 6, MAIL.token, generator=generator) * mask[..., None]
    return (
        50 * torch.randn(rows, 7, generator=generator),
        mail,
        mask,
        torch.randn(rows, 2, embedding, generator=generator),
    )


def test_what_lies_in_an_empty_slot_does_not_matter():
    net = make_net()
    features, mail, mask, embeddings = inputs(20)
    mask[0] = False
    noisy = torch.where(mask[..., None], mail, torch.full_like(mail, 3.0))
    with torch.no_grad():
        clean, dirty = (net(features, m, mask, embeddings) for m in (mail, noisy))
    torch.testing.assert_close(clean, dirty)
    assert torch.isfinite(clean).all()


def test_order_within_a_section_does_not_matter_but_the_section_does():
    net = make_net()
    features, mail, _, embeddings = inputs(20)
    mask = torch.ones(20, 6, dtype=torch.bool)
    inside, across = mail[:, [2, 0, 1, 3, 4, 5]], mail[:, [3, 4, 5, 0, 1, 2]]
    with torch.no_grad():
        plain, same, other = (net(features, m, mask, embeddings) for m in (mail, inside, across))
    torch.testing.assert_close(plain, same)
    assert (plain - other).abs().max() > 1e-4


def test_tokens_are_encoded_as_written_and_never_subnormal():
    attention = MailAttention(MAIL)
    age = np.array([0.0, 1e-4, 0.3, 5.0, 90.0, 3e5])
    ratio = np.array([0.0, 1e-3, -0.2, 2.0, -6.0, 6.0])
    tokens = np.zeros((6, MAIL.token), np.float32)
    tokens[:, 0], tokens[:, 1], tokens[:, 2] = age, ratio, [0, 1] * 3
    with torch.no_grad():
        found = attention.encode(torch.from_numpy(tokens)).numpy()
    relation = ratio[:, None] / RATIO_SCALES
    expected = np.concatenate(
        [
            np.tanh(relation),
            np.exp(-(relation**2)),
            np.exp(-age[:, None] / AGE_SCALES),
            0.3 * np.log1p(age)[:, None],
            tokens[:, 2:],
        ],
        axis=1,
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    tiny = np.finfo(np.float32).tiny
    assert ((found == 0) | (np.abs(found) >= tiny)).all()
    assert (np.abs(expected[expected != 0]) < tiny).any()


def pooled_one_by_one(attention, query, mail, mask):
    """Return what ``MailAttention`` returns, message by message, as its definition has it."""
    c, out = attention.config, []
    for i in range(len(query)):
        means, highest = [], []
        for group in range(c.groups):
            slots = [s for s in range(group * c.slots, (group + 1) * c.slots) if mask[i, s]]
            asked = attention.asking(query[i]) + attention.section[group]
            encoded = attention.encode(mail[i, slots])
            hidden = torch.nn.functional.gelu(attention.message(encoded) + asked)
            hidden = torch.nn.functional.gelu(attention.mixed(hidden))
            scores = torch.cat([attention.weight(hidden), attention.nobody[group][None]])
            share = torch.softmax(scores, dim=0)[:-1]
            width = c.hidden // c.heads
            means += [
                (share[:, h, None] * hidden[:, h * width : (h + 1) * width]).sum(dim=0)
                for h in range(c.heads)
            ]
            none = torch.full((1, c.hidden), 0.0 if len(slots) < c.slots else -torch.inf)
            highest.append(torch.cat([hidden, none]).amax(dim=0))
        out.append(torch.cat(means + highest))
    return torch.stack(out)


def test_pooling_is_that_of_its_definition():
    torch.manual_seed(4)
    attention = MailAttention(MAIL)
    with torch.no_grad():
        attention.nobody.normal_()
        _, mail, mask, _ = inputs(30)
        mask[0], mask[1], mask[2, :3] = False, True, False
        query = torch.randn(30, MAIL.query)
        expected = pooled_one_by_one(attention, query, mail, mask)
        torch.testing.assert_close(attention(query, mail, mask), expected, atol=1e-6, rtol=1e-5)


def test_asinh_over_all_magnitudes_of_features():
    x = torch.cat([torch.zeros(1), torch.logspace(-8, 15, 200)])
    x = torch.cat([x, -x])
    torch.testing.assert_close(asinh(x), torch.asinh(x), atol=2e-7, rtol=1e-6)


def test_the_second_signal_is_the_rise_above_the_knee():
    net = make_net()
    with torch.no_grad():
        knee = float(net(*inputs(200))[:, 0].median())
        net.set_knee(knee)
        signals = net(*inputs(200))
    assert signals.shape == (200, 2)
    torch.testing.assert_close(signals[:, 1], (signals[:, 0] - knee).clamp_min(0.0))
    assert 0 < int((signals[:, 1] > 0).sum()) < 200


def test_gradients_reach_every_weight_and_are_right():
    torch.manual_seed(1)
    attention = MailAttention(MAIL).double()
    mail = torch.rand(3, 6, MAIL.token, dtype=torch.float64)
    mask = torch.tensor([[True, True, False] * 2, [True] * 6, [False] * 6])
    query = torch.rand(3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda q, m: attention(q, m, mask), (query, mail.requires_grad_()), eps=1e-6, atol=1e-5
    )
    net = make_net()
    net(*inputs(40)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("embedding", [0, 5])
@pytest.mark.parametrize("rows", [1, 2, 37])
def test_onnx_gives_the_same_signals_for_any_number_of_rows(embedding, rows, onnx_sessions):
    net, session = onnx_sessions[embedding]
    given = inputs(rows, embedding, seed=rows)
    wanted = {i.name for i in session.get_inputs()}
    names = ("features", "mail", "mask", "embeddings")
    feed = {n: v.numpy() for n, v in zip(names, given, strict=True) if n in wanted}
    with torch.no_grad():
        expected = net(*given).numpy()
    assert wanted >= {"features", "mail", "mask"}
    np.testing.assert_allclose(session.run(None, feed)[0], expected, atol=1e-5)


@pytest.fixture(scope="module")
def onnx_sessions():
    import onnxruntime

    made = {}
    for embedding in (0, 5):
        net = make_net(embedding)
        made[embedding] = (net, onnxruntime.InferenceSession(export_onnx(net)))
    return made


def small_graph(order=None):
    """Two kinds, five shops and four people, edges both ways."""
    generator = torch.Generator().manual_seed(0)
    graph = HeteroData()
    graph["person"].x = torch.randn(4, 3, generator=generator)
    graph["shop"].x = torch.randn(5, 2, generator=generator)
    edges = torch.tensor([[0, 1, 2, 3, 0, 2], [0, 1, 2, 3, 1, 0]])
    attributes = torch.rand(6, 2, generator=generator)
    chosen = torch.arange(6) if order is None else torch.tensor(order)
    graph["person", "buys", "shop"].edge_index = edges[:, chosen]
    graph["person", "buys", "shop"].edge_attr = attributes[chosen]
    graph["shop", "sells", "person"].edge_index = edges.flip(0)[:, chosen]
    graph["shop", "sells", "person"].edge_attr = attributes[chosen]
    return graph


SAGE = EntitySageConfig(
    (("person", 3), ("shop", 2)),
    (("person", "buys", "shop"), ("shop", "sells", "person")),
    edge=2,
    columns=("person", "shop"),
    hidden=6,
    embedding=4,
)


def test_embeddings_depend_on_neighbours_within_two_hops_only():
    torch.manual_seed(0)
    encoder = EntitySage(SAGE).eval()
    graph = small_graph()
    with torch.no_grad():
        plain = encoder(graph)
        graph["shop"].x[3] += 1.0
        changed = encoder(graph)
    assert plain["person"].shape == (4, 4)
    assert plain["shop"].shape == (5, 4)
    moved = (plain["person"] - changed["person"]).abs().amax(dim=1) > 1e-7
    assert moved.tolist() == [False, False, False, True]
    shops = (plain["shop"] - changed["shop"]).abs().amax(dim=1) > 1e-7
    assert shops.tolist() == [False, False, False, True, False]


def test_edge_order_does_not_matter_and_the_decoders_read_all_columns():
    torch.manual_seed(0)
    encoder = EntitySage(SAGE).eval()
    with torch.no_grad():
        first, second = encoder(small_graph()), encoder(small_graph([5, 2, 0, 4, 1, 3]))
        torch.testing.assert_close(first["shop"], second["shop"])
        pairs = torch.stack([first["person"][[0, 1]], first["shop"][[2, 2]]], dim=1)
        linked, fraud = encoder.decode(pairs)
    assert linked.shape == fraud.shape == (2,)
    assert linked[0] != linked[1]


def test_impossible_shapes_are_refused():
    with pytest.raises(ValueError, match="multiple of heads"):
        MailAttentionConfig(1, 1, 0, hidden=9, heads=2)
    with pytest.raises(ValueError, match="at least 1"):
        MailAttentionConfig(0, 1, 0)
    with pytest.raises(ValueError, match="at least 1"):
        GraphNetConfig(0, MAIL, 1)
    with pytest.raises(ValueError, match="dropout"):
        GraphNetConfig(1, MAIL, 1, dropout=1.0)
    with pytest.raises(ValueError, match="'lender'"):
        EntitySageConfig((("person", 3),), (("lender", "x", "person"),), 2, ("person",))
    with pytest.raises(ValueError, match="at least 1"):
        EntitySageConfig((), (), 2, ())


def test_the_encoder_is_the_one_of_gather_and_scatter():
    from tests.benchmarks._pyg import eager_encoder

    torch.manual_seed(0)
    encoder = EntitySage(SAGE).double()
    graph = small_graph()
    for store in (*graph.node_stores, *graph.edge_stores):
        for key in ("x", "edge_attr"):
            if key in store:
                store[key] = store[key].double()
    results = []
    for net in (encoder, eager_encoder(encoder).double()):
        net.load_state_dict(encoder.state_dict())
        found = net(graph)
        loss = sum((x**3).sum() for x in found.values())
        used = [p for n, p in net.named_parameters() if n.split(".")[0] not in {"link", "fraud"}]
        results.append((*found.values(), *torch.autograd.grad(loss, used)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_edges_are_grouped_once_and_again_when_replaced():
    graph = small_graph()
    store = graph["person", "buys", "shop"]
    first = edges_of(store, 4, 5)
    assert edges_of(store, 4, 5) is first
    assert edges_of(store, 4, 6) is not first
    store.edge_index = store.edge_index.clone()
    again = edges_of(store, 4, 6)
    assert again is edges_of(store, 4, 6)
    assert again.n_dst == 6
