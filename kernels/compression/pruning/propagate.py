"""Sends the numbers of channels through the graph of a net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from kernels.compression.pruning.channel_graph import ChannelGraph, trace
from kernels.compression.pruning.counted import OF_SHAPES, Counted
from kernels.compression.pruning.module_rules import MODULE_RULES, held
from kernels.compression.pruning.operation_rules import (
    IN_PLACE,
    OPERATION_RULES,
    name_of,
    ordered,
    pointwise,
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
    through.add_parameters(model)
    run = {str(node.target) for node in traced.graph.nodes if node.op != "output"}
    through.channels.unreached = tuple(
        name
        for name, layer in model.named_modules()
        if any(True for _ in layer.parameters(recurse=False))
        and not any(
            f"{each}.".startswith(f"{name}.") or f"{name}.".startswith(f"{each}.") for each in run
        )
    )
    return through.channels


class _Propagation(fx.Interpreter):
    """Runs a graph on numbers of channels."""

    def __init__(self, graph: fx.GraphModule, shapes: dict[str, Any]) -> None:
        super().__init__(graph)
        self.channels = ChannelGraph()
        self.shapes = shapes
        self._parameters: dict[str, Tensor] = {}
        self._counted = Counted(self.channels.atoms)

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
        name = name_of(n.target)
        if name == "getattr":
            if isinstance(args[0], tuple) and args[1] in _PARTS:
                return args[0][_PARTS.index(args[1])]
            name = args[1]
        args, kwargs = ordered(args, kwargs)
        if name in OF_SHAPES or not tensors_of(args, kwargs):
            return self._of_shapes(n, name, args, kwargs)
        if (rule := OPERATION_RULES.get(name, unknown)) is pointwise:
            self._hold_counted(n, "computes with")
        made = rule(self.channels, n, args, kwargs, shape)
        if name.endswith("_") or name in IN_PLACE:
            first = n.args[0]
            if isinstance(first, fx.Node):
                self.env[first] = made
        return made

    def _of_shapes(self, n: fx.Node, name: str, args: Any, kwargs: Any) -> Any:
        """Run what asks for shapes, or makes something of them; tensors it makes are constants."""
        made = getattr(super(), n.op)(n.target, args, kwargs)
        if not isinstance(made, Tensor):
            self._counted.see(n, name, args, made)
            return made
        if self._hold_counted(n, "is made of"):
            return held(self.channels, made.shape, f"{n.name} has a number of channels")
        return torch.zeros(made.shape, dtype=torch.int64)

    def _hold_counted(self, n: fx.Node, does: str) -> bool:
        """Hold the channels whose number a node uses; return whether there are any."""
        counted = self._counted.of(n)
        for ids in counted:
            self.channels.atoms.hold(ids, f"{n.name} {does} a number of channels")
        return bool(counted)

    def add_parameters(self, model: nn.Module) -> None:
        """Add slots of the parameters that the graph uses without a layer."""
        graph = self.channels
        for (tensor, _), slot in graph.slots.items():
            if tensor in self._parameters:
                graph.atoms.hold(slot.ids, f"{tensor} is read without its layer, too")
        made = [slot.ids for slot in graph.slots.values() if slot.role == "makes"]
        owned = graph.atoms.find(torch.cat(made)) if made else torch.zeros(0).long()
        known = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
        for name, ids in self._parameters.items():
            found = graph.atoms.find(ids)
            found = torch.where(torch.isin(found, owned), found, 0)
            if not bool(found.any()):
                continue
            dims = [dim for dim in range(ids.dim()) if graph.atoms.varies(found, dim)]
            if len(dims) == 1 and name in known:
                others = [dim for dim in range(ids.dim()) if dim != dims[0]]
                graph.add(name, dims[0], found.amax(others) if others else found, "scales")
            elif len(dims) == 1:
                graph.atoms.hold(found, f"{name} is a constant in forward(); make it a buffer")
            else:
                graph.atoms.hold(found, f"{name} has channels along {len(dims)} dimensions")

    def _parameter(self, name: str) -> Tensor:
        if name not in self._parameters:
            value = self.fetch_attr(name)
            self._parameters[name] = self.channels.atoms.fresh(value.numel()).view(value.shape)
        return self._parameters[name]

    def _layer(self, node: fx.Node, args: Any, kwargs: Any, shape: Any) -> Any:
        name, layer = str(node.target), self.fetch_attr(str(node.target))
        ids = tensors_of(args, kwargs)
        rule = next((rule for kinds, rule in MODULE_RULES if type(layer) in kinds), None)
        weight = getattr(layer, "weight", None)
        plain = weight is None or isinstance(weight, nn.Parameter)
        if rule is not None and plain and len(ids) == 1 and isinstance(shape, torch.Size):
            return rule(self.channels, name, layer, ids[0], shape)
        why = f"{name} ({type(layer).__name__}) is not known to the pruner"
        for each in ids:
            self.channels.atoms.hold(each, why)
        return held(self.channels, shape, why)
