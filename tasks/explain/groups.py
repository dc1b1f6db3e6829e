"""Reads what a feature is about from its name, and groups features that tell one story.

A feature name is built from the dataset config's own words: the entity column, a field of that
entity's state and, where the field has them, a window and the longer window it is compared with
(``amount``, ``payer.frauds_7d``, ``payer.rate_1d_30d``). Any attribution divides credit between
correlated features as chance has it, so reasons are given per group: everything known about one
entity over one window, and everything its delayed labels tell, whatever the window. A group's
value is the sum of the values of its members: sums stay additive.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Theme = Literal["activity", "labels", "mail", "embedding", "transaction"]

_WINDOW = re.compile(r"\d+(?:s|min|m|h|d|w)")
_SEPARATORS = "._:/|"
_LABEL_FIELDS = re.compile(r"known|fraud|label|run_|run$|risk|since_f")
_MAIL_FIELDS = re.compile(r"^(mail|message|attention)")
_EMBEDDING_FIELDS = re.compile(r"^(emb|embedding|sage|graph|gnn)")
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
        story = {"labels": "known frauds", "mail": "recent partners", "embedding": "graph network"}
        return f"{who}, {story[self.theme]}" if who else story[self.theme]


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
        The meaning; a name that follows no rule is a field of the transaction itself.

    >>> read_feature("payer.frauds_7d", ["payer"]).group
    'payer/labels'
    """
    entity, rest = _split_entity(name, entities)
    parts = [rest] if "=" in rest else rest.split("_")
    windows: list[str] = []
    while len(parts) > 1 and len(windows) < 2 and _WINDOW.fullmatch(parts[-1]):
        windows.insert(0, parts.pop())
    field = "_".join(parts)
    window, reference = (*windows, "", "")[:2]
    return FeatureMeaning(name, entity, field, window, reference, _theme(entity, field))


def _split_entity(name: str, entities: Sequence[str]) -> tuple[str, str]:
    for entity in sorted(entities, key=len, reverse=True):
        rest = name[len(entity) :]
        if name.startswith(entity) and rest and rest[0] in _SEPARATORS:
            return entity, rest.lstrip(_SEPARATORS)
    return "", name


def _theme(entity: str, field: str) -> Theme:
    if "=" in field or field.endswith("_missing"):
        return "transaction"
    if _MAIL_FIELDS.search(field):
        return "mail"
    if _EMBEDDING_FIELDS.search(field):
        return "embedding"
    if not entity:
        return "transaction"
    return "labels" if _LABEL_FIELDS.search(field) else "activity"


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
        return np.stack([values[..., list(m)].sum(axis=-1) for m in self.members], axis=-1)
