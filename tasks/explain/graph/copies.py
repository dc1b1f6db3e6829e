"""Scores of a node in thinned copies of its neighbourhood, many disjoint copies in one call.

Of each copy only what still reaches the node is built: an edge whose target no longer does cannot
change the score. Copies that come to the same are scored once. Who is there is held in bits, one
for each copy, so that reaching is worked out for eight copies at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.explain.graph.inputs import GraphInputs
from tasks.explain.graph.neighbourhood import Neighbourhood
from tasks.explain.scores import TorchScores, refuse_unfinite

Bools = NDArray[np.bool_]
Bits = NDArray[np.uint8]
Call = Callable[[nn.Module, Tensor, Tensor, Mapping[str, Tensor]], Tensor]
"""How a module is asked: module, x, edge_index, edge inputs; returns ``[n]`` to ``[n, C]``."""

EDGES_AT_ONCE = 2**16


def call_module(
    module: nn.Module, x: Tensor, edge_index: Tensor, edge_inputs: Mapping[str, Tensor]
) -> Tensor:
    """Ask a module as PyTorch Geometric's are asked."""
    made: Tensor = module(x, edge_index, **edge_inputs)
    return made


@dataclass(frozen=True, eq=False)
class Copies:
    """Thinned copies of one neighbourhood.

    Attributes:
        scores: The module and which of its outputs is explained.
        call: How it is asked.
        graph: The whole graph.
        around: The neighbourhood.
    """

    scores: TorchScores
    call: Call
    graph: GraphInputs
    around: Neighbourhood

    def values(self, edges: Bools, own: NDArray[np.int64], features: Tensor) -> NDArray[np.float64]:
        """Return the node's score in each of m copies, ``[m]``.

        Args:
            edges: Which edges a copy has ``[m, e]``.
            own: Which row of ``features`` the node has in each copy ``[m]``.
            features: Possible features of the node ``[k, F]``.

        Raises:
            ScoreError: When a score is not finite.
        """
        used, reached = self._reaching(edges)
        key = np.concatenate([np.packbits(used, axis=1), own[:, None].view(np.uint8)], axis=1)
        rows = np.ascontiguousarray(key).view(f"V{key.shape[1]}").ravel()
        _, first, back = np.unique(rows, return_index=True, return_inverse=True)
        used, reached, own = used[first], reached[first], own[first]
        found = np.empty(len(first))
        size = np.cumsum(used.sum(axis=1) + reached.sum(axis=1))
        cuts = np.searchsorted(size, np.arange(EDGES_AT_ONCE, size[-1], EDGES_AT_ONCE))
        for part in np.split(np.arange(len(first)), np.unique(cuts)):
            if len(part):
                found[part] = self._scored(used[part], reached[part], features[own[part]])
        refuse_unfinite(found, "thinned copy")
        values: NDArray[np.float64] = found[back.ravel()]
        return values

    def _reaching(self, edges: Bools) -> tuple[Bools, Bools]:
        """Return the edges ``[m, e]`` and nodes ``[m, n]`` from which the node is reached."""
        around, m = self.around, len(edges)
        order = np.argsort(around.source, kind="stable")
        sources, starts = np.unique(around.source[order], return_index=True)
        there: Bits = np.packbits(edges.T, axis=1)[order]
        to = around.target[order]
        reached = np.zeros((len(around.nodes), there.shape[1]), np.uint8)
        reached[0] = 255
        used = np.zeros_like(there)
        for _ in range(around.hops if len(order) else 0):
            used = there & reached[to]
            reached[sources] |= np.bitwise_or.reduceat(used, starts, axis=0)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return (
            np.unpackbits(used[back], axis=1, count=m).T.astype(bool),
            np.unpackbits(reached, axis=1, count=m).T.astype(bool),
        )

    def _scored(self, used: Bools, reached: Bools, own: Tensor) -> NDArray[np.float64]:
        around = self.around
        place = np.cumsum(reached.ravel()).reshape(reached.shape) - 1
        copy, edge = np.nonzero(used)
        ends = [place[copy, around.source[edge]], place[copy, around.target[edge]]]
        chosen = torch.from_numpy(around.edges[edge])
        x = self.graph.x[torch.from_numpy(around.nodes[np.nonzero(reached)[1]])]
        first = torch.from_numpy(place[:, 0])
        x[first] = own
        extra = {name: column[chosen] for name, column in self.graph.edge_inputs.items()}
        with torch.inference_mode():
            made = self.call(self.scores.module, x, torch.from_numpy(np.stack(ends)), extra)
            return self.scores.chosen(made[first])
