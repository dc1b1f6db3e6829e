"""Sends the numbers of channels through the graph of a net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from kernels.compression.pruning.channel_graph import ChannelGraph, trace
from kernels.compression.pruning.module_rules import MODULE_RULES, held
from kernels.compression.pruning.operation_rules import (
    OF_SHAPES,
    OPERATION_RULES,
    name_of,
    tensors_of,
    unknown,
)

_PARTS = ("values", "indices")
"""What sorts, extremes and the like return, by name."""


def channel_graph(model: nn.Module, example: Sequence[Tensor]) -> ChannelGraph:
    """Return which channels of a net depend on each other, and the parameters they own.

    Args:
        model: The net; it is put into evaluation mode.
        example: Its inputs, as it gets them in use; a small batch and size suffice.

    Raises:
        PruningError: When the net has no fixed graph, ties weights, or does not take the example.
    """
    traced, shapes = trace(model, example)
    through = _Propagation(traced, shapes)
    through.run(*example)
    through.add_parameters()
    return through.channels


class _Propagation(fx.Interpreter):
    """Runs a graph on numbers of channels."""

    def __init__(self, graph: fx.GraphModule, shapes: dict[str, Any]) -> None:
        super().__init__(graph)
        self.channels = ChannelGraph()
        self.shapes = shapes
        self._parameters: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        shape = self.shapes[n.name]
        match n.op:
            case "placeholder":
                return held(self.channels, shape, f"input {n.name} of the net")
            case "get_attr":
                return self._parameter(str(n.target))
            case "call_module":
                return self._layer(n, args, kwargs, shape)
            case "output":
                for ids in tensors_of(args):
                    self.channels.atoms.hold(ids, "output of the net")
                return args[0]
        return self._operation(n, args, kwargs, shape)

    def _operation(self, n: fx.Node, args: Any, kwargs: Any, shape: Any) -> Any:
        if name_of(n.target) == "getattr" and isinstance(args[0], tuple):
            return args[0][_PARTS.index(args[1])]
        if not tensors_of(args, kwargs) or name_of(n.target) in OF_SHAPES:
            made = getattr(super(), n.op)(n.target, args, kwargs)
            # What is made of shapes alone, such as zeros or a range, has no channels.
            return fx.node.map_aggregate(
                made, lambda each: _constant(each) if isinstance(each, Tensor) else each
            )
        rule = OPERATION_RULES.get(name_of(n.target), unknown)
        return rule(self.channels, n, args, kwargs, shape)

    def add_parameters(self) -> None:
        """Add slots of the parameters that the graph uses without a layer."""
        graph = self.channels
        made = [slot.ids for slot in graph.slots.values() if slot.role == "makes"]
        owned = graph.atoms.find(torch.cat(made)) if made else torch.zeros(0).long()
        for name, ids in self._parameters.items():
            found = graph.atoms.find(ids)
            if not bool(torch.isin(found, owned).any()):
                continue
            dims = [dim for dim in range(ids.dim()) if graph.atoms.varies(ids, dim)]
            if len(dims) == 1:
                others = [dim for dim in range(ids.dim()) if dim != dims[0]]
                graph.add(name, dims[0], found.amax(others) if others else found, "scales")
            else:
                graph.atoms.hold(ids, f"{name} has channels along {len(dims)} dimensions")

    def _parameter(self, name: str) -> Tensor:
        if name not in self._parameters:
            value = self.fetch_attr(name)
            self._parameters[name] = self.channels.atoms.fresh(value.numel()).view(value.shape)
        return self._parameters[name]

    def _layer(self, node: fx.Node, args: Any, kwargs: Any, shape: Any) -> Any:
        name, layer = str(node.target), self.fetch_attr(str(node.target))
        ids = tensors_of(args, kwargs)
        rule = next((rule for kinds, rule in MODULE_RULES if type(layer) in kinds), None)
        if rule is not None and len(ids) == 1 and isinstance(shape, torch.Size):
            return rule(self.channels, name, layer, ids[0], shape)
        why = f"{name} ({type(layer).__name__}) is not known to the pruner"
        for each in ids:
            self.channels.atoms.hold(each, why)
        return held(self.channels, shape, why)


def _constant(value: Tensor) -> Tensor:
    return torch.zeros(value.shape, dtype=torch.int64)
