"""How explanations change over weeks and differ between segments.

A week is compared with a reference by two profiles: each player's share of all absolute
contributions, and its share of first reasons. The distance of two profiles is their total variation
(half the sum of absolute differences, 0 to 1). What chance alone would give is drawn from the
reference (bootstrap; rows of one cluster, such as a card, are drawn together), and so is the
interval of the distance (reflected percentiles).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from tasks.explain.errors import ExplanationError
from tasks.explain.record import ExplanationSet

Float = NDArray[np.float64]
DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
MONDAY_MS = 4 * DAY_MS
"""The first Monday of the epoch: weeks begin on Mondays."""


@dataclass(frozen=True, slots=True)
class DriftConfig:
    """How weeks are compared.

    Attributes:
        period_ms: Length of a period.
        least_rows: A period with fewer rows is not judged.
        draws: Of the bootstrap.
        level: Chance that any of the weeks alarms although nothing changed, for each profile.
        seed: Of the draws.
        named: Players that an alarm names.
    """

    period_ms: int = WEEK_MS
    least_rows: int = 50
    draws: int = 1_000
    level: float = 0.05
    seed: int = 0
    named: int = 3

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.period_ms < 1 or self.least_rows < 2 or self.draws < 100:
            raise ExplanationError("period_ms >= 1, least_rows >= 2 and draws >= 100 are needed")
        if not 0 < self.level < 1:
            raise ExplanationError(f"level must lie between 0 and 1, got {self.level}")


@dataclass(frozen=True, slots=True)
class Profile:
    """What rows were decided by.

    Attributes:
        rows: Their number.
        strength: Mean absolute contribution of each player ``[P]``.
        first: Share of rows whose first reason each player is ``[P]``.
    """

    rows: int
    strength: Float
    first: Float

    @property
    def share(self) -> Float:
        """Each player's share of all absolute contributions ``[P]``."""
        total = self.strength.sum()
        return self.strength / total if total > 0 else np.zeros_like(self.strength)


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a period is from the reference by one profile.

    Attributes:
        value: Total variation, 0 to 1.
        low: Lower end of its 95 % interval.
        high: Upper end.
        limit: What chance alone exceeds with the level's probability, shared by all periods.
    """

    value: float
    low: float
    high: float
    limit: float

    @property
    def alarm(self) -> bool:
        """Whether it is beyond chance."""
        return self.value > self.limit


@dataclass(frozen=True, slots=True)
class Period:
    """One period.

    Attributes:
        start: Its first instant, epoch milliseconds.
        profile: Of its rows.
        strength: Distance of the shares of absolute contributions; None where not judged.
        first: Distance of the shares of first reasons; None where not judged.
        text: What is to be said.
    """

    start: int
    profile: Profile
    strength: Distance | None
    first: Distance | None
    text: str

    @property
    def alarm(self) -> bool:
        """Whether either profile is beyond chance."""
        return any(one is not None and one.alarm for one in (self.strength, self.first))


@dataclass(frozen=True, slots=True)
class Drift:
    """Periods in order; the first that has enough rows is the reference.

    Attributes:
        labels: Players in words.
        reference: Its place in ``periods``.
        periods: All of them; periods without a row are left out.
    """

    labels: tuple[str, ...]
    reference: int
    periods: tuple[Period, ...]

    @property
    def alarms(self) -> tuple[str, ...]:
        """Texts of the periods that are beyond chance."""
        return tuple(one.text for one in self.periods if one.alarm)


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows of one segment.

    Attributes:
        name: Of the segment.
        profile: Of its rows.
        flagged: Share of rows that reach the lightest threshold; None without thresholds.
        strongest: Up to three players with the largest mean absolute contribution, in words.
    """

    name: str
    profile: Profile
    flagged: float | None
    strongest: tuple[str, ...]


def profile_of(values: Float) -> Profile:
    """Return the profile of contributions ``[n, P]``; the first reason has the largest value.

    >>> profile_of(np.array([[1.0, -3.0], [2.0, 1.0]])).first.tolist()
    [1.0, 0.0]
    """
    if not len(values):
        raise ExplanationError("no rows: a profile needs at least one")
    return Profile(len(values), np.abs(values).mean(axis=0), _firsts(values).mean(axis=0))


def drift(
    values: Float,
    times: NDArray[np.int64],
    labels: Sequence[str],
    config: DriftConfig | None = None,
    *,
    clusters: NDArray[np.int64] | None = None,
) -> Drift:
    """Compare periods with the first one.

    Args:
        values: Contributions ``[n, P]``.
        times: int64 ``[n]``, epoch milliseconds.
        labels: Players in words, length P.
        config: How.
        clusters: int64 ``[n]``, rows that belong together; None: rows are independent.

    Raises:
        ExplanationError: When shapes do not fit, or fewer than two periods have enough rows.
    """
    settings = config or DriftConfig()
    if values.ndim != 2 or times.shape != (len(values),) or len(labels) != values.shape[1]:
        raise ExplanationError("drift needs values [n, P], times [n] and P labels")
    if clusters is not None and clusters.shape != times.shape:
        raise ExplanationError("drift needs one cluster for each row")
    offset = MONDAY_MS if settings.period_ms % WEEK_MS == 0 else 0
    period = (times - offset) // settings.period_ms
    starts = np.unique(period)
    members = [np.flatnonzero(period == one) for one in starts]
    enough = [p for p, rows in enumerate(members) if len(rows) >= settings.least_rows]
    if len(enough) < 2:
        raise ExplanationError(
            f"{len(enough)} of {len(starts)} periods have {settings.least_rows} rows: explain "
            "more weeks or more rows, or lower least_rows"
        )
    groups = clusters if clusters is not None else np.arange(len(values))
    judge = _Judge(values, groups, members[enough[0]], settings, len(enough) - 1)
    periods = []
    for place, rows in enumerate(members):
        start, own = int(starts[place]) * settings.period_ms + offset, profile_of(values[rows])
        judged = place in enough[1:]
        pair: tuple[Distance | None, Distance | None] = (None, None)
        if judged:
            pair = judge.distances(rows)
        text = _text(start, own, judge.profile, pair, labels, settings)
        if place not in enough:
            text = f"{_day(start)}: {len(rows)} rows, too few to judge"
        elif not judged:
            text = f"{_day(start)}: the reference, {len(rows):,} rows"
        periods.append(Period(start, own, pair[0], pair[1], text))
    return Drift(tuple(labels), enough[0], tuple(periods))


