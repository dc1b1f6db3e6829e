"""A graph as compressed sparse rows of its targets (CSR), and on demand of its sources (CSC).

Message passing reads the edges of one target at a time, its gradient those of one source: both
orders are made once per graph and kept (iSpLib, Anik et al., WWW 2024: the cached transpose is
what training gains most from). Node and edge numbers are int32: half the memory traffic.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.jit import compiled_releasing

INT32_MAX = 2**31 - 1
Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Compressed:
    """Edges grouped by one of their ends.

    Attributes:
        indptr: int32 [rows + 1]; row r owns the places ``indptr[r]`` to ``indptr[r + 1] - 1``.
        indices: int32 [edges], the node at the other end of the edge in each place.
        edge: int32 [edges], which edge lies in each place.
    """

    indptr: Tensor
    indices: Tensor
    edge: Tensor

    @classmethod
    def group(cls, rows: NDArray[Any], columns: NDArray[Any], n: int) -> Compressed:
        """Group edges by ``rows`` (0 to n - 1), keeping their order within each row."""
        indptr, indices = np.zeros(n + 1, np.int32), np.empty(len(rows), np.int32)
        edge = np.empty(len(rows), np.int32)
        _group(rows, columns, indptr, indices, edge)
        return cls(*(torch.from_numpy(a) for a in (indptr, indices, edge)))

    def arrays(self) -> tuple[Ints, Ints, Ints]:
        """Return the three as NumPy arrays that share their memory."""
        return self.indptr.numpy(), self.indices.numpy(), self.edge.numpy()

    def to(self, device: torch.device) -> Compressed:
        """Return the same on ``device``."""
        return Compressed(*(t.to(device) for t in (self.indptr, self.indices, self.edge)))


class CsrGraph:
    """Edges from ``n_src`` sources to ``n_dst`` targets; duplicates and self loops are edges.

    Attributes:
        n_src: Number of sources.
        n_dst: Number of targets.
        n_edges: Number of edges.
        csr: Edges by target, in the order given within each; ``edge`` is an edge's position in
            the ``edge_index`` that the graph was made from.
    """

    def __init__(self, edge_index: Tensor, n_src: int, n_dst: int) -> None:
        """Group the edges.

        Args:
            edge_index: int64 or int32 [2, edges]: sources above, targets below.
            n_src: Number of sources.
            n_dst: Number of targets.

        Raises:
            ValueError: For another shape or dtype, for ends out of range, and for more nodes or
                edges than int32 can number.
        """
        _check(edge_index, n_src, n_dst)
        self.n_src, self.n_dst, self.n_edges = n_src, n_dst, edge_index.shape[1]
        source, target = edge_index.detach().cpu().numpy()
        self.csr = Compressed.group(target, source, n_dst).to(edge_index.device)

    @cached_property
    def csc(self) -> Compressed:
        """Edges by source, made when first read; ``edge`` is an edge's place in ``csr``."""
        source, target = self.csr.indices.cpu().numpy(), self.targets.cpu().numpy()
        return Compressed.group(source, target, self.n_src).to(self.csr.indptr.device)

    @cached_property
    def degree(self) -> Tensor:
        """Edges of every target, int64 [n_dst]."""
        return torch.diff(self.csr.indptr).long()

    @property
    def targets(self) -> Tensor:
        """Target of the edge in each place of ``csr``, int64 [edges]."""
        rows = torch.arange(self.n_dst, device=self.degree.device)
        return torch.repeat_interleave(rows, self.degree, output_size=self.n_edges)

    def __repr__(self) -> str:
        return f"CsrGraph(n_src={self.n_src}, n_dst={self.n_dst}, n_edges={self.n_edges})"


def _check(edge_index: Tensor, n_src: int, n_dst: int) -> None:
    if edge_index.dim() != 2 or len(edge_index) != 2:
        raise ValueError(
            f"edge_index must be [2, edges], sources above targets; got {list(edge_index.shape)}"
        )
    if edge_index.dtype not in {torch.int64, torch.int32}:
        raise ValueError(
            f"edge_index must be int64 or int32, got {edge_index.dtype}; use edge_index.long()"
        )
    if n_src < 0 or n_dst < 0 or max(n_src, n_dst, edge_index.shape[1]) > INT32_MAX:
        raise ValueError(
            f"{n_src} sources, {n_dst} targets and {edge_index.shape[1]} edges: each must lie in "
            f"0..{INT32_MAX}, the numbers of int32; split the graph"
        )
    if not edge_index.shape[1]:
        return
    low, high = edge_index.amin(dim=1).tolist(), edge_index.amax(dim=1).tolist()
    for name, least, most, size in zip(
        ("source", "target"), low, high, (n_src, n_dst), strict=True
    ):
        if least < 0 or most >= size:
            raise ValueError(
                f"edge_index: {name}s reach from {least} to {most}, but there are {size}; "
                f"pass the number of nodes or drop the edges outside 0..{size - 1}"
            )


@compiled_releasing
def _group(
    rows: NDArray[Any], columns: NDArray[Any], indptr: Ints, indices: Ints, edge: Ints
) -> None:
    """Counting sort: stable, and linear in the number of edges."""
    for e in range(len(rows)):
        indptr[rows[e] + 1] += 1
    for r in range(1, len(indptr)):
        indptr[r] += indptr[r - 1]
    free = indptr[:-1].copy()
    for e in range(len(rows)):
        place = free[rows[e]]
        free[rows[e]] = place + 1
        indices[place] = columns[e]
        edge[place] = e
