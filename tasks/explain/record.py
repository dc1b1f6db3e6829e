"""Explanations of many rows as a record: what an auditor needs to check them a year later.

A record holds the values with their errors, the rows they belong to, and a contract: which
explainer, players, background, model and code made them. ``connectors.explain.set_files`` keeps it
on disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.additivity import check_additivity
from tasks.explain.errors import ExplanationError
from tasks.explain.groups import FeatureGroups
from tasks.explain.player_explanation import PlayerExplanation
from tasks.explain.players import Players
from tasks.explain.rules.model import DECISIONS
from tasks.explain.ties import order_of, ties_of
from tasks.explain.tree import Explanation

Float = NDArray[np.float64]
Option = str | int | float | bool | None

TOLERANCE = 1e-5
"""Largest additivity gap relative to ``1 + |score|``: that of a blend of heads."""


class RecordError(ExplanationError):
    """A record that contradicts itself, or was changed after it was written."""


@dataclass(frozen=True, slots=True)
class ModelName:
    """Which model was explained.

    Attributes:
        name: As it is registered, or the name of its file.
        version: Version in the registry; empty for a file.
        digest: SHA-256 of the bundle's manifest or of the file.
    """

    name: str
    version: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.name} version {self.version}" if self.version else self.name


@dataclass(frozen=True, slots=True)
class Contract:
    """How the values of a record came about.

    Attributes:
        explainer: ``players`` (any function) or ``trees`` (trees, linear parts and their blends).
        method: ``exact``, ``sampled``, ``path``, ``interventional`` or ``mixed``.
        unit: Of values and scores: ``score`` or ``log-odds``.
        players: Players and the features of each.
        labels: Players in words, same order.
        model: What was explained.
        base: Score before any player is known.
        gap: Largest ``|base + sum of values - score|``.
        background_sha256: Digest of the background; empty where none was used.
        seed: Of the draw; None where nothing was drawn.
        options: Settings of the explainer.
        thresholds: Decision -> decided score from which it is made.
        code: Commit of the code.
        created: ISO instant.
    """

    explainer: str
    method: str
    unit: str
    players: Players
    labels: tuple[str, ...]
    model: ModelName
    base: float
    gap: float
    background_sha256: str = ""
    seed: int | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    code: str = ""
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What is known of the rows besides their features.

    Attributes:
        keys: Names by which a person finds the rows again, length n, each once.
        decided: float64 ``[n]``, scores that decisions are made on; None: the explained ones.
        times: int64 ``[n]`` epoch milliseconds, or None.
        segments: Name of a division -> the segment of each row.
    """

    keys: tuple[str, ...]
    decided: Float | None = None
    times: NDArray[np.int64] | None = None
    segments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def take(self, places: NDArray[np.intp]) -> RowFacts:
        """Return those of the chosen rows, in the order given."""
        return RowFacts(
            tuple(self.keys[p] for p in places),
            None if self.decided is None else self.decided[places],
            None if self.times is None else self.times[places],
            {s: tuple(v[p] for p in places) for s, v in self.segments.items()},
        )


@dataclass(frozen=True, slots=True, eq=False)
class ExplanationSet:
    """Explanations of n rows.

    Attributes:
        contract: How they came about.
        keys: Names of the rows.
        values: Contributions ``[n, P]``; base plus their sum is the score.
        errors: Standard error of each ``[n, P]``; 0 where exact.
        scores: Explained scores ``[n]``.
        decided: Scores that decisions are made on ``[n]``, such as calibrated probabilities.
        data: The rows ``[n, F]``.
        times: int64 ``[n]`` epoch milliseconds, or None.
        segments: Name of a division -> the segment of each row.
    """

    contract: Contract
    keys: tuple[str, ...]
    values: Float
    errors: Float
    scores: Float
    decided: Float
    data: Float
    times: NDArray[np.int64] | None = None
    segments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check shapes, finiteness and sums.

        Raises:
            RecordError: When parts do not fit each other.
            AdditivityError: When values miss a score by more than the contract's gap.
        """
        n, players = len(self.keys), self.contract.players
        shapes = {
            "values": (self.values, (n, len(players))),
            "errors": (self.errors, (n, len(players))),
            "scores": (self.scores, (n,)),
            "decided": (self.decided, (n,)),
            "data": (self.data, (n, len(players.features))),
        }
        for name, (array, shape) in shapes.items():
            if array.shape != shape:
                raise RecordError(
                    f"{name} have shape {array.shape}, not {shape}: pass one row a key"
                )
            if name != "data" and not np.isfinite(array).all():
                raise RecordError(f"{name} are not all finite: explain the rows again")
        key, times = Counter(self.keys).most_common(1)[0] if n else ("", 0)
        if times > 1:
            raise RecordError(f"key {key!r} occurs {times} times: each row needs a name of its own")
        if len(self.contract.labels) != len(players):
            raise RecordError(f"{len(self.contract.labels)} labels for {len(players)} players")
        lengths = [len(s) for s in self.segments.values()]
        lengths += [len(self.times)] if self.times is not None else []
        if any(length != n for length in lengths):
            raise RecordError(f"times and segments need one entry for each of {n} rows")
        if (self.errors < 0).any():
            raise RecordError("an error is negative: explain the rows again")
        gap = check_additivity(self.values, self.contract.base, self.scores, tolerance=TOLERANCE)
        if gap > self.contract.gap * (1 + 1e-9) + 1e-12:
            raise RecordError(
                f"the values miss a score by {gap:.3g}, the contract says at most "
                f"{self.contract.gap:.3g}: the record was changed, explain the rows again"
            )

    def __len__(self) -> int:
        """Return n."""
        return len(self.keys)

    @property
    def order(self) -> NDArray[np.intp]:
        """Players of each row, what raised the score most first, ``[n, P]``."""
        return order_of(self.values)

    @property
    def ties(self) -> NDArray[np.bool_]:
        """Whether errors leave open which of a place in ``order`` and the next is larger."""
        return ties_of(self.values, self.errors, self.contract.base, self.scores)

    def shown_data(self) -> Float:
        """Return the feature value of each player ``[n, P]``; NaN for players of several."""
        return self.contract.players.shown(self.data)

    def decision(self, row: int) -> str:
        """Return the gravest decision whose threshold the row reaches; empty for none."""
        return decision_of(self.contract.thresholds, float(self.decided[row]))

    def take(self, rows: NDArray[np.intp] | Sequence[int]) -> ExplanationSet:
        """Return the chosen rows, in the order given."""
        places = np.asarray(rows, dtype=np.intp)
        facts = RowFacts(self.keys, self.decided, self.times, self.segments).take(places)
        return replace(
            self,
            keys=facts.keys,
            values=self.values[places],
            errors=self.errors[places],
            scores=self.scores[places],
            decided=self.decided[places],
            data=self.data[places],
            times=facts.times,
            segments=facts.segments,
        )

    def to_shap(self) -> Any:
        """Return a ``shap.Explanation`` of the players in words, for shap's plots."""
        import shap

        return shap.Explanation(
            self.values,
            base_values=np.full(len(self), self.contract.base),
            data=self.shown_data(),
            feature_names=list(self.contract.labels),
        )


