"""Explains scores of histories: which events, which features, and which cells of both.

After TimeSHAP (Bento et al., KDD 2021), by the engine by players: a history against frozen ones of
its own length is a flat row, its events or features are players. Before that, going back in time,
all events older than some are lumped into one player where their joint value is small; they stay a
player, so sums stay exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.background import Background
from tasks.explain.deadline import Deadline
from tasks.explain.engine import ExplainOptions, PlayerExplainer
from tasks.explain.errors import HistoryError
from tasks.explain.history.background import HistoryBackground
from tasks.explain.history.game import FlatGame
from tasks.explain.history.layout import Histories, Values, checked_histories, event_players
from tasks.explain.history.prune import pruned
from tasks.explain.history.scores import HistoryScores
from tasks.explain.history.views import OLDER, HistoryView
from tasks.explain.players import Players
from tasks.explain.sampled import SampledValues
from tasks.explain.scores import ScoreFunction


@dataclass(frozen=True, slots=True)
class HistoryOptions:
    """How histories are explained.

    Attributes:
        tolerance: Largest absolute joint value of events to lump, in units of the score; None
            lumps none. The default is that of TimeSHAP, meant for probabilities.
        explain: The engine's options.
    """

    tolerance: float | None = 0.025
    explain: ExplainOptions = field(default_factory=ExplainOptions)

    def __post_init__(self) -> None:
        """Refuse a tolerance below 0.

        Raises:
            HistoryError: Also on one that is not a number.
        """
        if self.tolerance is not None and not self.tolerance >= 0:
            raise HistoryError(
                f"tolerance must be 0 or more units of the score, got {self.tolerance}; None lumps "
                "no events"
            )


class HistoryExplainer:
    """Explains histories of one model against one background.

    >>> background = HistoryBackground(("a",), np.zeros((1, 3, 1), dtype=np.float32))
    >>> def latest(histories, mask):
    ...     return histories[:, -1, 0]
    >>> explainer = HistoryExplainer(latest, background)
    >>> found = explainer.events(explainer.prune(np.ones((1, 3, 1))))
    >>> found.players, found.values.tolist()
    (('event[0]', 'older events'), [[1.0, 0.0]])
    """

    def __init__(
        self,
        function: HistoryScores,
        background: HistoryBackground,
        groups: Mapping[str, Sequence[str]] | None = None,
        options: HistoryOptions | None = None,
    ) -> None:
        """Take a model and what to compare with.

        Args:
            function: Scores of histories; a torch module goes in as a ``TorchHistories``.
            background: Histories, or the average event.
            groups: Features that come and go together; the others are players of their own.
            options: How.

        Raises:
            PlayersError: On groups that overlap or name other features.
        """
        self.background = background
        self.features_players = Players.grouped(background.names, groups or {})
        self._function = function
        self.options = options or HistoryOptions()

    def prune(
        self,
        values: Values,
        mask: NDArray[np.bool_] | None = None,
        sessions: NDArray[np.integer[Any]] | None = None,
    ) -> Histories:
        """Check histories and lump what is old and tells little.

        Args:
            values: Histories ``[n, T, F]``, oldest event first, 0 in padding.
            mask: Where events stand ``[n, T]``; None: everywhere.
            sessions: Events of one number that follow each other are one player ``[n, T]``.

        Raises:
            HistoryError: On another T or F than the background's, a value that is not finite, a
                history without events, values in padding.
            ScoreError: When a history, alone or mixed, has no finite score.
            ExplanationTimeoutError: When the time is over.
        """
        values, there = checked_histories(values, mask)
        expected = self.background.values.shape[1:]
        if values.shape[1:] != expected:
            raise HistoryError(
                f"histories of shape {values.shape} for a background of {expected[0]} events and "
                f"{expected[1]} features; pass what the model takes, shorter ones with a mask"
            )
        n = len(values)
        whole = Histories(
            values,
            event_players(there, sessions),
            np.zeros(n, dtype=bool),
            np.zeros(n),
            np.zeros(n, dtype=np.int64),
        )
        if self.options.tolerance is None:
            return whole
        return pruned(whole, self.game_of(n), self.options.tolerance)

    def events(self, histories: Histories) -> HistoryView:
        """Explain by events.

        Raises:
            PlayersError: When the events that are left are too many for the budget.
            UnstableScoreError: When a history does not keep its score.
            AdditivityError: When the values miss a score.
            ScoreError: When a mixed history has no finite score.
            ExplanationTimeoutError: When the time is over.
        """
        kept = histories.players - histories.lumped
        columns = (*(f"event[{-back}]" for back in range(int(kept.max(initial=1)))), OLDER)

        def owner(player: NDArray[np.int64], old: NDArray[np.bool_]) -> NDArray[np.int64]:
            found = np.where(old, len(columns) - 1, player)
            return np.repeat(found, len(self.background.names))

        return self._view(histories, columns, owner)

    def features(self, histories: Histories) -> HistoryView:
        """Explain by features over all events that were not lumped; errors as of `events`."""
        columns = (*self.features_players.names, OLDER)
        of_event = np.array(self.features_players.owner)

        def owner(_: NDArray[np.int64], old: NDArray[np.bool_]) -> NDArray[np.int64]:
            return np.where(old[:, None], len(columns) - 1, of_event).ravel()

        return self._view(histories, columns, owner)

    def game_of(self, rows: int) -> Callable[[NDArray[np.bool_], int], FlatGame]:
        """Return what makes the game of a mask ``[T]`` when some of the rows are done."""
        deadline = Deadline(self.options.explain.seconds)

        def made(there: NDArray[np.bool_], done: int) -> FlatGame:
            check = partial(deadline.check, done, rows)
            memory = self.options.explain.memory_bytes
            return FlatGame(self._function, self.background, there, memory, check)

        return made

    def _view(
        self,
        histories: Histories,
        columns: tuple[str, ...],
        owner: Callable[[NDArray[np.int64], NDArray[np.bool_]], NDArray[np.int64]],
    ) -> HistoryView:
        n = len(histories.values)
        shape = (n, len(columns))
        values, errors, present = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
        base, scores, drawn = np.zeros(n), np.zeros(n), np.zeros(n, dtype=bool)
        spent, gap, done = np.zeros(n, dtype=np.int64), 0.0, 0
        options = replace(self.options.explain, seconds=None)  # the game looks at the clock
        made, plans = self.game_of(n), dict[int, SampledValues]()
        for places in sorted(histories.alike(), key=lambda some: histories.players[some[0]]):
            player = histories.player[places[0]]
            game = made(player >= 0, done)
            player = player[game.there]
            old = histories.lumped[places[0]] & (player == player.max())
            own, owners = np.unique(owner(player, old), return_inverse=True)
            players = game.players(tuple(columns[column] for column in own), owners)
            fitting = replace(options, memory_bytes=game.memory_of_events)
            explainer = _Sharing(game.score, game.background, players, fitting, plans)
            found = explainer.explain(game.rows(histories.values[places]))
            cells = np.ix_(places, own)
            values[cells], errors[cells], present[cells] = found.values, found.errors, True
            base[places], scores[places], spent[places] = (
                found.base,
                found.scores,
                found.evaluations,
            )
            drawn[places] = found.method == "sampled"
            gap, done = max(gap, found.gap), done + len(places)
        return HistoryView(
            columns,
            values,
            errors,
            present,
            base,
            scores,
            gap,
            drawn,
            spent,
            self.background.sha256,
            options.seed,
        )


class _Sharing(PlayerExplainer):
    """Takes the draw of the explainer before it where that had as many players."""

    def __init__(
        self,
        function: ScoreFunction,
        background: Background,
        players: Players,
        options: ExplainOptions,
        plans: dict[int, SampledValues],
    ) -> None:
        self._plans = plans
        super().__init__(function, background, players, options)

    def _plan(self) -> SampledValues:
        count = len(self.players)
        if count not in self._plans:
            self._plans.clear()  # a draw may take many megabytes: only the last is kept
            self._plans[count] = super()._plan()
        return self._plans[count]
