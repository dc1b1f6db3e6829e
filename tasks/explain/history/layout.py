"""Which events of a history are which player: the newest is player 0, the oldest the last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.errors import HistoryError

Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Histories:
    """Checked histories, their events divided among players.

    Attributes:
        values: ``[n, T, F]``, oldest event first, 0 where no event stands.
        player: Player of each event ``[n, T]``, 0 for the newest; -1 where none stands.
        lumped: Whether the last player is all older events, lumped by pruning ``[n]``.
        older: Joint value of the lumped events when the others are one player; 0 where none.
        evaluations: Mixed histories scored for each row while pruning ``[n]``.
    """

    values: Values
    player: NDArray[np.int64]
    lumped: NDArray[np.bool_]
    older: NDArray[np.float64]
    evaluations: NDArray[np.int64]

    @property
    def players(self) -> NDArray[np.int64]:
        """Number of event players ``[n]``."""
        count: NDArray[np.int64] = self.player.max(axis=1, initial=-1) + 1
        return count

    @property
    def kept(self) -> NDArray[np.float64]:
        """Share of the events that are not lumped ``[n]``."""
        last = (self.players - 1)[:, None]
        lumped = self.lumped[:, None] & (self.player == last)
        events = (self.player >= 0).sum(axis=1)
        share: NDArray[np.float64] = 1 - lumped.sum(axis=1) / np.maximum(events, 1)
        return share

    def alike(self) -> Iterator[NDArray[np.intp]]:
        """Yield the places of rows that are divided alike."""
        found: dict[bytes, list[int]] = {}
        for place, (player, lumped) in enumerate(zip(self.player, self.lumped, strict=True)):
            found.setdefault(player.tobytes() + lumped.tobytes(), []).append(place)
        for places in found.values():
            yield np.array(places)


def checked_histories(
    values: Values, mask: NDArray[np.bool_] | None
) -> tuple[Values, NDArray[np.bool_]]:
    """Return histories ``[n, T, F]`` and where their events stand ``[n, T]``.

    Raises:
        HistoryError: On other shapes, a history without events, an event with a value that is not
            finite, or a value where no event stands.
    """
    if values.ndim != 3 or 0 in values.shape[1:]:
        raise HistoryError(
            f"histories of shape {values.shape}; pass [n, T, F] of one event or more"
        )
    there = np.ones(values.shape[:2], dtype=bool) if mask is None else mask
    if there.dtype != bool or there.shape != values.shape[:2]:
        raise HistoryError(
            f"mask of {there.dtype} {there.shape} for histories {values.shape}; pass bool "
            f"{values.shape[:2]}, True where an event stands"
        )
    empty = np.flatnonzero(~there.any(axis=1))
    if len(empty):
        raise HistoryError(f"history {empty[0]} has no event ({len(empty)} such): leave it out")
    bad = np.argwhere(~np.isfinite(values) & there[..., None])
    if len(bad):
        row, event, feature = bad[0]
        raise HistoryError(
            f"history {row} has {values[row, event, feature]} at event {event}, feature {feature}: "
            "fill it as the model's own inputs are filled"
        )
    padding = np.argwhere((values != 0) & ~there[..., None])
    if len(padding):
        row, event, _ = padding[0]
        raise HistoryError(
            f"history {row} has a value at {event}, where its mask has no event: set padding to 0"
        )
    return values, there


def event_players(
    there: NDArray[np.bool_], sessions: NDArray[np.integer[Any]] | None
) -> NDArray[np.int64]:
    """Number the players ``[n, T]`` from the newest on, -1 where no event stands.

    Args:
        there: Where events stand ``[n, T]``.
        sessions: Events of one number that follow each other are one player ``[n, T]``; None: each
            event is one.

    Raises:
        HistoryError: On sessions of another shape.

    >>> event_players(np.array([[False, True, True, True]]), np.array([[0, 4, 4, 9]])).tolist()
    [[-1, 1, 1, 0]]
    """
    if sessions is not None and sessions.shape != there.shape:
        raise HistoryError(f"sessions of shape {sessions.shape} for events {there.shape}")
    player = np.full(there.shape, -1, dtype=np.int64)
    for row, places in enumerate(map(np.flatnonzero, there)):
        own = np.arange(len(places)) if sessions is None else sessions[row, places]
        begins = np.concatenate([[0], own[1:] != own[:-1]]).cumsum()
        player[row, places] = begins[-1] - begins
    return player
