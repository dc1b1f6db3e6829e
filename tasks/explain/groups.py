"""Reads what a feature is about from its name, and groups features that tell one story.

A feature name is built from the dataset config's own words: the entity column, a field of that
entity's state and, where the field has them, a window and the longer window it is compared with
(``amount``, ``payer.frauds_7d``, ``payer.rate_1d_30d``). Whatever else a name resembles, it is a
column of the user's and known by its own name. Any attribution divides credit between
correlated features as chance has it, so reasons are given per group: everything known about one
entity over one window, and everything its delayed labels tell, whatever the window. A group's
value is the sum of the values of its members: sums stay additive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Theme = Literal["activity", "labels", "embedding", "transaction"]

_WINDOW = re.compile(r"\d+(?:s|min|m|h|d|w)")
_FIELDS: Mapping[str, tuple[Theme, int]] = {
    **dict.fromkeys(("n", "mean", "ratio", "of_max", "z", "before", "spread"), ("activity", 1)),
    **dict.fromkeys(("rate", "level", "peak"), ("activity", 2)),
    "gap": ("activity", 0),
    **dict.fromkeys(("known", "risk", "frauds"), ("labels", 1)),
    **dict.fromkeys(("last_label", "since_fraud", "run_age", "run_days", "run_length"),
                    ("labels", 0)),
}  # fmt: skip
"""Field of an entity's features (``tasks.fraud.derive``) -> kind of evidence, number of windows."""

_SIGNALS = frozenset({"graph.logit", "graph.above_knee"})
"""What the graph network tells the trees (``tasks.fraud.graph``)."""

_UNITS = {"s": "second", "m": "minute", "min": "minute", "h": "hour", "d": "day", "w": "week"}


@dataclass(frozen=True, slots=True)
class FeatureMeaning:
    """What a feature name says.

    Attributes:
        name: The feature's name as the model knows it.
        entity: Entity column the feature describes; empty for the transaction itself.
        field: Name without entity and window, for example ``"frauds"``.
        window: Window name such as ``"7d"``; empty where the field has none.
        reference: Longer window the first is compared with; mostly empty.
        theme: Kind of evidence.
    """

    name: str
    entity: str
    field: str
    window: str
    reference: str
    theme: Theme

    @property
    def column(self) -> str:
        """Field without what an encoding added: ``channel`` of ``channel=web``."""
        return self.field.partition("=")[0].removesuffix("_missing") or self.field

    @property
    def group(self) -> str:
        """Key of the group this feature belongs to; stable, for logs and drift charts."""
        if self.theme == "transaction":
            return f"transaction/{self.column}"
        if self.theme == "activity":
            return f"{self.entity}/activity/{self.window or 'last'}"
        return f"{self.entity or 'all'}/{self.theme}"

    @property
    def label(self) -> str:
        """Group in words for charts, for example ``"payer, 30 days"``."""
        who = self.entity.replace("_", " ")
        if self.theme == "transaction":
            return self.column.replace("_", " ")
        if self.theme == "activity":
            return f"{who}, {window_words(self.window)}" if self.window else f"{who}, recency"
        return f"{who}, known frauds" if self.theme == "labels" else "graph network"


@cache
def window_words(window: str) -> str:
    """Say a window name in words.

    >>> window_words("30d"), window_words("1h"), window_words("")
    ('30 days', '1 hour', '')
    """
    match = re.fullmatch(r"(\d+)(s|min|m|h|d|w)", window)
    if match is None:
        return window
    count, unit = int(match[1]), _UNITS[match[2]]
    return f"{count} {unit}{'' if count == 1 else 's'}"


@cache
def window_adjective(window: str) -> str:
    """Say a window name as an adjective.

    >>> window_adjective("30d")
    '30-day'
    """
    match = re.fullmatch(r"(\d+)(s|min|m|h|d|w)", window)
    return f"{match[1]}-{_UNITS[match[2]]}" if match else window


def read_feature(name: str, entities: Sequence[str]) -> FeatureMeaning:
    """Read one feature name.

    Args:
        name: Feature name, entity column first where there is one.
        entities: Entity columns of the dataset config.

    Returns:
        The meaning; a name that our features do not produce is a field of the transaction itself.

    >>> read_feature("payer.frauds_7d", ["payer"]).group
    'payer/labels'
    """
    if name in _SIGNALS:
        return FeatureMeaning(name, "", name, "", "", "embedding")
    for entity in sorted(entities, key=len, reverse=True):
        meaning = _read_state(name, entity) if name.startswith(f"{entity}.") else None
        if meaning is not None:
            return meaning
    return FeatureMeaning(name, "", name, "", "", "transaction")


def _read_state(name: str, entity: str) -> FeatureMeaning | None:
    """Read a feature of an entity's state; None where the name holds none of its fields."""
    parts = name[len(entity) + 1 :].split("_")
    windows: list[str] = []
    while parts and _WINDOW.fullmatch(parts[-1]):
        windows.insert(0, parts.pop())
    field = "_".join(parts)
    theme, count = _FIELDS.get(field, ("transaction", -1))
    if len(windows) != count:
        return None
    window, reference = (*windows, "", "")[:2]
    return FeatureMeaning(name, entity, field, window, reference, theme)


def sum_members(
    values: NDArray[np.float64], members: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Sum the columns of values ``[..., C]`` that belong to each of G groups: ``[..., G]``."""
    if not members:
        return np.zeros((*values.shape[:-1], 0))
    return np.stack([values[..., list(m)].sum(axis=-1) for m in members], axis=-1)


@dataclass(frozen=True, slots=True)
class FeatureGroups:
    """All features of a model, sorted into groups.

    Attributes:
        meanings: One per feature, in the model's order.
        keys: Group keys in order of first appearance.
        labels: Group labels in words, same order.
        members: Feature positions of each group, same order.
    """

    meanings: tuple[FeatureMeaning, ...]
    keys: tuple[str, ...]
    labels: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, names: Sequence[str], entities: Sequence[str]) -> FeatureGroups:
        """Group the features named ``names`` by entity column, window and kind of evidence."""
        meanings = tuple(read_feature(name, entities) for name in names)
        members: dict[str, list[int]] = {}
        labels: dict[str, str] = {}
        for position, meaning in enumerate(meanings):
            members.setdefault(meaning.group, []).append(position)
            labels.setdefault(meaning.group, meaning.label)
        return cls(
            meanings=meanings,
            keys=tuple(members),
            labels=tuple(labels.values()),
            members=tuple(tuple(m) for m in members.values()),
        )

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum contributions ``[..., F]`` into groups ``[..., G]``.

        Raises:
            ValueError: When the last axis is not one value per feature.
        """
        if values.shape[-1] != len(self.meanings):
            raise ValueError(
                f"contributions have {values.shape[-1]} columns, the model has "
                f"{len(self.meanings)} features; pass the values of the same feature list"
            )
        return sum_members(values, self.members)

    def mean_and_error(
        self, per_model: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return each group's mean over k models, and its standard error, 0 of one: ``[n, G]``.

        Args:
            per_model: Contributions ``[k, n, F]``.

        Raises:
            ValueError: As ``sums``.
        """
        by_model = self.sums(per_model)
        mean, k = by_model.mean(axis=0), len(by_model)
        return mean, by_model.std(axis=0, ddof=1) / np.sqrt(k) if k > 1 else np.zeros_like(mean)
