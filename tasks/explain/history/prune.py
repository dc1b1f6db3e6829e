"""Temporal coalition pruning: events whose joint value is small become one player.

For each number of newest events the older ones are one player and the newest the other; the value
of the older ones is their Shapley value in this game of two. TimeSHAP stops at the first number
where it is small. Here it must stay small for every larger number too: else two old events that
cancel each other would be lumped and hidden.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tasks.explain.history.game import FlatGame
from tasks.explain.history.layout import Histories, Values


def pruned(
    histories: Histories,
    game_of: Callable[[NDArray[np.bool_], int], FlatGame],
    tolerance: float,
) -> Histories:
    """Return the histories with older events lumped.

    Args:
        histories: Without lumped events.
        game_of: Makes the game of a mask ``[T]`` when some rows are done.
        tolerance: Largest absolute joint value of what is lumped.
    """
    player, lumped = histories.player.copy(), histories.lumped.copy()
    older, spent = histories.older.copy(), histories.evaluations.copy()
    done = 0
    for places in histories.alike():
        own = player[places[0]]
        game, count = game_of(own >= 0, done), int(own.max()) + 1
        done += len(places)
        if count < 3:
            continue
        joint = joint_values(game, own[game.there], game.rows(histories.values[places]))
        small = np.abs(joint) <= tolerance
        always = np.logical_and.accumulate(small[:, ::-1], axis=1)[:, ::-1]
        kept = np.where(always.any(axis=1), always.argmax(axis=1) + 1, count)
        cut = kept <= count - 2  # to lump one event is to keep it
        lumped[places] = cut
        older[places[cut]] = joint[cut, kept[cut] - 1]
        player[places[cut]] = np.minimum(own, kept[cut, None])
        spent[places] = 2 * (count - 1) * len(game.background.values)
    return Histories(histories.values, player, lumped, older, spent)


def joint_values(game: FlatGame, player: NDArray[np.int64], rows: Values) -> NDArray[np.float64]:
    """Return the joint value of all but the 1, 2, ... newest events ``[n, P - 1]``.

    Args:
        game: Of the histories.
        player: Player of each event ``[L]``, 0 for the newest.
        rows: Their flat rows.
    """
    count, features = int(player.max()) + 1, len(game.background_histories.names)
    names = tuple(map(str, range(count)))
    players = game.players(names, np.repeat(player, features))
    newest = np.tri(count - 1, count, dtype=bool)  # row j: the j + 1 newest
    base = game.scores(game.background.values, "background history").mean()
    scores = game.scores(rows)[:, None]
    worth = game.worth(players, np.concatenate([newest, ~newest]), rows)
    recent, old = worth[:, : count - 1], worth[:, count - 1 :]
    joint: NDArray[np.float64] = ((old - base) + (scores - recent)) / 2
    return joint
