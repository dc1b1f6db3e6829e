"""Shapley values of any function or torch module, by players against a frozen background.

A coalition of players is worth the mean score over the background rows when its features are the
row's own and the others the background row's (the interventional game, Lundberg and Lee 2017). Up
to 14 players every coalition is counted; beyond, coalitions are drawn in pairs
(``kernels.shapley.paired``), the same for all rows, until the fourth and the fifth reason are told
apart or the budget is spent. No gradient and no rule per layer is needed, so no layer is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kernels.shapley.exact import MOST_PLAYERS, shapley_matrix
from kernels.shapley.paired import Pairs
from tasks.explain.additivity import check_additivity
from tasks.explain.background import Background, narrowed
from tasks.explain.coalition_values import Mixtures, coalition_values
from tasks.explain.deadline import Deadline
from tasks.explain.errors import BackgroundError, OptionsError, PlayersError
from tasks.explain.player_explanation import PlayerExplanation
from tasks.explain.players import Players
from tasks.explain.sampled import SampledValues
from tasks.explain.scores import Rows, ScoreFunction, checked_scores, refuse_unstable

Float = NDArray[np.float64]
Found = tuple[Float, Float, NDArray[np.int64]]
"""Values and errors ``[n, P]``, evaluations ``[n]``."""
Check = Callable[[], None]
"""Raises when the time is over."""

Method = Literal["auto", "exact", "sampled"]

ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    """How rows are explained.

    Attributes:
        method: ``auto`` is exact up to 14 players, whatever ``evaluations`` says.
        evaluations: Most mixed rows to score for a row where coalitions are drawn; no bound where
            all are counted, which takes ``2**P - 2`` for each background row.
        top: Places to tell apart from the next one.
        seed: Of the draw.
        seconds: Time for one call of ``explain``; None for any.
        memory_bytes: Most that mixed rows of one call of the function take, again what answers of
            the rows explained together take, and again what is kept of mixtures with drawn
            coalitions. The draw itself is beside it: about 20 bytes for each of ``evaluations``
            and player.
    """

    method: Method = "auto"
    evaluations: int = 200_000
    top: int = 4
    seed: int = 0
    seconds: float | None = None
    memory_bytes: int = 2**25

    def __post_init__(self) -> None:
        """Validate, naming the fix.

        Raises:
            OptionsError: On a value that makes no sense.
        """
        if self.method not in get_args(Method):
            raise OptionsError(
                f"method is {self.method!r}; choose one of {', '.join(get_args(Method))}"
            )
        if min(self.evaluations, self.top, self.memory_bytes) < 1:
            raise OptionsError(
                f"evaluations {self.evaluations}, top {self.top}, memory_bytes "
                f"{self.memory_bytes}: give at least 1 each"
            )
        if self.seed < 0:
            raise OptionsError(f"seed is {self.seed}; give 0 or more")
        if self.seconds is not None and not self.seconds >= 0:
            raise OptionsError(f"seconds are {self.seconds}; give 0 or more, or None for any time")


class PlayerExplainer:
    """Explains rows of one model against one background.

    >>> background = Background(("a", "b"), np.zeros((1, 2), dtype=np.float32))
    >>> explainer = PlayerExplainer(lambda rows: rows @ [1.0, 2.0], background)
    >>> explainer.explain(np.ones((1, 2))).values.tolist()
    [[1.0, 2.0]]
    """

    def __init__(
        self,
        function: ScoreFunction,
        background: Background,
        players: Players | None = None,
        options: ExplainOptions | None = None,
    ) -> None:
        """Score the background.

        Args:
            function: Scores of rows ``[n, F]``; a torch module goes in as a ``TorchScores``.
            background: Rows to compare with.
            players: Who shares the credit; by default every feature.
            options: How.

        Raises:
            BackgroundError: When players and background are of other features.
            PlayersError: When the players are too many for the budget.
            ScoreError: When a background row has no finite score.
        """
        self.players = players or Players.single(background.names)
        self.background = background
        self._options = options or ExplainOptions()
        if self.players.features != background.names:
            raise BackgroundError(_difference(self.players.features, background.names))
        self.function = function
        self._worth = coalition_values(
            function, background.values, self.players, self._options.memory_bytes
        )
        self.background_scores = checked_scores(function, background.values, "background row")
        count = len(self.players)
        if self._options.method == "exact" and count > MOST_PLAYERS:
            raise PlayersError(
                f"{count} players are too many to count all coalitions ({MOST_PLAYERS} at most): "
                "group features (Players.grouped) or choose method='sampled'"
            )
        small = self._options.method == "auto" and count <= MOST_PLAYERS
        self.method: Literal["exact", "sampled"] = (
            "exact" if small or self._options.method == "exact" or count == 1 else "sampled"
        )
        self._kept: dict[int, list[tuple[slice, Mixtures]]] = {}
        self._room = self._options.memory_bytes
        self._sampled = self._plan() if self.method == "sampled" else None

    def explain(self, rows: Rows) -> PlayerExplanation:
        """Explain rows ``[n, F]``; scores see them as float32, as the background is.

        Raises:
            BackgroundError: On another number of columns, or a value that float32 cannot hold.
            ScoreError: When a row, alone or mixed, has no finite score.
            UnstableScoreError: When a row does not keep its score.
            AdditivityError: When the values miss a score.
            ExplanationTimeoutError: When the time is over.
        """
        options = self._options
        if rows.ndim != 2 or rows.shape[1] != len(self.players.features):
            raise BackgroundError(
                f"rows of shape {rows.shape} for {len(self.players.features)} features; pass the "
                "columns of the background in its order"
            )
        given, rows = rows, narrowed(rows, self.background.names)
        deadline = Deadline(options.seconds)
        shape = (len(rows), len(self.players))
        values, errors, spent = np.zeros(shape), np.zeros(shape), np.zeros(len(rows), np.int64)
        scores = checked_scores(self.function, rows) if len(rows) else np.zeros(0)
        base = float(self.background_scores.mean())
        numbers = np.arange(len(rows))
        for start in range(0, len(rows), self._rows_at_once):
            part = slice(start, start + self._rows_at_once)
            check = partial(deadline.check, start, len(rows))
            check()
            self._check_repeated(rows[part], scores[part], numbers[part])
            if self._sampled is None:
                found = self._exact(rows[part], scores[part], numbers[part], check)
            else:
                plan = self._sampled
                found = self._drawn(plan, rows[part], scores[part], numbers[part], check)
            values[part], errors[part], spent[part] = found
            self.settle(rows[part], values[part], errors[part])
        again = checked_scores(self.function, rows) if len(rows) else scores
        refuse_unstable(scores, again, 0)
        gap = check_additivity(values, base, scores)
        return PlayerExplanation(
            self.players.names,
            values,
            errors,
            base,
            scores,
            gap,
            self.method,
            spent,
            self.background.sha256,
            None if self._sampled is None else options.seed,
            self.players.shown(given),
        )

    @cached_property
    def _rows_at_once(self) -> int:
        """Rows explained together: the answers of all their coalitions keep to the memory."""
        # Differences of drawn coalitions are half as many as these, held four times over.
        answers = 2 ** len(self.players) if self._sampled is None else 2 * self._sampled.most
        fitting: int = self._options.memory_bytes // (8 * answers)
        return max(1, min(ROWS_AT_ONCE, fitting))

    def _plan(self) -> SampledValues:
        options = self._options
        return SampledValues(
            len(self.players),
            len(self.background.values),
            seed=options.seed,
            evaluations=options.evaluations,
            top=options.top,
        )

    @cached_property
    def _unmixed(self) -> Mixtures:
        """The row itself, and each background row itself."""
        games = len(self.background.values)
        members = np.zeros((games + 1, len(self.players)), dtype=bool)
        members[0] = True
        return self._worth.mixtures(members, np.concatenate([[0], np.arange(games)]))

    def _check_repeated(self, rows: Rows, scores: Float, numbers: NDArray[np.intp]) -> None:
        """Refuse a function whose scores of unmixed rows change among mixed ones."""
        found = self._unmixed.values(rows, numbers)
        refuse_unstable(scores, found[:, 0], int(numbers[0]))
        for row in found[:, 1:]:
            refuse_unstable(self.background_scores, row, 0, "background row")

    @cached_property
    def _matrix(self) -> Float:
        return shapley_matrix(len(self.players))

    def _exact(self, rows: Rows, scores: Float, numbers: NDArray[np.intp], check: Check) -> Found:
        """Count all coalitions; the full and the empty one are scores that are known."""
        worth = self._worth.means(rows, numbers, check)
        worth[:, 0], worth[:, -1] = self.background_scores.mean(), scores
        values = worth @ self._matrix.T
        evaluations = len(self.background.values) * (2 ** len(self.players) - 2)
        return values, np.zeros_like(values), np.full(len(rows), evaluations)

    def _drawn(
        self,
        plan: SampledValues,
        rows: Rows,
        scores: Float,
        numbers: NDArray[np.intp],
        check: Check,
    ) -> Found:
        """Draw coalitions by a plan."""
        totals = scores[:, None] - self.background_scores

        def differences(number: int, pairs: Pairs, places: NDArray[np.intp]) -> Float:
            found = np.empty((len(places), pairs.weights.size))
            for part, mixtures in self._round(number, pairs):
                worth = mixtures.values(rows[places], numbers[places])
                half = worth.shape[1] // 2
                found[:, part] = worth[:, :half] - worth[:, half:]
                check()
            return found.reshape(len(places), *pairs.weights.shape)

        return plan.solve(differences, totals)

    def _round(self, number: int, pairs: Pairs) -> Iterable[tuple[slice, Mixtures]]:
        """Return the mixtures of a round's pairs; they are kept while the memory reaches."""
        if number not in self._kept:
            needed = 2 * pairs.weights.size * self._worth.bytes_each
            if needed > self._room:
                return self._mixtures(pairs)
            self._room -= needed
            self._kept[number] = list(self._mixtures(pairs))
        return self._kept[number]

    def _mixtures(self, pairs: Pairs) -> Iterator[tuple[slice, Mixtures]]:
        """Make pairs ready, some at a time: first the coalitions, then their complements."""
        games, count, players = pairs.members.shape
        members = pairs.members.reshape(-1, players)
        owners = np.repeat(np.arange(games), count)
        step = max(1, self._worth.at_once // 2)
        for start in range(0, len(members), step):
            part = slice(start, min(start + step, len(members)))
            both = np.concatenate([members[part], ~members[part]])
            yield part, self._worth.mixtures(both, np.tile(owners[part], 2))

    @cached_property
    def _still(self) -> tuple[Rows, NDArray[np.bool_], NDArray[np.bool_]]:
        """Least value of each feature in the background, and which are all the same, or missing."""
        background = self.background.values
        low, high = background.min(axis=0), background.max(axis=0)
        return low, low == high, np.isnan(background).all(axis=0)

    def settle(self, rows: Rows, values: Float, errors: Float) -> None:
        """Give players whose features equal every background row's exactly nothing, in place."""
        low, constant, missing = self._still
        if not (constant | missing).any():
            return
        same = (rows == low) & constant | np.isnan(rows) & missing
        idle = self.players.all_within(same)
        freed = np.where(idle, values, 0.0).sum(axis=1)
        takers = np.maximum((~idle).sum(axis=1), 1)
        values += np.where(idle, -values, (freed / takers)[:, None])
        errors[idle] = 0.0


def _difference(expected: tuple[str, ...], found: tuple[str, ...]) -> str:
    missing = [name for name in expected if name not in found]
    foreign = [name for name in found if name not in expected]
    if not missing and not foreign:
        return "the background has the players' features in another order; freeze it in the model's"
    return (
        f"the background has other features than the players: without {missing[:3]}, with "
        f"{foreign[:3]} instead; freeze rows of the model's own feature list"
    )