def segments(found: ExplanationSet, division: str, *, named: int = 3) -> tuple[Segment, ...]:
    """Compare the segments of a division, the largest first.

    Args:
        found: Explanations.
        division: A name of ``found.segments``.
        named: Players that are named.

    Raises:
        ExplanationError: On a division that the record does not have.
    """
    if division not in found.segments:
        raise ExplanationError(
            f"no division {division!r}; the record has {', '.join(found.segments) or 'none'}"
        )
    rows: dict[str, list[int]] = {}
    for place, name in enumerate(found.segments[division]):
        rows.setdefault(name, []).append(place)
    lightest = min(found.contract.thresholds.values(), default=None)
    made = []
    for name in sorted(rows, key=lambda one: (-len(rows[one]), one)):
        own = profile_of(found.values[rows[name]])
        order = np.argsort(-own.strength, kind="stable")[:named]
        flagged = None
        if lightest is not None:
            flagged = float((found.decided[rows[name]] >= lightest).mean())
        made.append(Segment(name, own, flagged, tuple(found.contract.labels[p] for p in order)))
    return tuple(made)


class _Judge:
    """Distances from the reference, with what chance would give."""

    def __init__(
        self,
        values: Float,
        clusters: NDArray[np.int64],
        reference: NDArray[np.intp],
        config: DriftConfig,
        compared: int,
    ) -> None:
        self._tables = (np.abs(values), _firsts(values))
        self._clusters = clusters
        self._config = config
        self._reference = reference
        self._quantile = 1 - config.level / compared  # Bonferroni: any of the periods
        self._rng = np.random.default_rng(config.seed)
        self.profile = profile_of(values[reference])
        self._drawn = self._draws(reference, None)

    def distances(self, rows: NDArray[np.intp]) -> tuple[Distance, Distance]:
        """Return the distances by both profiles."""
        own, chance = self._draws(rows, None), self._draws(self._reference, len(rows))
        found = []
        for place, table in enumerate(self._tables):
            base, other = self._drawn[place], own[place]
            mine = _shares(table[self._reference].mean(axis=0))
            value = float(_variation(_shares(table[rows].mean(axis=0)), mine))
            # Reflected: a drawn distance holds the noise of the draw besides that of the rows.
            high, low = 2 * value - np.quantile(_variation(other, base), [0.025, 0.975])
            limit = float(np.quantile(_variation(chance[place], base), self._quantile))
            found.append(
                Distance(value, max(0.0, float(low)), min(1.0, max(0.0, float(high))), limit)
            )
        return found[0], found[1]

    def _draws(self, rows: NDArray[np.intp], size: int | None) -> tuple[Float, Float]:
        """Return shares ``[draws, P]`` of resampled rows, as many as there are or ``size``."""
        _, place = np.unique(self._clusters[rows], return_inverse=True)
        count = int(place.max()) + 1
        drawn = count if size is None else max(1, round(count * size / len(rows)))
        draws = self._config.draws
        weights = self._rng.multinomial(drawn, np.full(count, 1 / count), size=draws)
        found = []
        for table in self._tables:
            sums = np.zeros((count, table.shape[1]))
            np.add.at(sums, place, table[rows])
            found.append(_shares(weights @ sums))
        return found[0], found[1]


def _shares(table: Float) -> Float:
    total = table.sum(axis=-1, keepdims=True)
    return np.divide(table, total, out=np.zeros_like(table), where=total > 0)


def _firsts(values: Float) -> Float:
    found = np.zeros_like(values)
    found[np.arange(len(values)), np.argmax(values, axis=1)] = 1.0
    return found


def _variation(one: Float, two: Float) -> Float:
    half: Float = 0.5 * np.abs(one - two).sum(axis=-1)
    return half


def _text(
    start: int,
    own: Profile,
    reference: Profile,
    pair: tuple[Distance | None, Distance | None],
    labels: Sequence[str],
    config: DriftConfig,
) -> str:
    kinds: Mapping[str, tuple[Distance | None, Float, Float]] = {
        "contributions": (pair[0], own.share, reference.share),
        "first reasons": (pair[1], own.first, reference.first),
    }
    said = []
    for kind, (distance, mine, theirs) in kinds.items():
        if distance is None or not distance.alarm:
            continue
        order = np.argsort(-np.abs(mine - theirs), kind="stable")[: config.named]
        moves = ", ".join(f"{labels[p]} {theirs[p]:.0%} -> {mine[p]:.0%}" for p in order)
        said.append(
            f"{kind} moved by {distance.value:.2f} [{distance.low:.2f}, {distance.high:.2f}], "
            f"chance gives at most {distance.limit:.2f}: {moves}"
        )
    return f"{_day(start)}: {'; '.join(said) or 'as in the reference'}"


def _day(instant: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=instant)).date().isoformat()
