"""Cells: how the value of an event is divided among its features.

The events are unions and the features of one event its members (Owen 1977), so the cells of an
event add up to the event's own value: the view by cell says nothing else than the view by event.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.shapley.exact import MOST_PLAYERS, members_of, shapley_matrix
from kernels.shapley.owen import OuterCoalitions, outer_coalitions
from tasks.explain.errors import HistoryError
from tasks.explain.history.explainer import HistoryExplainer
from tasks.explain.history.game import FlatGame
from tasks.explain.history.layout import Histories, Values
from tasks.explain.history.views import CellView, HistoryView

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CellOptions:
    """Which cells are told apart, and at what cost.

    Attributes:
        events: Events of largest absolute value, E.
        features: Features of largest absolute value, K; the other features are one cell.
        coalitions: Most coalitions of other events; all are taken where there are no more.
    """

    events: int = 3
    features: int = 3
    coalitions: int = 128

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be counted.

        Raises:
            HistoryError: Names the fix.
        """
        if self.events < 1 or not 1 <= self.features < MOST_PLAYERS or self.coalitions < 4:
            raise HistoryError(
                f"{self}: take 1 event or more, 1 to {MOST_PLAYERS - 1} features, 4 coalitions or "
                "more"
            )


def explain_cells(
    explainer: HistoryExplainer,
    histories: Histories,
    events: HistoryView,
    features: HistoryView,
    options: CellOptions | None = None,
) -> CellView:
    """Divide the foremost events of each history among its foremost features.

    Args:
        explainer: What explained the histories.
        histories: As explained.
        events: ``explainer.events(histories)``.
        features: ``explainer.features(histories)``: says which features are foremost.
        options: How many.

    Raises:
        HistoryError: On views of other histories.
        ScoreError: When a mixed history has no finite score.
        ExplanationTimeoutError: When the time is over.
    """
    options = options or CellOptions()
    n = len(histories.values)
    if len(events.values) != n or len(features.values) != n:
        raise HistoryError(
            f"{len(events.values)} and {len(features.values)} explained histories for {n}; pass "
            "the views of these histories"
        )
    of_feature = np.array(explainer.features_players.owner)
    event = _foremost(events.values[:, :-1], events.present[:, :-1], options.events)
    feature = _foremost(features.values[:, :-1], features.present[:, :-1], options.features)
    shape = (*event.shape, options.features + 1)
    values, errors = np.zeros(shape), np.zeros(shape)
    spent = np.zeros(n, dtype=np.int64)
    made = explainer.game_of(n)
    for place in range(n):
        game = made(histories.player[place] >= 0, place)
        player = histories.player[place][game.there]
        cell = np.full(len(explainer.features_players), options.features)
        chosen = feature[place][feature[place] >= 0]
        cell[chosen] = np.arange(len(chosen))
        row = game.rows(histories.values[place : place + 1])
        outer = outer_coalitions(
            int(player.max()), options.coalitions, (explainer.options.explain.seed, len(player))
        )
        for rank, number in enumerate(event[place]):
            if number < 0:
                continue
            taken, owner = np.unique(cell[of_feature], return_inverse=True)
            found = _divided(game, player, int(number), owner, row, outer)
            worth = events.values[place, number]
            missed = (worth - found[0].sum()) / len(taken)
            values[place, rank, taken] = found[0] + missed
            errors[place, rank, taken] = np.hypot(found[1], missed if outer.drawn else 0.0)
            spent[place] += len(outer.weights) * 2 ** len(taken) * len(game.background.values)
    return CellView(explainer.features_players.names, event, feature, values, errors, spent)


def _divided(
    game: FlatGame,
    player: NDArray[np.int64],
    event: int,
    cell: NDArray[np.intp],
    row: Values,
    outer: OuterCoalitions,
) -> tuple[Float, Float]:
    """Return values and errors ``[c]`` of the cells of an event.

    Args:
        game: Of the history.
        player: Event player of each event ``[L]``.
        event: The divided one.
        cell: Cell of each feature ``[F]``, 0 to c - 1.
        row: The flat row ``[1, L * F]``.
        outer: Coalitions of the other events.
    """
    cells, others = int(cell.max()) + 1, int(player.max())
    other = cells + player - (player > event)
    owner = np.where((player == event)[:, None], cell, other[:, None]).ravel()
    players = game.players(tuple(map(str, range(cells + others))), owner)
    inside = members_of(np.arange(2**cells), cells)
    members = np.concatenate(
        [
            np.tile(inside, (len(outer.members), 1)),
            np.repeat(outer.members, len(inside), axis=0),
        ],
        axis=1,
    )
    worth = game.worth(players, members, row).reshape(len(outer.members), len(inside))
    return outer.mean(worth @ shapley_matrix(cells).T)


def _foremost(values: Float, present: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Return the columns of largest absolute value ``[n, count]``, -1 where there are fewer."""
    size = np.where(present, np.abs(values), -1.0)
    order = np.argsort(-size, axis=1, kind="stable")[:, :count]
    found = np.where(np.take_along_axis(present, order, axis=1), order, -1)
    return np.pad(found, ((0, 0), (0, count - found.shape[1])), constant_values=-1)
