"""A graph as a network reads it, and what is known of its edges: relation and time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kernels.ops.graph.csr import Compressed, CsrGraph
from tasks.explain.errors import GraphInputError

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GraphInputs:
    """Nodes and edges; duplicates and self loops are edges.

    Attributes:
        x: Node features ``[n, F]``.
        edge_index: int64 ``[2, E]``, sources above targets.
        edge_inputs: Keyword of the module -> tensor ``[E, ...]`` (``edge_attr``, ``edge_type``).
        relation: Name of each edge's relation, position in ``relations`` ``[E]``; None for one.
        relations: Names of the relations.
        time: Time of each edge ``[E]`` in any unit; None where edges have none.
        now: Instant that ages are counted to; None: that of the latest edge around a node.
        clock: How a time is said.
        names: Key of each node, length n; None: its number.
    """

    x: Tensor
    edge_index: Tensor
    edge_inputs: Mapping[str, Tensor] = field(default_factory=dict)
    relation: Ints | None = None
    relations: tuple[str, ...] = ("neighbours",)
    time: NDArray[np.int64] | None = None
    now: int | None = None
    clock: Callable[[int], str] = str
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Check that all fit each other.

        Raises:
            GraphInputError: Otherwise.
        """
        if self.x.ndim != 2 or not len(self.x):
            raise GraphInputError(f"x must be [nodes, features], got {list(self.x.shape)}")
        try:
            grouped = CsrGraph(self.edge_index, len(self.x), len(self.x)).csr
        except ValueError as error:
            raise GraphInputError(str(error)) from error
        edges = self.edge_index.shape[1]
        columns = {**self.edge_inputs, "relation": self.relation, "time": self.time}
        for name, column in columns.items():
            if column is not None and len(column) != edges:
                raise GraphInputError(f"{name} has {len(column)} rows for {edges} edges")
        if self.relation is not None and edges:
            low, high = int(self.relation.min()), int(self.relation.max())
            if low < 0 or high >= len(self.relations):
                raise GraphInputError(
                    f"relations are numbered {low} to {high}, {len(self.relations)} have names; "
                    "name each in `relations`"
                )
        if self.names is not None and len(self.names) != len(self.x):
            raise GraphInputError(f"{len(self.names)} names for {len(self.x)} nodes")
        object.__setattr__(self, "_by_target", grouped)

    @property
    def by_target(self) -> Compressed:
        """Edges by their target."""
        grouped: Compressed = self.__dict__["_by_target"]
        return grouped

    def name(self, node: int) -> str:
        """Return the key of a node."""
        return str(node) if self.names is None else self.names[node]
