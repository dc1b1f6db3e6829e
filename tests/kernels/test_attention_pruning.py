"""Fewer heads and tokens: the same answers as with silent heads, entropies, what stays."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.models
from torch import nn
from torch.nn import functional

from kernels.compression.attention.heads import SlimAttention, prune_heads
from kernels.compression.attention.tokens import FewerTokens, TokenConfig, fewer_tokens
from kernels.compression.pruning.errors import PruningError


def vit(seed=0):
    torch.manual_seed(seed)
    net = torchvision.models.VisionTransformer(16, 4, 3, 4, 32, 64, num_classes=3)
    nn.init.normal_(net.heads.head.weight, std=0.2)
    return net.eval()


def batch(index=0):
    generator = torch.Generator().manual_seed(index)
    return torch.randn(8, 3, 16, 16, generator=generator), torch.arange(8) % 3


def loss(model, pair):
    return functional.cross_entropy(model(pair[0]), pair[1], reduction="sum"), len(pair[1])


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_it_answers_as_the_attention_of_torch(batch_first, bias):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(24, 4, bias=bias, batch_first=batch_first).eval()
    ours = SlimAttention(theirs)
    shape = (5, 7, 24) if batch_first else (7, 5, 24)
    x, y = torch.randn(shape), torch.randn(shape)
    padding = torch.zeros(5, 7, dtype=torch.bool)
    padding[:, 5:] = True
    masks = (None, torch.triu(torch.ones(7, 7, dtype=torch.bool), 1), torch.randn(20, 7, 7))
    for mask in masks:
        for padded in (None, padding):
            if padded is not None and mask is not None and mask.dtype != torch.bool:
                continue  # torch wants both of one type
            want = theirs(x, y, y, key_padding_mask=padded, attn_mask=mask)
            got = ours(x, y, y, key_padding_mask=padded, attn_mask=mask)
            torch.testing.assert_close(got[0], want[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(got[1], want[1], rtol=1e-4, atol=1e-5)
    assert ours(x, y, y, need_weights=False)[1] is None


@pytest.mark.parametrize("criterion", ["taylor", "entropy"])
def test_a_head_that_says_nothing_goes_first(criterion):
    net = vit()
    attention = net.encoder.layers[1].self_attention
    with torch.no_grad():
        attention.in_proj_weight[8:16] = 0  # queries of head 1: it looks everywhere alike
        attention.in_proj_weight[72:80] = 0  # and its values are 0
        attention.in_proj_bias[72:80] = 0
    found = prune_heads(net, 1 / 12, [batch(0), batch(1)], loss, criterion)
    name = "encoder.layers.encoder_layer_1.self_attention"
    assert found.kept[name] == [0, 2, 3]
    assert sum(map(len, found.kept.values())) == 11
    torch.testing.assert_close(found.model(batch()[0]), net(batch()[0]), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in found.model.parameters()) < sum(
        p.numel() for p in net.parameters()
    )


def test_heads_that_go_are_silent_heads():
    net = vit()
    found = prune_heads(net, 0.5, [batch()], loss)
    with torch.no_grad():
        for number, layer in enumerate(net.encoder.layers):
            kept = found.kept[f"encoder.layers.encoder_layer_{number}.self_attention"]
            for head in set(range(4)) - set(kept):
                layer.self_attention.out_proj.weight[:, head * 8 : head * 8 + 8] = 0
        torch.testing.assert_close(found.model(batch()[0]), net(batch()[0]), rtol=1e-4, atol=1e-5)


def test_entropy_is_1_where_a_head_looks_everywhere_alike():
    net = vit()
    with torch.no_grad():
        net.encoder.layers[0].self_attention.in_proj_weight[:8] = 0
        net.encoder.layers[0].self_attention.in_proj_bias[:8] = 0
    found = prune_heads(net, 0.2, [batch()], loss, "entropy")
    scores = found.scores["encoder.layers.encoder_layer_0.self_attention"]
    assert math.isclose(scores[0], 0, abs_tol=1e-6)
    assert all(0 < score < 1 for score in scores[1:])


def test_layers_of_torch_take_it():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    net = nn.Sequential(layer, nn.Flatten(), nn.Linear(32 * 5, 3)).eval()
    x, labels = torch.randn(6, 5, 32), torch.arange(6) % 3
    found = prune_heads(net, 0.25, [(x, labels)], loss)
    assert found.model[0].self_attn.num_heads == 3
    assert found.model(x).shape == (6, 3)
    whole = prune_heads(net, 1e-9, [(x, labels)], loss)
    torch.testing.assert_close(whole.model(x), net(x), rtol=1e-4, atol=1e-5)


def test_tokens_that_receive_most_stay_in_order():
    layer = FewerTokens(nn.Identity(), None, TokenConfig(keep=0.5))
    received = torch.tensor([[0.0, 0.1, 0.4, 0.2, 0.3, 0.05], [0.0, 0.5, 0.1, 0.1, 0.1, 0.2]])
    assert layer.chosen(received).tolist() == [[0, 2, 4], [0, 1, 5]]
    by_mass = FewerTokens(nn.Identity(), None, TokenConfig(mass=0.5))
    places = by_mass.chosen(received)
    assert by_mass.left.tolist() == [3, 2]  # .4 is not half of 1.05; .5 is half of 1
    assert places.tolist() == [[0, 2, 4], [0, 1, 5]]
    everything = FewerTokens(nn.Identity(), None, TokenConfig(keep=1.0))
    assert everything.chosen(received).tolist() == [list(range(6))] * 2


def test_a_net_with_fewer_tokens():
    net, same = vit(), vit()
    x = batch()[0]
    name = "encoder.layers.encoder_layer_0"
    fewer_tokens(same, {name: "self_attention"}, TokenConfig(keep=1.0))
    torch.testing.assert_close(same(x), net(x), rtol=1e-4, atol=1e-5)
    fewer = vit()
    fewer_tokens(fewer, {name: "self_attention"}, TokenConfig(keep=0.5))
    seen = []
    fewer.encoder.layers[1].register_forward_pre_hook(
        lambda _l, given: seen.append(given[0].shape[1])
    )
    apart = (fewer(x) - net(x)).abs().max()
    assert seen == [round(17 * 0.5)]
    assert 0 < apart < net(x).abs().max()
    fewer(x).sum().backward()


def test_what_pads_is_not_attended_to():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    net = nn.Sequential(layer).eval()
    fewer_tokens(net, {"0": "self_attn"}, TokenConfig(keep=0.5))
    padding = torch.zeros(1, 6, dtype=torch.bool)
    padding[:, 3:] = True
    x = torch.randn(1, 6, 32)
    places = []
    choose = net[0].chosen
    net[0].chosen = lambda received: places.append(choose(received)) or places[0]
    net[0](x, src_key_padding_mask=padding)
    assert places[0].tolist() == [[0, 1, 2]]


def test_types_and_frozen_weights_stay():
    net = vit().double().requires_grad_(requires_grad=False)
    x, labels = batch()
    gradients = prune_heads(net.requires_grad_(), 0.5, [(x.double(), labels)], loss)
    assert all(p.dtype == torch.float64 for p in gradients.model.parameters())
    frozen = prune_heads(
        net.requires_grad_(requires_grad=False), 0.5, [(x.double(), labels)], loss, "entropy"
    )
    assert not any(p.requires_grad for p in frozen.model.parameters())


def test_wrong_input_is_told():
    net = vit()
    with pytest.raises(ValueError, match="'entrpy' is none of taylor, entropy"):
        prune_heads(net, 0.5, [batch()], loss, "entrpy")
    with pytest.raises(PruningError, match="single attention layer"):
        prune_heads(nn.MultiheadAttention(8, 2), 0.5, [batch()], loss)
    for ratio in (0, 1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            prune_heads(net, ratio, [batch()], loss)
    for wrong, says in (
        (
            lambda: prune_heads(net, 0.9, [batch()], loss),
            r"each of 3 layers keeps one; at most 0\.75",
        ),
        (lambda: prune_heads(net, 0.5, [], loss), "got none"),
        (
            lambda: prune_heads(nn.Linear(2, 2), 0.5, [batch()], loss),
            "no torch.nn.MultiheadAttention",
        ),
        (lambda: SlimAttention(nn.MultiheadAttention(8, 2, kdim=4)), "cannot lose heads"),
        (lambda: fewer_tokens(net, {"encoder": "x"}, TokenConfig(keep=0.5)), r"no encoder\.x"),
        (lambda: fewer_tokens(net, {"encoder": "ln"}, TokenConfig(keep=0.5)), "is no attention"),
    ):
        with pytest.raises(PruningError, match=says):
            wrong()
    for settings in ({}, {"keep": 0.5, "mass": 0.5}, {"keep": 1.5}, {"mass": -0.1, "keep": 0.5}):
        with pytest.raises(ValueError, match="keep or mass"):
            TokenConfig(**settings)
    with pytest.raises(ValueError, match="first"):
        TokenConfig(keep=0.5, first=-1)
