"""What a scorecard is: graded rules whose points add up, and two cutoffs.

A condition of a graded rule holds by a degree from 0 to 1 that grows along a straight line between
two values of a feature, as membership does in fuzzy rules (Takagi and Sugeno 1985). A rule adds
its points times the product of its degrees. The sum decides: block, review or approve. A value
that is no finite number has degree 0, so its rules add nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.explain.rules.engine import Bools, Codes, blocks, run_rules
from tasks.explain.rules.model import (
    DuplicateRuleError,
    RuleSet,
    RuleSetError,
    UnknownFeatureError,
    check_features,
)

Reals = NDArray[np.float64]

CUTOFFS = 2
"""Numbers that part the decisions; they count beside the rules."""


MOST_POINTS = 10**9
"""Of a rule: sums of thousands of rules are exact in float64."""

LEAST_WIDTH = 1e-300
"""Of a ramp; the inverse of less would not be finite."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """A condition that holds by a degree.

    Attributes:
        feature: Name.
        empty_at: Value where the degree is 0, there and beyond.
        full_at: Value where it is 1, there and beyond; above or below ``empty_at``.

    Example:
        >>> Ramp("amount", 100, 200).degree([50, 125, 500, float("nan")]).tolist()
        [0.0, 0.25, 1.0, 0.0]
        >>> str(Ramp("amount", 200, 100))
        'amount below 200.0, in full from 100.0'
    """

    feature: str
    empty_at: float
    full_at: float

    def __post_init__(self) -> None:
        """Check it, naming the fix.

        Raises:
            RuleSetError: On ends that are not finite, equal, or too far apart.
        """
        for name in ("empty_at", "full_at"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise RuleSetError(
                    f"condition on {self.feature!r}: {name} {value!r} is no finite number; write "
                    "one"
                )
            object.__setattr__(self, name, float(value) + 0.0)  # no -0.0
        width = self.full_at - self.empty_at
        if abs(width) < LEAST_WIDTH or not math.isfinite(width):
            raise RuleSetError(
                f"condition on {self.feature!r}: from {self.empty_at} to {self.full_at} is no way; "
                "write two numbers apart, next to each other for a step"
            )

    @property
    def rises(self) -> bool:
        """Whether larger values have larger degrees."""
        return self.full_at > self.empty_at

    @property
    def rate(self) -> float:
        """Degree by which one unit of the feature is more.

        Multiplied by, not divided by its inverse: Polars takes a division by a constant for a
        multiplication, so that the last bit of a quotient would depend on the engine.
        """
        return 1.0 / (self.full_at - self.empty_at)

    def degree(self, values: ArrayLike) -> Reals:
        """Return the degree of values [n], float64 in 0..1; 0 where they are not finite."""
        ends = np.array([self.empty_at]), np.array([self.full_at]), np.array([self.rate])
        return _degrees(np.asarray(values, dtype=np.float64)[:, None], *ends)[:, 0]

    def __str__(self) -> str:
        side = "above" if self.rises else "below"
        return f"{self.feature} {side} {self.empty_at!r}, in full from {self.full_at!r}"


@dataclass(frozen=True)
class GradedRule:
    """Conditions that hold by degrees, and what they add.

    Attributes:
        conditions: In plain order: by feature, rising first.
        points: Added in full where every condition holds in full; less than 0 speaks for approval.
        note: A word of whoever edited it; no part of the id.
    """

    conditions: tuple[Ramp, ...]
    points: int
    note: str = ""

    def __post_init__(self) -> None:
        """Put the conditions in order and check them, naming the fix.

        Raises:
            RuleSetError: On no conditions, one side of a feature twice, or points that are no
                whole number other than 0.
        """
        ordered = tuple(sorted(self.conditions, key=lambda one: (one.feature, not one.rises)))
        object.__setattr__(self, "conditions", ordered)
        if not ordered:
            raise RuleSetError("a rule without conditions would add to every row: use base")
        if len({(one.feature, one.rises) for one in ordered}) < len(ordered):
            raise RuleSetError(f"rule {self}: a side of a feature stands twice; keep one")
        if not isinstance(self.points, int) or isinstance(self.points, bool) or not self.points:
            raise RuleSetError(f"rule {self}: points {self.points!r}; write a whole number, not 0")
        if abs(self.points) > MOST_POINTS:
            raise RuleSetError(f"rule {self}: points {self.points:,}; at most {MOST_POINTS:,} add")

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of its conditions."""
        said = [[c.feature, c.empty_at.hex(), c.full_at.hex()] for c in self.conditions]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features it reads, each once."""
        return tuple(dict.fromkeys(one.feature for one in self.conditions))

    def __str__(self) -> str:
        return " and ".join(map(str, self.conditions))


class FlatCard(NamedTuple):
    """The rules of a scorecard in arrays; rules of fewer conditions are filled up to C of them.

    Attributes:
        columns: intp [R, C], place of the feature that is read, -1: no condition.
        empty_at: float64 [R, C].
        full_at: float64 [R, C].
        rates: float64 [R, C].
        points: float64 [R].
    """

    columns: NDArray[np.intp]
    empty_at: Reals
    full_at: Reals
    rates: Reals
    points: Reals


@dataclass(frozen=True)
class Scorecard:
    """Graded rules over the features of one model.

    Attributes:
        name: What it is called.
        version: Name of this edition.
        features: Names of the model's features in its order.
        rules: The rules.
        base: Points that every row starts with.
        review_at: Points from which a row is reviewed.
        block_at: Points from which it is blocked.
        data_digest: SHA-256 of the rows that it was fitted to, "" if written by hand.
        model_digest: Digest of the model that it stands for, "" if none.
    """

    name: str
    version: str
    features: tuple[str, ...]
    rules: tuple[GradedRule, ...]
    base: int
    review_at: int
    block_at: int
    data_digest: str = ""
    model_digest: str = ""

    def __post_init__(self) -> None:
        """Check it, naming the fix.

        Raises:
            UnknownFeatureError: On a feature that is not the model's.
            DuplicateRuleError: On two rules of the same conditions.
            RuleSetError: Without a name, a version or distinct features, or on cutoffs that are
                no whole numbers or out of order.
        """
        check_features(self.name, self.version, self.features)
        for name in ("base", "review_at", "block_at"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise RuleSetError(f"{name} {value!r} must be a whole number of points")
        if self.review_at > self.block_at:
            raise RuleSetError(
                f"review_at {self.review_at} lies above block_at {self.block_at}; review from "
                "fewer points than you block from"
            )
        seen: set[str] = set()
        for rule in self.rules:
            for feature in rule.features:
                if feature not in self.features:
                    raise UnknownFeatureError(
                        f"rule {rule}: the model has no feature {feature!r}; correct the name"
                    )
            if rule.id in seen:
                raise DuplicateRuleError(f"rule {rule.id} ({rule}) stands twice; add their points")
            seen.add(rule.id)

    @cached_property
    def flat(self) -> FlatCard:
        """The rules in arrays."""
        place = {name: number for number, name in enumerate(self.features)}
        widest = max((len(rule.conditions) for rule in self.rules), default=1)
        columns = np.full((len(self.rules), widest), -1, dtype=np.intp)
        ends = np.tile([0.0, 1.0, 1.0], (*columns.shape, 1))
        for number, rule in enumerate(self.rules):
            for which, one in enumerate(rule.conditions):
                columns[number, which] = place[one.feature]
                ends[number, which] = one.empty_at, one.full_at, one.rate
        points = np.array([float(rule.points) for rule in self.rules])
        return FlatCard(columns, ends[..., 0], ends[..., 1], ends[..., 2], points)

    @property
    def n_rules(self) -> int:
        """Number of rules, the two cutoffs counted as rules."""
        return len(self.rules) + CUTOFFS

    def lineage(self) -> list[dict[str, object]]:
        """Return for each rule: its id, features, digest of the data, digest of the model."""
        return [
            {
                "rule": rule.id,
                "features": list(rule.features),
                "data_digest": self.data_digest,
                "model_digest": self.model_digest,
            }
            for rule in self.rules
        ]


@dataclass(frozen=True)
class Points:
    """What a scorecard says of rows.

    Attributes:
        added: float64 [n, R], points of each rule.
        total: float64 [n], base and all of them.
        decisions: int8 [n], places in ``DECISIONS``.
        missing: bool [n, R], rules that add nothing because a value they read is not finite.
    """

    added: Reals
    total: Reals
    decisions: Codes
    missing: Bools


def run_scorecard(card: Scorecard, rows: ArrayLike) -> Points:
    """Evaluate every rule on every row.

    Sums and products are taken in the order that the SQL of `export_scorecard` takes them, so
    that both give the same float64.

    Args:
        card: The scorecard.
        rows: [n, F], columns in the order of ``card.features``.

    Raises:
        RuleSetError: On rows of another width.
    """
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(card.features):
        raise RuleSetError(
            f"rows have shape {values.shape}, the scorecard knows {len(card.features)} features; "
            "pass rows [n, F] of exactly these features in their order"
        )
    parts = [_run(card, part) for part in blocks(values)]
    return Points(*(np.concatenate(found) for found in zip(*parts, strict=True)))


def _run(card: Scorecard, values: Reals) -> tuple[Reals, Reals, Codes, Bools]:
    """Return what ``Points`` holds, of some rows."""
    flat = card.flat
    added = np.tile(flat.points, (len(values), 1))
    missing = np.zeros(added.shape, dtype=np.bool_)
    for which in range(flat.columns.shape[1]):
        columns = flat.columns[:, which]
        read = values[:, columns]
        ends = (end[:, which] for end in (flat.empty_at, flat.full_at, flat.rates))
        added = added * np.where(columns < 0, 1.0, _degrees(read, *ends))
        missing |= ~np.isfinite(read) & (columns >= 0)
    base = np.full((len(values), 1), float(card.base))
    # Summed one after the other, as SQL does; a plain sum would pair them.
    total = np.cumsum(np.concatenate([base, added], axis=1), axis=1)[:, -1]
    decisions = (total >= card.review_at).astype(np.int8) + (total >= card.block_at)
    return added, total, decisions.astype(np.int8), missing


def _degrees(values: Reals, empty_at: Reals, full_at: Reals, rates: Reals) -> Reals:
    """Return the degrees of values [n, C] by C ramps; 0 where they are not finite."""
    rises = full_at > empty_at
    known = np.where(np.isfinite(values), values, empty_at)
    full = np.where(rises, known >= full_at, known <= full_at)
    low, high = np.minimum(empty_at, full_at), np.maximum(empty_at, full_at)
    # Clipped first: a value far off would overflow.
    part = (np.clip(known, low, high) - empty_at) * rates + 0.0
    return np.asarray(np.where(full, 1.0, part))


def decide(rules: RuleSet | Scorecard, rows: ArrayLike) -> Codes:
    """Return the decisions of a rule set (-1 where it is silent) or of a scorecard, int8 [n]."""
    if isinstance(rules, RuleSet):
        return run_rules(rules, rows).decisions
    return run_scorecard(rules, rows).decisions
