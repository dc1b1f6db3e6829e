"""Numbers of channels that a net asks for: what is computed with them changes when channels go.

A view by ``x.shape[1]`` follows the channels; ``x * x.shape[1] ** -0.5`` would change its answers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from kernels.compression.pruning.atoms import Atoms

OF_SHAPES = frozenset(
    {"size", "dim", "numel", "len", "ndimension", "shape", "ndim", "device", "dtype", "_assert"}
)
"""Ask for what is the same with channels in the place of values."""


class Counted:
    """Which results of a graph derive from a number of channels."""

    def __init__(self, atoms: Atoms) -> None:
        self._atoms = atoms
        self._of: dict[fx.Node, list[Tensor]] = {}
        self._shapes: dict[fx.Node, Tensor] = {}

    def see(self, node: fx.Node, name: str, args: tuple[Any, ...], made: Any) -> None:
        """Note a node whose result is no tensor.

        Args:
            node: The node.
            name: What it does.
            args: Its arguments, channels in the place of values.
            made: Its result.
        """
        if name in OF_SHAPES and args and isinstance(args[0], Tensor):
            ids = args[0]
            if isinstance(made, torch.Size):
                self._shapes[node] = ids
            elif name == "size":
                self._note(node, ids, args[1])
            elif name in {"numel", "len"}:
                for dim in range(ids.dim() if name == "numel" else 1):
                    self._note(node, ids, dim)
            return
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        if name == "getitem" and source in self._shapes and isinstance(args[1], int):
            self._note(node, self._shapes[source], args[1])
            return
        self._of[node] = self.of(node)

    def of(self, node: fx.Node) -> list[Tensor]:
        """Return the channels whose number a node's arguments derive from."""
        found = [ids for each in node.all_input_nodes for ids in self._of.get(each, ())]
        shapes = [self._shapes[each] for each in node.all_input_nodes if each in self._shapes]
        return found + [
            ids for ids in shapes if any(self._atoms.varies(ids, d) for d in range(ids.dim()))
        ]

    def _note(self, node: fx.Node, ids: Tensor, dim: int) -> None:
        if self._atoms.varies(ids, dim):
            self._of.setdefault(node, []).append(ids)
