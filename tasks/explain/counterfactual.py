"""What would have changed a decision: the nearest change of few players among values that occur.

Candidates take all features of up to three players from one known row that was decided otherwise
(an instance-based counterfactual: Keane and Smyth, "Good counterfactuals and where to find them",
ICCBR 2020), so features of one player keep values that were seen together. Every answer is scored
by the model; where none is found, that is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.errors import ExplanationError
from tasks.explain.players import Players
from tasks.explain.scores import ScoreFunction, checked_scores

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """How changes are searched.

    Attributes:
        most_players: Players that may change at once.
        considered: Players that are tried: those that raised the score most.
        donors: Known rows whose values are tried: the nearest ones.
        fixed: Players that nobody can change.
        directions: Feature -> 1 where it can only rise, -1 where it can only fall. Such a feature
            neither goes missing nor gets a value where it is missing: that has no direction.
    """

    most_players: int = 3
    considered: int = 8
    donors: int = 64
    fixed: frozenset[str] = frozenset()
    directions: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if min(self.most_players, self.considered, self.donors) < 1:
            raise ExplanationError("most_players, considered and donors must be at least 1")
        if any(way not in (-1, 1) for way in self.directions.values()):
            raise ExplanationError("a direction is 1 (only rises) or -1 (only falls)")


@dataclass(frozen=True, slots=True)
class Change:
    """A feature that would have had another value.

    Attributes:
        feature: Its name.
        player: Name of its player.
        before: Value in the row.
        after: Value in the known row.
    """

    feature: str
    player: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """A change that leads to another decision.

    Attributes:
        players: Names of the players that change.
        changes: What changes, the largest first in spreads of the known rows.
        score: The model's score of the changed row.
        distance: Sum of the changes in spreads of the known rows; a value that goes missing, or
            comes where it was missing, counts as one spread.
        donor: Place of the known row that gave the values.
    """

    players: tuple[str, ...]
    changes: tuple[Change, ...]
    score: float
    distance: float
    donor: int


def nearest_change(
    score: ScoreFunction,
    row: NDArray[np.floating[Any]],
    contributions: Float,
    known: NDArray[np.float32],
    players: Players,
    below: float,
    config: SearchConfig | None = None,
) -> Counterfactual | None:
    """Search the change of fewest players, then of least distance, that scores below a threshold.

    Args:
        score: The model ``[m, F] -> [m]``.
        row: The row ``[F]``.
        contributions: Of its players ``[P]``; those that raised the score are tried.
        known: Rows ``[m, F]`` whose values are plausible, such as training rows.
        players: Who owns which feature.
        below: The score must fall below it.
        config: How to search.

    Returns:
        The change, None where none of those tried leads there.

    Raises:
        ExplanationError: Where the row scores below the threshold already, or the search names
            players or features that there are not.
        ScoreError: When a changed row has no finite score.
    """
    settings = config or SearchConfig()
    _check_names(settings, players)
    start = np.asarray(row, dtype=np.float32)
    if float(checked_scores(score, start[None])[0]) < below:
        raise ExplanationError(f"the row scores below {below:g} already: nothing has to change")
    spread = _spread(known)
    donors = _donors(score, start, known, spread, below, settings.donors)
    search = _Search(score, start, known, spread, donors, players, below, settings)
    ranked = np.argsort(-contributions, kind="stable").tolist()
    raising = [p for p in ranked if contributions[p] > 0]
    tried = [p for p in raising if players.names[p] not in settings.fixed][: settings.considered]
    for size in range(1, min(settings.most_players, len(tried)) + 1):
        found = search.least(tried, size)
        if found is not None:
            return found
    return None


@dataclass(frozen=True, slots=True)
class _Search:
    """What every try needs."""

    score: ScoreFunction
    start: NDArray[np.float32]
    known: NDArray[np.float32]
    spread: Float
    donors: NDArray[np.intp]
    players: Players
    below: float
    settings: SearchConfig

    def least(self, tried: Sequence[int], size: int) -> Counterfactual | None:
        """Return the least change of so many of the players tried."""
        owner = np.array(self.players.owner)
        best: tuple[float, tuple[int, ...], int, NDArray[np.float32]] | None = None
        for chosen in combinations(tried, size):
            rows = np.where(np.isin(owner, chosen), self.known[self.donors], self.start)
            lengths = _moves(rows, self.start, self.spread).sum(axis=1)
            able = _allowed(rows, self.start, self.players, self.settings.directions)
            places = np.flatnonzero(able & (lengths > 0) & (lengths < (best or (np.inf,))[0]))
            if not len(places):
                continue
            scores = checked_scores(self.score, rows[places], "changed row")
            good = places[scores < self.below]
            if len(good):
                place = int(good[np.argmin(lengths[good])])
                best = (float(lengths[place]), chosen, int(self.donors[place]), rows[place])
        return None if best is None else self._told(*best)

    def _told(
        self, length: float, chosen: tuple[int, ...], donor: int, changed: NDArray[np.float32]
    ) -> Counterfactual | None:
        """Score the changed row alone, as it would come, and say what changed."""
        alone = float(checked_scores(self.score, changed[None], "changed row")[0])
        if not alone < self.below:
            return None
        moved = _moves(changed, self.start, self.spread)
        different = np.flatnonzero(moved > 0)
        order = np.argsort(-moved[different], kind="stable")
        changes = tuple(
            Change(
                self.players.features[f],
                self.players.names[self.players.owner[f]],
                float(self.start[f]),
                float(changed[f]),
            )
            for f in different[order].tolist()
        )
        names = tuple(self.players.names[p] for p in chosen)
        return Counterfactual(names, changes, alone, length, donor)


def _check_names(config: SearchConfig, players: Players) -> None:
    """Refuse names that would be passed over: a slip of the pen would free what is fixed."""
    for names, known, kind in (
        (config.directions, players.features, "directions name {!r}, which is no feature"),
        (config.fixed, players.names, "fixed names {!r}, which is no player"),
    ):
        for name in sorted(set(names) - set(known)):
            nearest = ", ".join(get_close_matches(name, known, cutoff=0.0))
            raise ExplanationError(f"{kind.format(name)}; the nearest names are {nearest}")


def _moves(rows: NDArray[np.float32], start: NDArray[np.float32], spread: Float) -> Float:
    """Return how many spreads each feature moves ``[m, F]`` or ``[F]``; to or from missing is 1."""
    both = np.isnan(rows) & np.isnan(start)
    moved: Float = np.abs(rows.astype(np.float64) - start) / spread
    return np.where(both, 0.0, np.nan_to_num(moved, nan=1.0))


def _allowed(
    rows: NDArray[np.float32],
    start: NDArray[np.float32],
    players: Players,
    directions: Mapping[str, int],
) -> NDArray[np.bool_]:
    """Return which rows ``[m, F]`` move every directed feature its way, or not at all."""
    able = np.ones(len(rows), dtype=np.bool_)
    for feature, way in directions.items():
        place = players.features.index(feature)
        column = rows[:, place]
        able &= ~((column - start[place]) * way < 0)  # not >= 0: that is false of missing values
        able &= np.isnan(column) == np.isnan(start[place])
    return able


def _spread(known: NDArray[np.float32]) -> Float:
    """Return the interquartile range of each feature, else its standard deviation, else 1."""
    values = known.astype(np.float64)
    values[:, np.isnan(values).all(axis=0)] = 0.0  # else numpy warns: it has no quantile
    low, high = np.nanquantile(values, [0.25, 0.75], axis=0)
    wide = high - low
    spread = np.where(wide > 0, wide, np.nanstd(values, axis=0))
    return np.where(np.isfinite(spread) & (spread > 0), spread, 1.0)


def _donors(
    score: ScoreFunction,
    start: NDArray[np.float32],
    known: NDArray[np.float32],
    spread: Float,
    below: float,
    most: int,
) -> NDArray[np.intp]:
    """Return the nearest known rows that were decided otherwise; a far feature counts no more."""
    scores = checked_scores(score, known, "known row")
    places = np.flatnonzero(scores < below)
    moved = _moves(known[places], start, spread)
    near = np.argsort(np.minimum(moved, 3.0).sum(axis=1), kind="stable")
    chosen: NDArray[np.intp] = places[near[:most]]
    return chosen
