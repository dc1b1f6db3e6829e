"""Which channels of a net depend on each other, found by sending their numbers through its graph.

The graph of operations (``torch.fx``) is run once with tensors of the same shapes that hold channel
numbers instead of values. Whatever only moves elements (views, permutations, concatenations,
shuffles) is simply executed on the numbers; what adds or multiplies joins the numbers that meet;
what makes channels (convolutions, linear layers, embeddings) gives out new ones. An operation
nobody described holds what reaches it. This is the dependency graph of Fang et al. 2023
(https://arxiv.org/abs/2301.12900) with elements in the place of layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from kernels.compression.pruning.atoms import Atoms
from kernels.compression.pruning.errors import PruningError

Role = Literal["makes", "reads", "scales"]
"""Filters make channels, the weights behind them read them; norms, biases, and depthwise filters
scale each by itself."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One dimension of a parameter or buffer, each entry of which belongs to a channel.

    Attributes:
        tensor: Full name of the parameter or buffer.
        dim: The dimension.
        ids: Channel of each entry, int64 [size].
        role: What the entries do with the channels.
    """

    tensor: str
    dim: int
    ids: Tensor
    role: Role


@dataclass(slots=True)
class ChannelGraph:
    """Channels of a net and the parameters they own.

    Attributes:
        atoms: The sets of channels.
        slots: All dimensions that lose entries with a channel, by (tensor, dimension).
        sizes: Settings of layers that tell a number of channels: (layer, name) -> the channels.
        positions: Weighted layer -> how often its weights are multiplied for the example.
        unreached: Layers with parameters that evaluation does not run.
    """

    atoms: Atoms = field(default_factory=Atoms)
    slots: dict[tuple[str, int], Slot] = field(default_factory=dict)
    sizes: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    unreached: tuple[str, ...] = ()

    def add(self, tensor: str, dim: int, ids: Tensor, role: Role) -> None:
        """Add a slot; used a second time, its channels are joined with those of the first."""
        if known := self.slots.get((tensor, dim)):
            self.atoms.join(known.ids, ids)
        else:
            self.slots[tensor, dim] = Slot(tensor, dim, ids, role)


def trace(model: nn.Module, example: Sequence[Tensor]) -> tuple[fx.GraphModule, dict[str, Any]]:
    """Return the graph of a net in evaluation mode, and the value each node has for the example.

    Raises:
        PruningError: When the net has no fixed graph, ties weights, or does not take the example.
    """
    _refuse_tied(model)
    model.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = fx.symbolic_trace(model)
    except Exception as error:
        raise PruningError(
            f"{type(model).__name__} has no fixed graph: {_first_line(error)}; what it does must "
            "not depend on the values of its inputs"
        ) from error
    values = _Recorder(graph)
    try:
        with torch.no_grad():
            values.run(*example)
    except Exception as error:
        shapes = ", ".join(str(tuple(e.shape)) for e in example)
        raise PruningError(
            f"{type(model).__name__} does not take the example [{shapes}]: {_first_line(error)}; "
            "give inputs as it gets them in use"
        ) from error
    return graph, values.found


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what each node gave, tensors by their shape alone."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.found: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        made = super().run_node(n)
        self.found[n.name] = fx.node.map_aggregate(
            made, lambda each: each.shape if isinstance(each, Tensor) else each
        )
        return made


def _refuse_tied(model: nn.Module) -> None:
    """Refuse parameters that two modules share."""
    seen: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = seen.setdefault(id(parameter), name)
        # The same module under two names is one layer that is called twice.
        if first != name and _module_of(model, first) is not _module_of(model, name):
            raise PruningError(
                f"{first} and {name} are one tensor; a channel cannot be taken out of one alone: "
                f"give {name} weights of its own"
            )


def _module_of(model: nn.Module, tensor: str) -> nn.Module:
    return model.get_submodule(tensor.rpartition(".")[0])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
