"""What each layer does to the channels that reach it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kernels.compression.pruning.channel_graph import ChannelGraph

Rule = Callable[[ChannelGraph, str, Any, Tensor, torch.Size], Tensor]
"""(graph, name of the layer, layer, channel of each element of its input, shape of its output) ->
channel of each element of its output."""


def along(graph: ChannelGraph, ids: Tensor, dim: int, who: str) -> Tensor:
    """Return the channel of each index along a dimension; held if it differs by place."""
    found = graph.atoms.find(ids).movedim(dim, 0)
    found = found.reshape(len(found), -1)
    channels = found.amax(1)
    if bool(((found != channels[:, None]) & (found != 0)).any()):
        graph.atoms.hold(ids, f"{who} reads channels that differ from place to place")
        channels = graph.atoms.fresh(len(channels))
        graph.atoms.hold(channels, who)
    return channels


def spread(channels: Tensor, dim: int, shape: torch.Size) -> Tensor:
    """Return a tensor of a shape whose elements have the channel of their index along ``dim``."""
    lying = [1] * len(shape)
    lying[dim] = len(channels)
    return channels.view(lying).expand(shape)


def held(graph: ChannelGraph, shape: Any, who: str) -> Any:
    """Return channels that stay in the place of each tensor of a result, by its shape."""
    if isinstance(shape, torch.Size):
        atom = graph.atoms.fresh(1)
        graph.atoms.hold(atom, who)
        return atom.expand(shape)
    if isinstance(shape, tuple | list):
        return tuple(held(graph, each, who) for each in shape)
    return shape


def convolution(
    graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size
) -> Tensor:
    """Convolutions: plain, grouped, depthwise. [n, c, ...] to [n, made, ...]."""
    channel_dim = ids.dim() - len(layer.kernel_size) - 1
    reads = along(graph, ids, channel_dim, name)
    groups, weight = layer.groups, f"{name}.weight"
    if groups == layer.in_channels and groups > 1:
        made = reads.repeat_interleave(layer.out_channels // groups)
        graph.add(weight, 0, made, "scales")
        graph.sizes[name, "groups"] = reads
    else:
        # Each group keeps as many channels as the others: they are the same ones, by place.
        rows = reads.view(groups, -1)
        graph.atoms.join_along(rows, 0)
        made = _made(graph, weight, 0, layer.out_channels, groups)
        graph.add(weight, 1, rows[0], "reads")
    _bias(graph, name, layer, made)
    graph.sizes[name, "in_channels"], graph.sizes[name, "out_channels"] = reads, made
    positions = math.prod(shape) // layer.out_channels
    graph.positions[name] = graph.positions.get(name, 0) + positions
    return spread(made, channel_dim, shape)


def transposed(
    graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size
) -> Tensor:
    """Transposed convolutions of one group; their weights are [read, made, ...]."""
    channel_dim = ids.dim() - len(layer.kernel_size) - 1
    if layer.groups > 1:
        graph.atoms.hold(ids, f"{name} is transposed and grouped")
        stays: Tensor = held(graph, shape, name)
        return stays
    reads = along(graph, ids, channel_dim, name)
    graph.add(f"{name}.weight", 0, reads, "reads")
    made = _made(graph, f"{name}.weight", 1, layer.out_channels)
    graph.sizes[name, "in_channels"], graph.sizes[name, "out_channels"] = reads, made
    _bias(graph, name, layer, made)
    positions = ids.numel() // layer.in_channels
    graph.positions[name] = graph.positions.get(name, 0) + positions
    return spread(made, channel_dim, shape)


def linear(graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size) -> Tensor:
    """Linear layers, [..., read] to [..., made]."""
    reads = along(graph, ids, ids.dim() - 1, name)
    graph.add(f"{name}.weight", 1, reads, "reads")
    made = _made(graph, f"{name}.weight", 0, layer.out_features)
    graph.sizes[name, "in_features"], graph.sizes[name, "out_features"] = reads, made
    _bias(graph, name, layer, made)
    positions = math.prod(shape) // layer.out_features
    graph.positions[name] = graph.positions.get(name, 0) + positions
    return spread(made, len(shape) - 1, shape)


def embedding(graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size) -> Tensor:
    """Embeddings, [...] to [..., made]."""
    del ids
    made = _made(graph, f"{name}.weight", 1, layer.embedding_dim)
    graph.sizes[name, "embedding_dim"] = made
    return spread(made, len(shape) - 1, shape)


def norm_of_channels(
    graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size
) -> Tensor:
    """Batch and instance norms: [n, c, ...], each channel by itself."""
    if ids.dim() < 2:
        return ids
    channels = along(graph, ids, 1, name)
    graph.sizes[name, "num_features"] = channels
    _scales(graph, name, layer, channels)
    return spread(channels, 1, shape)


def norm_of_groups(
    graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size
) -> Tensor:
    """Group norms: groups stay of one size. What is left is brought to mean 0 and spread 1."""
    channels = along(graph, ids, 1, name)
    graph.atoms.join_along(channels.view(layer.num_groups, -1), 0)
    graph.sizes[name, "num_channels"] = channels
    _scales(graph, name, layer, channels)
    return spread(channels, 1, shape)


def norm_of_layer(
    graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size
) -> Tensor:
    """Layer norms over the last dimension. What is left is brought to mean 0 and spread 1."""
    if len(layer.normalized_shape) != 1:
        graph.atoms.hold(ids, f"{name} is a norm over {len(layer.normalized_shape)} dimensions")
        return ids
    channels = along(graph, ids, ids.dim() - 1, name)
    graph.sizes[name, "normalized_shape"] = channels
    _scales(graph, name, layer, channels)
    return spread(channels, len(shape) - 1, shape)


def slope(graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size) -> Tensor:
    """PReLU, with one slope or one for each channel."""
    del shape
    if layer.num_parameters > 1:
        channels = along(graph, ids, 1, name)
        graph.add(f"{name}.weight", 0, channels, "scales")
        graph.sizes[name, "num_parameters"] = channels
    return ids


def over_places(
    graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size
) -> Tensor:
    """Poolings and changes of size, [n, c, ...] or [c, ...]: each channel by itself."""
    places = next((int(d) for d in "123" if type(layer).__name__.endswith(f"{d}d")), ids.dim() - 2)
    dim = ids.dim() - places - 1
    return spread(along(graph, ids, dim, name), dim, shape)


def pixel_shuffle(
    graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size
) -> Tensor:
    """Blocks of channels that become one channel of a larger map go together."""
    blocks = along(graph, ids, 1, name).view(-1, layer.upscale_factor**2)
    graph.atoms.join_along(blocks, 1)
    return spread(graph.atoms.find(blocks[:, 0]), 1, shape)


def channel_shuffle(
    graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size
) -> Tensor:
    """Groups of channels interleaved: each keeps the same ones."""
    del shape
    graph.atoms.join_along(along(graph, ids, 1, name).view(layer.groups, -1), 0)
    made: Tensor = moved(layer, ids)
    return made


def softmax(graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size) -> Tensor:
    """Shares along a dimension: with a channel less, all others would change."""
    del shape
    dim = layer.dim if layer.dim is not None else 1
    if graph.atoms.varies(ids, dim):
        graph.atoms.hold(ids, f"{name} divides by the sum over channels")
    return ids


def moved(move: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run an operation that only moves elements on numbers of channels.

    Some of them are not written for integers; float64 holds the numbers exactly.
    """
    as_float = torch.fx.node.map_aggregate((args, kwargs), _to_float)
    made = move(*as_float[0], **as_float[1])
    return torch.fx.node.map_aggregate(made, _to_integer)


