"""What a rule set is: conditions on features, a decision for each rule, where it comes from.

A rule holds where all of its conditions hold. A value that is no finite number never matches: SQL
engines disagree on how NaN compares, so it is left out of the question. The set decides by the
gravest rule that holds; where none does, it is silent.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

Decision = Literal["approve", "review", "block"]
Operator = Literal[">", ">=", "<", "<="]

DECISIONS: tuple[Decision, ...] = get_args(Decision)
"""From the lightest to the gravest; their places are the codes in arrays."""

OPERATORS: tuple[Operator, ...] = get_args(Operator)
SILENT = -1
"""Code of a row on which no rule holds."""


class RuleSetError(ValueError):
    """A rule set that cannot be used; says which rule and how to mend it."""


class UnknownFeatureError(RuleSetError):
    """A condition on a feature that the set does not know."""


class ContradictionError(RuleSetError):
    """Conditions that no value fulfils."""


class DuplicateRuleError(RuleSetError):
    """Two rules of one id, that is, of the same conditions."""


class UnknownDecisionError(RuleSetError):
    """A decision that is none of approve, review, block."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a feature with a number.

    Attributes:
        feature: Name.
        operator: ``>``, ``>=``, ``<`` or ``<=``.
        value: Finite threshold, in the feature's unit.
    """

    feature: str
    operator: Operator
    value: float

    def __post_init__(self) -> None:
        """Check it, naming the fix.

        Raises:
            RuleSetError: On an operator or a value that cannot be.
        """
        if self.operator not in OPERATORS:
            known = ", ".join(OPERATORS)
            raise RuleSetError(
                f"condition on {self.feature!r}: operator {self.operator!r}; write one of {known}"
            )
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if not number or not math.isfinite(self.value):
            raise RuleSetError(
                f"condition on {self.feature!r}: {self.value!r} is no finite number; write one"
            )
        # -0.0 and 0.0 compare alike and would have two digests.
        object.__setattr__(self, "value", float(self.value) + 0.0)

    @property
    def from_below(self) -> bool:
        """Whether it bounds the feature from below."""
        return self.operator[0] == ">"

    def __str__(self) -> str:
        return f"{self.feature} {self.operator} {self.value!r}"


@dataclass(frozen=True)
class Rule:
    """Conditions that must all hold, and what is then decided.

    Attributes:
        conditions: In plain order: by feature, lower bound first.
        decision: approve, review or block.
        note: A word of whoever edited it; no part of the id.
    """

    conditions: tuple[Condition, ...]
    decision: Decision
    note: str = ""

    def __post_init__(self) -> None:
        """Put the conditions in order and check them, naming the fix.

        Raises:
            UnknownDecisionError: On a decision that is none.
            ContradictionError: On conditions that no value fulfils.
            RuleSetError: On no conditions, or on a bound said twice.
        """
        ordered = tuple(sorted(self.conditions, key=lambda one: (one.feature, not one.from_below)))
        object.__setattr__(self, "conditions", ordered)
        if self.decision not in DECISIONS:
            raise UnknownDecisionError(
                f"rule {self}: decision {self.decision!r}; write one of {', '.join(DECISIONS)}"
            )
        if not ordered:
            raise RuleSetError("a rule without conditions would hold on every row: write some")
        for first, second in pairwise(ordered):
            if first.feature != second.feature:
                continue
            if first.from_below == second.from_below:
                raise RuleSetError(
                    f"rule {self}: {first} and {second} bound the same side; keep the stricter one"
                )
            open_end = "=" not in first.operator or "=" not in second.operator
            if first.value > second.value or (first.value == second.value and open_end):
                raise ContradictionError(
                    f"rule {self}: no value fulfils {first} and {second}; correct one of them"
                )

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of its conditions."""
        said = json.dumps([[c.feature, c.operator, c.value.hex()] for c in self.conditions])
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features it reads, each once."""
        return tuple(dict.fromkeys(one.feature for one in self.conditions))

    def __str__(self) -> str:
        return " and ".join(map(str, self.conditions))


class FlatRules(NamedTuple):
    """The C conditions of R rules in arrays, as rows are held against all of them at once.

    Attributes:
        columns: intp [C], place of the feature that is read.
        sides: float64 [C], 1 for a bound from below, -1 for one from above.
        bounds: float64 [C], thresholds times sides.
        closed: bool [C], whether the threshold itself fulfils the condition.
        starts: intp [R], first condition of each rule.
        decisions: int8 [R], places in ``DECISIONS``.
    """

    columns: NDArray[np.intp]
    sides: NDArray[np.float64]
    bounds: NDArray[np.float64]
    closed: NDArray[np.bool_]
    starts: NDArray[np.intp]
    decisions: NDArray[np.int8]


@dataclass(frozen=True)
class RuleSet:
    """Rules over the features of one model.

    Attributes:
        name: What the set is called.
        version: Name of this edition, such as ``2026-11-29`` or ``3``.
        features: Names of the model's features in its order.
        rules: The rules.
        data_digest: SHA-256 of the rows that it was mined from, "" if written by hand.
        model_digest: Digest of the model that it stands for, "" if none.
    """

    name: str
    version: str
    features: tuple[str, ...]
    rules: tuple[Rule, ...]
    data_digest: str = ""
    model_digest: str = ""

    def __post_init__(self) -> None:
        """Check it, naming the fix.

        Raises:
            UnknownFeatureError: On a feature that is not the model's.
            DuplicateRuleError: On two rules of the same conditions.
            RuleSetError: Without a name, a version or distinct features.
        """
        known = check_features(self.name, self.version, self.features)
        seen: dict[str, Rule] = {}
        for rule in self.rules:
            for feature in rule.features:
                if feature not in known:
                    raise UnknownFeatureError(
                        f"rule {rule}: the model has no feature {feature!r}; correct the name, "
                        "or add it to the features of the set"
                    )
            if rule.id in seen:
                raise DuplicateRuleError(
                    f"rule {rule.id} ({rule}) stands twice, deciding {seen[rule.id].decision} and "
                    f"{rule.decision}; remove one of them"
                )
            seen[rule.id] = rule

    @cached_property
    def flat(self) -> FlatRules:
        """The rules in arrays."""
        place = {name: number for number, name in enumerate(self.features)}
        every = [one for rule in self.rules for one in rule.conditions]
        sides = np.array([1.0 if one.from_below else -1.0 for one in every])
        lengths = [0, *(len(rule.conditions) for rule in self.rules)][:-1]
        return FlatRules(
            np.array([place[one.feature] for one in every], dtype=np.intp),
            sides,
            np.array([one.value for one in every]) * sides,
            np.array(["=" in one.operator for one in every]),
            np.cumsum(lengths, dtype=np.intp),
            np.array([DECISIONS.index(rule.decision) for rule in self.rules], dtype=np.int8),
        )

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


def check_features(name: str, version: str, features: Sequence[str]) -> set[str]:
    """Return the names of the features as a set.

    Raises:
        RuleSetError: Without a name, a version or distinct features.
    """
    if not name or not version:
        raise RuleSetError("a rule set needs a name and a version: write both")
    known = set(features)
    if len(known) != len(features):
        twice = next(one for one, count in Counter(features).items() if count > 1)
        raise RuleSetError(f"feature {twice!r} is listed twice: rename one of them")
    return known


def table_digest(rows: NDArray[np.float32], names: Sequence[str]) -> str:
    """Return the SHA-256 of a table: names, shape and little-endian float32 values [n, F]."""
    digest = hashlib.sha256(json.dumps([list(names), list(rows.shape)]).encode())
    digest.update(np.ascontiguousarray(rows, dtype="<f4").tobytes())
    return digest.hexdigest()
