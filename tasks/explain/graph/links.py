"""From players to edges: what each link of a player has of its value.

A player is drilled into as the node stands, with all others there. Up to six links, the shares are
Shapley's among them; beyond, a link has what the score loses without it, and beyond 256 only the
telling ones have. What is then missing to the player's value goes to its links in equal parts, so
that the shares of a player add up to its value exactly. A link between two players has a share of
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.shapley.exact import members_of, shapley_matrix
from tasks.explain.graph.nodes import NodeExplanation
from tasks.explain.graph.players import NOTHING, most_telling

Bools = NDArray[np.bool_]
Float = NDArray[np.float64]
COUNTED_LINKS = 6
"""Links of a player of which all subsets are scored."""
LEFT_OUT = 256
"""Links of a player that are left out one by one; of more, those that `most_telling` finds."""
COPIED_EDGES = 2**24
"""Edges of copies that are laid out at a time."""


@dataclass(frozen=True, eq=False)
class EdgeValues:
    """Values of links; an edge and its reverse are one link.

    Attributes:
        edges: Numbers in the graph of each link's edges.
        values: What each added to the score, in its units ``[links]``.
        shares: The same by player ``[P, links]``; a row's sum is the player's value.
    """

    edges: tuple[tuple[int, ...], ...]
    values: Float
    shares: Float

    @property
    def order(self) -> NDArray[np.intp]:
        """Links by how much they matter, in either direction, ``[links]``."""
        return np.argsort(-np.abs(self.values), kind="stable")


def edge_values(explained: NodeExplanation) -> EdgeValues:
    """Share the value of each player out to its links.

    A player without a link, such as own features, keeps its value: ``values`` add up to the score
    less the base and less what those players have.

    Raises:
        ScoreError: When a thinned copy has no finite score.
    """
    around = explained.copies.around
    links, count = around.links, len(around.links)
    of_link = np.full(len(around.edges), -1)
    for number, edges in enumerate(links):
        of_link[list(edges)] = number
    numbered = tuple(tuple(around.edges[list(edges)].tolist()) for edges in links)
    players = [_links_of(held, of_link) for held in explained.present]
    shares = np.zeros((len(players), count))
    if not count:
        return EdgeValues(numbered, np.zeros(0), shares)
    few = [p for p, held in enumerate(players) if 0 < len(held) <= COUNTED_LINKS]
    many = [p for p, held in enumerate(players) if len(held) > COUNTED_LINKS]
    chosen = {p: _telling(explained, players[p], of_link) for p in many}
    without = np.unique(np.concatenate([np.zeros(0, np.int64), *chosen.values()]))
    absent = [_one_hot(without, count), *(_left_out(players[p], count) for p in few)]
    worth = _worth(explained, np.concatenate(absent)[:, of_link] & (of_link >= 0))
    cuts = np.cumsum([len(part) for part in absent])
    lost, *counted = np.split(worth, cuts[:-1])
    loss = np.zeros(count)
    loss[without] = explained.found.scores[0] - lost
    for p in many:
        shares[p, chosen[p]] = loss[chosen[p]]
    for p, values in zip(few, counted, strict=True):
        shares[p, players[p]] = shapley_matrix(len(players[p])) @ values
    for p in (*many, *few):
        shares[p, players[p]] += (explained.found.values[0, p] - shares[p].sum()) / len(players[p])
    return EdgeValues(numbered, shares.sum(axis=0), shares)


def _links_of(held: Bools, of_link: NDArray[np.int64]) -> NDArray[np.int64]:
    links: NDArray[np.int64] = np.unique(of_link[held & (of_link >= 0)])
    return links


def _one_hot(links: NDArray[np.int64], count: int) -> Bools:
    absent = np.zeros((len(links), count), bool)
    absent[np.arange(len(links)), links] = True
    return absent


def _left_out(links: NDArray[np.int64], count: int) -> Bools:
    """Return who is absent in every subset of some links, in the order of coalitions."""
    absent = np.zeros((2 ** len(links), count), bool)
    absent[:, links] = ~members_of(np.arange(2 ** len(links)), len(links))
    return absent


def _telling(
    explained: NodeExplanation, links: NDArray[np.int64], of_link: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return which links of a player are left out one by one."""
    if len(links) <= LEFT_OUT:
        return links
    score = explained.found.scores[0]

    def changes(sets: Sequence[NDArray[np.int64]]) -> Float:
        absent = np.stack([np.isin(of_link, some) for some in sets])
        change: Float = np.abs(_worth(explained, absent) - score)
        return change

    telling = most_telling(changes, links, NOTHING * (1 + abs(score)))
    return np.array(telling, dtype=np.int64)


def _worth(explained: NodeExplanation, absent: Bools) -> Float:
    """Return the scores without some edges ``[m, e]``."""
    own = explained.copies.graph.x[explained.node : explained.node + 1]
    step = max(1, COPIED_EDGES // absent.shape[1])
    parts = [absent[start : start + step] for start in range(0, len(absent), step)]
    zeros = np.zeros(step, np.int64)
    return np.concatenate([explained.copies.values(~p, zeros[: len(p)], own) for p in parts])
