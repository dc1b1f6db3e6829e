"""Puts adapters on a net, picks one, saves them, and works one into the weights.

>>> import torch
>>> from torch import nn
>>> net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
>>> attach(net, LoraConfig(rank=4), "line 3")
>>> [name for name, p in net.named_parameters() if p.requires_grad][:2]
['0.additions.line 3.down', '0.additions.line 3.up']
>>> merged(net, "line 3")
Sequential(
  (0): Linear(in_features=8, out_features=32, bias=True)
  (1): ReLU()
  (2): Linear(in_features=32, out_features=2, bias=True)
)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.compression.adapters.low_rank import (
    Adapted,
    AdapterError,
    Addition,
    LoraConfig,
    Still,
)
from kernels.compression.shared_weights import shared_weights

Kinds = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Embedding


def attach(model: nn.Module, config: LoraConfig, name: str = "default") -> None:
    """Give a net an adapter, and use it; nothing else of the net is trained from here on.

    Args:
        model: The net; its layers are wrapped in place.
        config: What the adapter is made of.
        name: Name of the adapter; a net can have many.

    Raises:
        AdapterError: When the name is taken, or no layer of the net is meant.
    """
    if not name or "." in name or hasattr(nn.ModuleDict, name):
        raise AdapterError(f"an adapter cannot be called {name!r}; give a word without dots")
    if name in names(model):
        raise AdapterError(f"the net has an adapter {name!r}; take another name, or remove it")
    if pair := shared_weights(model):
        raise AdapterError(f"{pair[0]} and {pair[1]} are one tensor; give {pair[1]} its own first")
    chosen = [path for path, _ in _layers(model) if _is_meant(path, config.targets)]
    if not chosen:
        known = ", ".join(path for path, _ in _layers(model)) or "none"
        raise AdapterError(
            f"no layer is called {' or '.join(config.targets) or 'anything'}; those that can take "
            f"an adapter: {known}"
        )
    if "" in chosen:
        raise AdapterError("the net is a single layer; put it into nn.Sequential first")
    model.requires_grad_(requires_grad=False)
    for path in chosen:
        layer = model.get_submodule(path)
        if not isinstance(layer, Adapted):
            layer = Adapted(layer)
            model.set_submodule(path, layer)
        layer.additions[name] = Addition(layer.layer, config)
        layer.train(layer.layer.training)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            # In evaluation it would compute with its layers' weights and never call them.
            module.activation_relu_or_gelu = 0
    _still_norms(model)
    if config.norms:
        for _, still in _stills(model):
            still.own[name] = copy.deepcopy(still.layer).train(still.training)
    use(model, name)


def use(model: nn.Module, name: str | None) -> None:
    """Use an adapter, or none; its additions are what is trained.

    Raises:
        AdapterError: When the net has no such adapter.
    """
    if name is not None:
        _require(model, name)
    for _, layer in _adapted(model):
        layer.in_use = name or ""
        for other, addition in layer.additions.items():
            addition.requires_grad_(other == name)
    for _, still in _stills(model):
        still.in_use = name or ""
        for other, norm in still.own.items():
            norm.requires_grad_(other == name)


def names(model: nn.Module) -> set[str]:
    """Return the names of a net's adapters."""
    return {name for _, layer in _adapted(model) for name in layer.additions}


def state_of(model: nn.Module, name: str) -> dict[str, Tensor]:
    """Return the tensors of an adapter, to be saved; the net itself is not among them.

    Raises:
        AdapterError: When the net has no such adapter.
    """
    _require(model, name)
    return {key: tensor.detach().clone() for key, tensor in _tensors(model, name)}


def load(model: nn.Module, state: Mapping[str, Tensor], config: LoraConfig, name: str) -> None:
    """Put a saved adapter on a net, and use it.

    Raises:
        AdapterError: When its tensors are not those that its config gives on this net.
    """
    used = {layer.in_use for _, layer in _adapted(model)} - {""}
    attach(model, config, name)
    wanted = state_of(model, name)
    wrong = [
        key
        for key in sorted(wanted.keys() | state.keys())
        if key not in wanted or key not in state or wanted[key].shape != state[key].shape
    ]
    if wrong:
        remove(model, name)
        use(model, next(iter(used), None))
        raise AdapterError(
            f"the adapter does not fit the net at {wrong[0]} and {len(wrong) - 1} more; give the "
            "config it was trained with, and the net it was trained on"
        )
    with torch.no_grad():
        for key, tensor in _tensors(model, name):
            tensor.copy_(state[key])


