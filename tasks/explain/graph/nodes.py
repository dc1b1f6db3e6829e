"""Shapley values of a node's score: its own features, its neighbours, groups of neighbours.

A neighbour that is absent has no edges, in the whole neighbourhood: "no such neighbour" is a state
that real nodes are in, a neighbour with average features is not. Own features that are absent are
a background row's. Every coalition is counted (``kernels.shapley.exact``); nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kernels.shapley.exact import members_of, shapley_matrix
from tasks.explain.additivity import check_additivity
from tasks.explain.background import Background
from tasks.explain.errors import BackgroundError, GraphInputError, PlayersError
from tasks.explain.graph.copies import Call, Copies, call_module
from tasks.explain.graph.inputs import GraphInputs, Ints
from tasks.explain.graph.neighbourhood import Neighbourhood, neighbourhood
from tasks.explain.graph.players import NOTHING, Buckets, NeighbourPlayers, divide, most_telling
from tasks.explain.player_explanation import PlayerExplanation
from tasks.explain.scores import REPEATED, TorchScores, refuse_unfinite

Bools = NDArray[np.bool_]
Float = NDArray[np.float64]
MOST_PLAYERS = 12
OWN = "own features"


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """How nodes are explained.

    Attributes:
        players: Most players, 3 to 12.
        buckets: Name and greatest age of time buckets, youngest first, in the unit of the times.
        feature_groups: Player -> columns of x; columns of no group are the player "own features".
        edges: Most edges of all copies together: beyond, there are fewer players.
    """

    players: int = MOST_PLAYERS
    buckets: Buckets = ()
    feature_groups: Mapping[str, Sequence[int]] = field(default_factory=dict)
    edges: int = 2**18

    def __post_init__(self) -> None:
        """Validate, naming the fix.

        Raises:
            PlayersError: For numbers of players that are not counted.
        """
        least = 2 + len(self.feature_groups)
        if not least < self.players <= MOST_PLAYERS:
            raise PlayersError(
                f"{self.players} players: with {len(self.feature_groups)} feature groups choose "
                f"{least + 1} to {MOST_PLAYERS}"
            )


@dataclass(frozen=True, eq=False)
class NodeExplanation:
    """The values of one node's players, and who they are.

    Attributes:
        node: The explained node.
        found: Values of one row.
        members: Nodes of each player ``P``; none for own features.
        hops: How far the score looks: where a layer weighs by degree, one more than its layers.
        copies: What thinned copies score, to go on from.
        present: Edges of the neighbourhood that hold each player ``[P, e]``.
    """

    node: int
    found: PlayerExplanation
    members: tuple[tuple[int, ...], ...]
    hops: int
    copies: Copies
    present: Bools


class NodeExplainer:
    """Explains nodes of one graph by one module.

    Any module that is called as ``module(x, edge_index, **edge_inputs)``, or by ``call``.
    """

    def __init__(
        self,
        module: nn.Module,
        graph: GraphInputs,
        hops: int,
        *,
        output: int | None = None,
        background: Background | None = None,
        options: GraphOptions | None = None,
        call: Call = call_module,
    ) -> None:
        """Score the graph once.

        Args:
            module: In evaluation mode; returns ``[n]``, ``[n, 1]`` or ``[n, C]``.
            graph: What it reads.
            hops: Its message-passing layers, at least 1.
            output: Which of C outputs is explained.
            background: Features of a node that is like no other; None: the mean of all nodes.
            options: How.
            call: How the module is asked, if otherwise.

        Raises:
            UnstableScoreError: When the module is in training mode.
            ScoreError: When no single output is meant, or a score is not finite.
            BackgroundError: On another number of features.
            GraphInputError: On no hops, a feature group that names no column, and a layer with
                cached=True.
        """
        if hops < 1:
            raise GraphInputError(
                f"hops is {hops}; give the number of message-passing layers of the module, 1 or "
                "more (a module without any is explained by PlayerExplainer)"
            )
        self._scores = TorchScores(module, output)
        if any(getattr(part, "cached", False) for part in module.modules()):
            raise GraphInputError("a layer keeps its first graph; make it with cached=False")
        self._graph, self._hops, self._call = graph, hops, call
        self._options = options or GraphOptions()
        width = graph.x.shape[1]
        names = tuple(f"feature {column}" for column in range(width))
        mean = graph.x.double().mean(dim=0, keepdim=True).float().cpu().numpy()
        self.background = background or Background(names, mean)
        if self.background.values.shape[1] != width:
            raise BackgroundError(
                f"the background has {self.background.values.shape[1]} features, the graph {width}"
            )
        self._groups = _feature_groups(self._options.feature_groups, width)
        with torch.inference_mode():
            made = call(module, graph.x, graph.edge_index, graph.edge_inputs)
            self.node_scores = self._scores.chosen(made)
        if len(self.node_scores) != len(graph.x):
            raise GraphInputError(
                f"the module returns {len(self.node_scores)} rows for {len(graph.x)} nodes; "
                "explain a module that scores every node"
            )
        refuse_unfinite(self.node_scores, "node")

    def explain(self, node: int) -> NodeExplanation:
        """Explain one node.

        Raises:
            GraphInputError: For a node out of range, or a module that looks further than its hops.
            ScoreError: When a thinned copy has no finite score.
            AdditivityError: When the values miss the score.
        """
        copies = self._copies(node)
        around, own = copies.around, tuple(self._groups)
        most = self._fitting(len(around.edges)) - len(own)
        nodes = np.arange(1, len(around.nodes))
        score = float(self.node_scores[node])
        telling = most_telling(
            lambda sets: self._without(copies, sets, score), nodes, NOTHING * (1 + abs(score))
        )
        shared = divide(self._graph, around, self._options.buckets, telling, most)
        names = own + shared.names
        worth = self._worth(copies, shared, len(own))
        worth[-1] = score
        values = (shapley_matrix(len(names)) @ worth)[None]
        gap = check_additivity(values, float(worth[0]), np.array([score]))
        holder = np.where(shared.owner < 0, -1, shared.owner + len(own))
        players = np.arange(len(names))
        members = tuple(tuple(around.nodes[holder == p].tolist()) for p in players)
        present = (holder[around.source] == players[:, None]) | (
            holder[around.target] == players[:, None]
        )
        found = PlayerExplanation(
            names, values, np.zeros_like(values), float(worth[0]), np.array([score]), gap, "exact",
            np.array([len(worth)]), self.background.sha256, None, np.full(values.shape, np.nan),
        )  # fmt: skip
        return NodeExplanation(node, found, members, around.hops, copies, present)

    def _copies(self, node: int) -> Copies:
        """Cut out the neighbourhood; where degrees count, it reaches one hop further."""
        score = 0.0
        for hops in (self._hops, self._hops + 1):
            around = neighbourhood(self._graph, node, hops)
            copies = Copies(self._scores, self._call, self._graph, around)
            own = self._graph.x[node : node + 1]
            whole = np.ones((1, len(around.edges)), bool)
            score = float(copies.values(whole, np.zeros(1, np.int64), own)[0])
            wanted = float(self.node_scores[node])
            if abs(score - wanted) <= REPEATED * (1 + abs(wanted)):
                return copies
        raise GraphInputError(
            f"node {node} scores {wanted:.6g} in the whole graph and {score:.6g} within "
            f"{self._hops + 1} hops: say how many message-passing layers the module has (hops); a "
            "module that draws random numbers or looks at all nodes at once cannot be explained; "
            "use .double() where float32 is too coarse"
        )

    def _fitting(self, edges: int) -> int:
        """Return how many players the budget of edges allows."""
        least = 3 + len(self._options.feature_groups)
        fitting = int(np.log2(max(self._options.edges / max(edges, 1), 1)))
        return max(least, min(self._options.players, fitting))

    def _without(self, copies: Copies, sets: Sequence[Ints], score: float) -> Float:
        around = copies.around
        edges = np.empty((len(sets), len(around.edges)), bool)
        gone = np.zeros(len(around.nodes), bool)
        for row, nodes in zip(edges, sets, strict=True):
            gone[nodes] = True
            row[:] = ~(gone[around.source] | gone[around.target])
            gone[nodes] = False
        own = self._graph.x[around.nodes[:1]]
        change: Float = np.abs(copies.values(edges, np.zeros(len(sets), np.int64), own) - score)
        return change

    def _worth(self, copies: Copies, shared: NeighbourPlayers, own: int) -> Float:
        """Return what every coalition is worth ``[2^P]``; own features are the first players."""
        around, count = copies.around, own + len(shared.names)
        members = members_of(np.arange(2**count), count)
        # The explained node (-1) is always there.
        there = np.concatenate([members[:, own:], np.ones((len(members), 1), bool)], axis=1)
        owner = shared.owner
        edges = there[:, owner[around.source]] & there[:, owner[around.target]]
        known = members[:, :own] @ (1 << np.arange(own))
        total = np.zeros(len(members))
        for row in self.background.values:
            table = self._mixed(around, row)
            total += copies.values(edges, known, table)
        return total / len(self.background.values)

    def _mixed(self, around: Neighbourhood, background: NDArray[np.float32]) -> torch.Tensor:
        """Return the node's features for every set of own groups that are known."""
        x = self._graph.x[around.nodes[0]]
        other = torch.tensor(background).to(x)
        rows = []
        for known in members_of(np.arange(2 ** len(self._groups)), len(self._groups)):
            mixed = other.clone()
            for have, columns in zip(known, self._groups.values(), strict=True):
                if have:
                    mixed[columns] = x[columns]
            rows.append(mixed)
        return torch.stack(rows)


def _feature_groups(given: Mapping[str, Sequence[int]], width: int) -> dict[str, list[int]]:
    taken = [column for columns in given.values() for column in columns]
    if len(set(taken)) < len(taken) or any(not 0 <= column < width for column in taken):
        raise GraphInputError(
            f"feature_groups name columns {sorted(taken)} of {width}; each may be named once"
        )
    rest = [column for column in range(width) if column not in set(taken)]
    if rest and OWN in given:
        raise GraphInputError(f"a feature group is called {OWN!r} as the rest is; rename it")
    groups = {name: list(columns) for name, columns in given.items()}
    return groups | {OWN: rest} if rest else groups
