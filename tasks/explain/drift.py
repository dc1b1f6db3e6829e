"""How explanations change over weeks and differ between segments.

A week is compared with a reference by two profiles: each player's share of all absolute
contributions, and its share of first reasons. The distance of two profiles is their total variation
(half the sum of absolute differences, 0 to 1). What chance alone would give is drawn from the
reference (bootstrap; rows of one cluster, such as a card, are drawn together), and so is the
interval of the distance (reflected percentiles): ``tasks.explain.drift_chance``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from tasks.explain.drift_chance import Distance, Judge, firsts
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
        least_clusters: Nor is one with rows of fewer clusters, where clusters are given: the
            bootstrap of so few is too narrow.
        draws: Of the bootstrap, at the least; a small level takes more (20 / level).
        level: Chance that any of the weeks alarms although nothing changed, for each profile.
        seed: Of the draws.
        named: Players that an alarm names.
    """

    period_ms: int = WEEK_MS
    least_rows: int = 50
    least_clusters: int = 20
    draws: int = 1_000
    level: float = 0.05
    seed: int = 0
    named: int = 3

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.period_ms < 1 or self.least_rows < 2 or self.draws < 100:
            raise ExplanationError("period_ms >= 1, least_rows >= 2 and draws >= 100 are needed")
        if self.least_clusters < 2:
            raise ExplanationError("least_clusters >= 2 is needed: one cluster tells no chance")
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
    return Profile(len(values), np.abs(values).mean(axis=0), firsts(values).mean(axis=0))


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
        ExplanationError: When shapes do not fit, a value is not finite, or fewer than two periods
            have enough rows and clusters.
    """
    settings = config or DriftConfig()
    _check(values, times, labels, clusters)
    offset = MONDAY_MS if settings.period_ms % WEEK_MS == 0 else 0
    period = (times - offset) // settings.period_ms
    starts = np.unique(period)
    members = [np.flatnonzero(period == one) for one in starts]
    few = [_too_few(rows, clusters, settings) for rows in members]
    enough = [p for p, text in enumerate(few) if not text]
    if len(enough) < 2:
        also = "" if clusters is None else f" of {settings.least_clusters} clusters"
        raise ExplanationError(
            f"{len(enough)} of {len(starts)} periods have {settings.least_rows} rows{also}: "
            "explain more weeks or more rows, or lower least_rows"
        )
    groups = clusters if clusters is not None else np.arange(len(values))
    judge = Judge(values, groups, members[enough[0]], settings.draws, settings.seed)
    others = enough[1:]
    found = judge.distances([members[p] for p in others], settings.level)
    pairs = dict(zip(others, found, strict=True))
    reference = profile_of(values[members[enough[0]]])
    periods = []
    for place, rows in enumerate(members):
        start, own = int(starts[place]) * settings.period_ms + offset, profile_of(values[rows])
        pair = pairs.get(place)
        if pair is not None:
            text = _text(own, reference, pair, labels, settings.named)
        else:
            text = few[place] or f"the reference, {len(rows):,} rows"
        strength, first = pair or (None, None)
        periods.append(Period(start, own, strength, first, f"{_day(start)}: {text}"))
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


def _check(
    values: Float,
    times: NDArray[np.int64],
    labels: Sequence[str],
    clusters: NDArray[np.int64] | None,
) -> None:
    """Refuse what does not fit each other, and values that are no numbers: sums would hide them."""
    if values.ndim != 2 or times.shape != (len(values),) or len(labels) != values.shape[1]:
        raise ExplanationError("drift needs values [n, P], times [n] and P labels")
    if clusters is not None and clusters.shape != times.shape:
        raise ExplanationError("drift needs one cluster for each row")
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, player = wrong[0]
        raise ExplanationError(
            f"the value of {labels[player]!r} in row {row} is {values[row, player]}: drift needs "
            "finite values; explain that row again, or leave it out"
        )


def _too_few(
    rows: NDArray[np.intp], clusters: NDArray[np.int64] | None, config: DriftConfig
) -> str:
    """Return what is said of a period that cannot be judged; empty where it can."""
    if clusters is None:
        return f"{len(rows)} rows, too few to judge" if len(rows) < config.least_rows else ""
    count = len(np.unique(clusters[rows]))
    if len(rows) >= config.least_rows and count >= config.least_clusters:
        return ""
    return f"{len(rows)} rows of {count} clusters, too few to judge"


def _text(
    own: Profile,
    reference: Profile,
    pair: tuple[Distance, Distance],
    labels: Sequence[str],
    named: int,
) -> str:
    """Say what is beyond chance, with the players that moved most."""
    said = []
    for kind, distance, mine, theirs in (
        ("contributions", pair[0], own.share, reference.share),
        ("first reasons", pair[1], own.first, reference.first),
    ):
        if not distance.alarm:
            continue
        order = np.argsort(-np.abs(mine - theirs), kind="stable")[:named]
        moves = ", ".join(f"{labels[p]} {theirs[p]:.0%} -> {mine[p]:.0%}" for p in order)
        said.append(
            f"{kind} moved by {distance.value:.2f} [{distance.low:.2f}, {distance.high:.2f}], "
            f"chance gives at most {distance.limit:.2f}: {moves}"
        )
    return "; ".join(said) or "as in the reference"


def _day(instant: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=instant)).date().isoformat()