def remove(model: nn.Module, name: str) -> None:
    """Take an adapter off; a net without any is as it was before, but for what is trained.

    Raises:
        AdapterError: When the net has no such adapter.
    """
    _require(model, name)
    for path, layer in list(_adapted(model)):
        if name in layer.additions:
            del layer.additions[name]
        if not layer.additions:
            model.set_submodule(path, layer.layer)
    for _, layer in _adapted(model):
        layer.in_use = "" if layer.in_use == name else layer.in_use
    for _, still in _stills(model):
        still.in_use = "" if still.in_use == name else still.in_use
        if name in still.own:
            del still.own[name]
    if not names(model):
        _restore(model)


def merged(model: nn.Module, name: str) -> nn.Module:
    """Return a copy of the net with an adapter worked into its weights, and no adapters on it.

    The copy costs what the net did. Sums are made in float64 and rounded once.

    Raises:
        AdapterError: When the net has no such adapter, or a layer holds weights that are packed.
    """
    _require(model, name)
    made = copy.deepcopy(model)
    for path, adapted in list(_adapted(made)):
        layer = adapted.layer
        if name in adapted.additions:
            if not isinstance(layer, Kinds):
                raise AdapterError(
                    f"{path} is {type(layer).__name__}, whose weights are packed; unpack it first"
                )
            addition = adapted.additions[name]
            assert isinstance(addition, Addition)  # noqa: S101 - narrows the type
            with torch.no_grad():
                layer.weight.copy_(layer.weight.double() + addition.delta(layer))
        made.set_submodule(path, layer)
    for _, still in _stills(made):
        if name in still.own:
            still.layer = still.own[name]
    _restore(made)
    return made.requires_grad_()


def _require(model: nn.Module, name: str) -> None:
    if name not in names(model):
        raise AdapterError(f"no adapter {name!r}; the net has {sorted(names(model)) or 'none'}")


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Return all layers that can take an adapter, wrapped or not, with their names."""
    inside: set[str] = set()
    for path, layer in model.named_modules():
        if any(path.startswith(f"{outer}.") for outer in inside):
            continue
        if isinstance(layer, nn.MultiheadAttention):
            inside.add(path)  # it reads its projections' weights and never calls them
        elif isinstance(layer, Adapted):
            inside.add(path)
            yield path, layer
        elif isinstance(layer, Kinds) or hasattr(layer, "takes_adapter"):
            yield path, layer


def _adapted(model: nn.Module) -> Iterator[tuple[str, Adapted]]:
    for path, layer in model.named_modules():
        if isinstance(layer, Adapted):
            yield path, layer


def _stills(model: nn.Module) -> Iterator[tuple[str, Still]]:
    for path, layer in model.named_modules():
        if isinstance(layer, Still):
            yield path, layer


def _tensors(model: nn.Module, name: str) -> Iterator[tuple[str, Tensor]]:
    """Return all tensors of an adapter: its additions, and its norms with their statistics."""
    for path, layer in _adapted(model):
        if name in layer.additions:
            for part, tensor in layer.additions[name].named_parameters():
                yield f"{path}.{part}", tensor
    for path, still in _stills(model):
        if name in still.own:
            for part, tensor in still.own[name].state_dict(keep_vars=True).items():
                yield f"{path}.{part}", tensor


def _still_norms(model: nn.Module) -> None:
    """Let all batch norms of the net keep their statistics."""
    inside = tuple(f"{path}." for path, _ in _stills(model))
    for path, module in list(model.named_modules()):
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - all of them
        if norm and not path.startswith(inside):
            model.set_submodule(path, Still(module))


def _is_meant(path: str, targets: tuple[str, ...]) -> bool:
    return not targets or any(path == each or path.endswith(f".{each}") for each in targets)


def _restore(model: nn.Module) -> None:
    """Let norms count again, and layers of torch take their short cut."""
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.TransformerEncoderLayer):
            codes = {functional.relu: 1, functional.gelu: 2}
            module.activation_relu_or_gelu = codes.get(module.activation, 0)
        if isinstance(module, Still):
            model.set_submodule(path, module.layer.train(module.training))
