"""What each function and method does to the channels that reach it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from kernels.compression.pruning.channel_graph import ChannelGraph
from kernels.compression.pruning.module_rules import along, held, moved, spread

Rule = Callable[[ChannelGraph, fx.Node, tuple[Any, ...], dict[str, Any], Any], Any]
"""(graph, node, arguments with channels in the place of values, named ones, shape of the result)
-> channels of the result."""


def name_of(target: Any) -> str:
    """Return the name operations are told apart by: ``add`` of ``operator.add`` and ``x.add``."""
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


def tensors_of(*values: Any) -> list[Tensor]:
    """Return all tensors among arguments, however deep."""
    found: list[Tensor] = []
    fx.node.map_aggregate(
        values, lambda each: found.append(each) if isinstance(each, Tensor) else each
    )
    return found


def ordered(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return arguments with the input first, and ``dim`` for what NumPy calls ``axis``."""
    kwargs = {{"axis": "dim"}.get(name, name): value for name, value in kwargs.items()}
    if "input" in kwargs:
        args = (kwargs.pop("input"), *args)
    if "tensors" in kwargs:
        args = (kwargs.pop("tensors"), *args)
    return args, kwargs


def pointwise(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """Each element of the result depends on those at its place; they are joined."""
    tensors = tensors_of(args, kwargs)
    wide = [each.broadcast_to(shape) for each in tensors]
    differing = {d for d in range(len(shape)) if any(graph.atoms.varies(w, d) for w in wide)}
    found = torch.zeros(shape, dtype=torch.int64)
    for each, broad in zip(tensors, wide, strict=True):
        sizes = (1,) * (len(shape) - each.dim()) + tuple(each.shape)
        if any(sizes[d] == 1 < shape[d] for d in differing):
            # One value for all channels: it is none of them, and stays.
            graph.atoms.hold(each, f"{node.name} spreads it over channels")
            continue
        graph.atoms.join(found, broad)
        found = torch.where(found == 0, broad, found)
    return found


def turned(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """``x.T``, ``x.mT`` and their like."""
    del graph, kwargs, shape
    return getattr(args[0], str(node.args[1]))


def move(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """Elements change their place and nothing else."""
    del graph, shape
    if node.op == "call_method":
        # Channels spread over places lie in memory in another way than values do.
        name = {"view": "reshape"}.get(str(node.target), str(node.target))
        return moved(getattr(torch.Tensor, name), *args, **kwargs)
    function: Any = node.target
    return moved(function, *args, **kwargs)


def reshape(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """Views: along a size that is written out, as many channels stay as there are."""
    made = move(graph, node, args, kwargs, shape)
    written = _written_sizes(node)
    differing = [dim for dim in range(made.dim()) if graph.atoms.varies(made, dim)]
    fixed = [dim for dim in differing if dim in written]
    for dim in fixed:
        graph.atoms.join_along(made, dim)
    free = len(differing) - len(fixed)
    if fixed and not free:
        size = written[fixed[0]]
        graph.atoms.hold(made, f"{node.name} views channels by the written size {size}; write -1")
    elif free > 1:
        graph.atoms.hold(made, f"{node.name} views channels along two sizes, neither written")
    return made


def _written_sizes(node: fx.Node) -> dict[int, int]:
    """Return the sizes of a view that are numbers in the source, by dimension."""
    name = name_of(node.target)
    if name in {"flatten", "ravel"}:
        return {}
    sizes: Any = node.args[1:] or tuple(node.kwargs.values())[-1:]
    if len(sizes) == 1 and isinstance(sizes[0], Sequence):
        sizes = sizes[0]
    return {i: s for i, s in enumerate(sizes) if isinstance(s, int) and s != -1}


def concatenate(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """Tensors beside each other; in the other dimensions their sizes stay equal."""
    tensors, dim = tensors_of(args, kwargs), kwargs.get("dim", args[1] if len(args) > 1 else 0)
    dim %= tensors[0].dim()
    others = [d for d in range(tensors[0].dim()) if d != dim]
    if any(graph.atoms.varies(each, d) for each in tensors for d in others):
        for each in tensors[1:]:
            graph.atoms.join(tensors[0].amax(dim), each.amax(dim))
    return move(graph, node, args, kwargs, shape)


def cut(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """Parts by a written size or place: channels along that dimension stay."""
    if len(tensors_of(args, kwargs)) > 1:
        return unknown(graph, node, args, kwargs, shape)
    ids: Tensor = args[0]
    if node.all_input_nodes[0].op == "get_attr":
        return move(graph, node, args, kwargs, shape)  # what is left of a parameter has no channel
    touched = _dims_touched(name_of(node.target), args, kwargs)
    if any(graph.atoms.varies(ids, dim) for dim in touched):
        graph.atoms.hold(ids, f"{node.name} takes channels by their number")
    return move(graph, node, args, kwargs, shape)


def _dims_touched(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> set[int]:
    """Return the dimensions whose elements an operation picks by number."""
    count = args[0].dim()
    if name == "getitem":
        return _dims_indexed(args[1], count)
    place, usual = {
        "split": (2, 0), "split_with_sizes": (2, 0), "tensor_split": (2, 0), "unbind": (1, 0),
        "roll": (2, None), "narrow": (1, None), "select": (1, None),
    }.get(name, (len(args), None))  # fmt: skip
    given = kwargs.get("dim", kwargs.get("dims", args[place] if len(args) > place else usual))
    if given is None:
        return set(range(count))
    return {d % count for d in ([given] if isinstance(given, int) else given)}


def _dims_indexed(index: Any, count: int) -> set[int]:
    """Return the dimensions that ``x[index]`` does not take whole."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(not (part is None or part is ... or isinstance(part, int | slice)) for part in parts):
        return set(range(count))
    spoken = sum(part is not None and part is not ... for part in parts)
    touched, dim = set(), 0
    for part in parts:
        if part is ...:
            dim += count - spoken
        elif part is not None:
            if part != slice(None):
                touched.add(dim)
            dim += 1
    return touched


def pad(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """Borders: constants, or elements from inside."""
    del shape
    amounts = kwargs.get("pad", args[1] if len(args) > 1 else ())
    mode = kwargs.get("mode", args[2] if len(args) > 2 else "constant")
    ids: Tensor = args[0]
    touched = {ids.dim() - 1 - i // 2 for i, amount in enumerate(amounts) if amount}
    if any(graph.atoms.varies(ids, dim) for dim in touched):
        graph.atoms.hold(ids, f"{node.name} adds to channels")
    return moved(functional.pad, ids, amounts, mode)


def spread_like(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """``x.expand_as(y)``: where x is spread over channels of y, these stay."""
    ids, like = tensors_of(args, kwargs)[:2]
    sizes = (1,) * (like.dim() - ids.dim()) + tuple(ids.shape)
    for dim, size in enumerate(sizes):
        if size == 1 and graph.atoms.varies(like, dim):
            graph.atoms.hold(like, f"{node.name} spreads something over its channels")
    return pointwise(graph, node, (ids.expand_as(like),), {}, shape)


def chunk(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """Equal parts: each loses as many channels as the others."""
    made = move(graph, node, args, kwargs, shape)
    dim = kwargs.get("dim", args[2] if len(args) > 2 else 0)
    if graph.atoms.varies(args[0], dim):
        if len({part.shape[dim] for part in made}) > 1:
            _hold_all(graph, args[0], f"{node.name} makes parts of unequal size")
        else:
            for part in made[1:]:
                graph.atoms.join(made[0], part)
    return made


def item(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """``x[...]`` of a tensor or of a tuple of them."""
    if isinstance(args[0], Tensor):
        return cut(graph, node, args, kwargs, shape)
    return args[0][args[1]]


def over_places(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """Poolings and changes of size, [n, c, ...]."""
    ids = tensors_of(args, kwargs)[0]
    return spread(along(graph, ids, 1, node.name), 1, shape)


def reduction(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """Means and extremes: over places they keep channels, over channels these stay."""
    ids: Tensor = args[0]
    if len(tensors_of(args, kwargs)) > 1:
        return pointwise(graph, node, args, kwargs, shape)
    place = 2 if name_of(node.target) == "norm" else 1  # of norms the kind comes before
    dims: Any = kwargs.get("dim", args[place] if len(args) > place else None)
    if dims is None or isinstance(dims, bool):
        dims = range(ids.dim())
    dims = [d % ids.dim() for d in ([dims] if isinstance(dims, int) else dims)]
    for dim in dims:
        if graph.atoms.varies(ids, dim):
            graph.atoms.hold(ids, f"{node.name} is taken over channels")
            break
    of_values = shape if isinstance(shape, torch.Size) else shape[0]
    values = ids.amax(dims, keepdim=len(of_values) == ids.dim()).reshape(of_values)
    if isinstance(shape, torch.Size):
        return values
    return values, torch.zeros(shape[1], dtype=torch.int64)


def softmax(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """Shares along a dimension: with a channel less, all others would change."""
    del shape
    dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
    if graph.atoms.varies(args[0], dim):
        graph.atoms.hold(args[0], f"{node.name} divides by the sum over channels")
    return args[0]


def norm_of_layer(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """``layer_norm`` with parameters of the net; its size is written in the graph."""
    sizes = node.args[1] if len(node.args) > 1 else node.kwargs.get("normalized_shape")
    graph.atoms.hold(args[0], f"{node.name} is a norm of the written size {sizes}")
    return pointwise(graph, node, args, kwargs, shape)


def unknown(
    graph: ChannelGraph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any
) -> Any:
    """Nobody said what it does, so all channels that reach it stay."""
    why = f"{node.name} ({name_of(node.target)}) is not known to the pruner"
    _hold_all(graph, (args, kwargs), why)
    return held(graph, shape, why)


def _hold_all(graph: ChannelGraph, values: Any, why: str) -> None:
    for ids in tensors_of(values):
        graph.atoms.hold(ids, why)


PASSING = (
    "relu", "relu_", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish",
    "sigmoid", "tanh", "hardswish", "hardsigmoid", "hardtanh", "softplus", "logsigmoid",
    "dropout", "dropout2d", "dropout3d", "alpha_dropout", "stochastic_depth", "add", "sub", "mul",
    "truediv", "div", "iadd", "isub", "imul", "itruediv", "add_", "sub_", "mul_", "div_", "neg",
    "abs", "exp", "log", "sqrt", "rsqrt", "pow", "square", "clamp", "clamp_", "maximum",
    "minimum", "where", "float", "double", "half", "to", "type", "contiguous", "clone", "detach",
    "lerp", "erf", "sign", "reciprocal", "square_", "cos", "sin", "round", "zeros_like",
    "ones_like", "full_like", "eq", "ne", "lt", "le", "gt", "ge",
)  # fmt: skip
MOVING = (
    "permute", "transpose", "t", "swapaxes", "movedim", "unsqueeze", "squeeze", "expand",
    "flip", "repeat", "repeat_interleave", "tile",
)  # fmt: skip
CUTTING = (
    "narrow", "select", "split", "split_with_sizes", "unbind", "unfold", "roll", "unflatten",
    "tensor_split",
)  # fmt: skip
POOLING = (
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "interpolate", "upsample",
)  # fmt: skip
OPERATION_RULES: dict[str, Rule] = {
    **dict.fromkeys(PASSING, pointwise),
    **dict.fromkeys(MOVING, move),
    **dict.fromkeys(CUTTING, cut),
    **dict.fromkeys(POOLING, over_places),
    **dict.fromkeys(("view", "reshape", "flatten", "ravel"), reshape),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "std", "var", "norm", "max", "min"), reduction),
    **dict.fromkeys(("softmax", "log_softmax"), softmax),
    **dict.fromkeys(("T", "mT", "data"), turned),
    "expand_as": spread_like,
    "pad": pad,
    **dict.fromkeys(("cat", "concat"), concatenate),
    "chunk": chunk,
    "getitem": item,
    "layer_norm": norm_of_layer,
}
"""Name of a function or method -> what it does to channels."""

IN_PLACE = frozenset({"iadd", "isub", "imul", "itruediv"})
"""Change their first argument, as names that end with ``_`` do."""