def decision_of(thresholds: Mapping[str, float], score: float) -> str:
    """Return the gravest decision whose threshold a score reaches; empty for none.

    >>> decision_of({"review": 0.5, "block": 0.9}, 0.7)
    'review'
    >>> decision_of({"review": 0.5, "block": 0.5}, 0.7)
    'block'
    """
    grave: dict[str, int] = {name: place for place, name in enumerate(DECISIONS)}
    reached = [(at, grave.get(name, -1), name) for name, at in thresholds.items() if score >= at]
    return max(reached)[-1] if reached else ""


def of_players(
    found: PlayerExplanation,
    players: Players,
    rows: NDArray[np.floating[Any]],
    facts: RowFacts,
    *,
    model: ModelName,
    labels: Sequence[str] = (),
    options: Mapping[str, Option] | None = None,
    thresholds: Mapping[str, float] | None = None,
    code: str = "",
) -> ExplanationSet:
    """Record what the engine found.

    Args:
        found: Its answer.
        players: Who shared the credit.
        rows: The explained rows ``[n, F]``.
        facts: Of the rows.
        model: What was explained.
        labels: Players in words; empty: their names.
        options: Settings of the explainer.
        thresholds: Decision -> decided score from which it is made.
        code: Commit of the code.

    Raises:
        RecordError: When parts do not fit each other.
    """
    contract = Contract(
        explainer="players",
        method=found.method,
        unit="score",
        players=players,
        labels=tuple(labels) or players.names,
        model=model,
        base=found.base,
        gap=found.gap,
        background_sha256=found.background_sha256,
        seed=found.seed,
        options=dict(options or {}),
        thresholds=dict(thresholds or {}),
        code=code,
    )
    return _recorded(contract, found.values, found.errors, found.scores, rows, facts)


def of_trees(
    found: Explanation,
    groups: FeatureGroups,
    rows: NDArray[np.floating[Any]],
    facts: RowFacts,
    *,
    model: ModelName,
    thresholds: Mapping[str, float] | None = None,
    code: str = "",
) -> ExplanationSet:
    """Record contributions of trees or linear parts, summed over groups of features.

    The error of a group is the standard error over the head's models. Arguments as `of_players`.
    """
    values, errors = groups.mean_and_error(found.per_model)
    base = float(found.base.mean())
    owner = {member: g for g, members in enumerate(groups.members) for member in members}
    contract = Contract(
        explainer="trees",
        method=found.method,
        unit="log-odds",
        players=Players(found.names, groups.keys, tuple(owner[f] for f in range(len(owner)))),
        labels=groups.labels,
        model=model,
        base=base,
        gap=float(np.abs(base + values.sum(axis=1) - found.raw_score).max(initial=0.0)),
        background_sha256=found.background_sha256,
        options={"models": len(found.per_model)},
        thresholds=dict(thresholds or {}),
        code=code,
    )
    return _recorded(contract, values, errors, found.raw_score, rows, facts)


def _recorded(
    contract: Contract,
    values: Float,
    errors: Float,
    scores: Float,
    rows: NDArray[np.floating[Any]],
    facts: RowFacts,
) -> ExplanationSet:
    decided = scores if facts.decided is None else np.asarray(facts.decided, dtype=np.float64)
    data = np.asarray(rows, dtype=np.float64)
    return ExplanationSet(
        contract, facts.keys, values, errors, scores, decided, data, facts.times, facts.segments
    )