def _to_float(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) else value


def _to_integer(value: Any) -> Any:
    return value.long() if isinstance(value, Tensor) else value


def _move(graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size) -> Tensor:
    del graph, name, shape
    made: Tensor = moved(layer, ids)
    return made


def _pass(graph: ChannelGraph, name: str, layer: Any, ids: Tensor, shape: torch.Size) -> Tensor:
    del graph, name, layer, shape
    return ids


def _made(graph: ChannelGraph, weight: str, dim: int, count: int, groups: int = 1) -> Tensor:
    """Return the channels a weight makes: new ones, or those of its first use."""
    if known := graph.slots.get((weight, dim)):
        return known.ids
    made = graph.atoms.fresh(count // groups).repeat(groups)
    graph.add(weight, dim, made, "makes")
    return made


def _bias(graph: ChannelGraph, name: str, layer: Any, made: Tensor) -> None:
    if layer.bias is not None:
        graph.add(f"{name}.bias", 0, made, "scales")


def _scales(graph: ChannelGraph, name: str, layer: Any, channels: Tensor) -> None:
    for part in ("weight", "bias", "running_mean", "running_var"):
        if getattr(layer, part, None) is not None:
            graph.add(f"{name}.{part}", 0, channels, "scales")


POINTWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.LogSigmoid,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.Identity,
)  # fmt: skip
"""Layers that treat each element by itself."""

MODULE_RULES: tuple[tuple[tuple[type[nn.Module], ...], Rule], ...] = (
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolution),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), transposed),
    ((nn.Linear,), linear),
    ((nn.Embedding,), embedding),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), norm_of_channels),
    ((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), norm_of_channels),
    ((nn.GroupNorm,), norm_of_groups),
    ((nn.LayerNorm, nn.RMSNorm), norm_of_layer),
    ((nn.PReLU,), slope),
    ((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), over_places),
    ((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), over_places),
    ((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), over_places),
    ((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), over_places),
    ((nn.Upsample,), over_places),
    ((nn.PixelShuffle,), pixel_shuffle),
    ((nn.ChannelShuffle,), channel_shuffle),
    ((nn.Softmax, nn.LogSoftmax), softmax),
    ((nn.Flatten, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d), _move),
    ((nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d), _move),
    (POINTWISE, _pass),
)
