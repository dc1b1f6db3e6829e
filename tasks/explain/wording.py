"""Says a feature and its value in the words of a catalogue.

The fields are those of ``tasks.fraud.derive``; a column of the user's is said by its own name. Who
an entity is comes from the dataset config's column name, or the catalogue's name for it. This
module forms numbers and chooses phrases; the phrases stand in ``catalogue/house.toml``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tasks.explain.catalogue.files import house_catalogue
from tasks.explain.catalogue.model import Catalogue, Text
from tasks.explain.catalogue.phrases import DAY_SECONDS, OF_ENTITY, OF_EVENT
from tasks.explain.catalogue.template import Filled, fill, prepare, say
from tasks.explain.groups import FeatureMeaning
from tasks.explain.languages import (
    Language,
    count,
    decimal,
    duration,
    fixed,
    number,
    percent,
    window_adjective,
    window_words,
)

__all__ = ["FeatureWords", "Wording", "count", "describe", "duration", "number", "story"]


@dataclass(frozen=True, slots=True)
class Wording:
    """How numbers are said, and in which language.

    Attributes:
        decimals: Decimal places of the currency; money features are in major units.
        categories: Names of integer-coded categories by feature name.
        language: Language of the words.
        house: Whether a column named like a field of the house (``hour``) is that field; in a
            model of one's own it is a column like any other.
    """

    decimals: int = 2
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    language: Language = "en"
    house: bool = True

    def money(self, value: float) -> str:
        """Say an amount.

        >>> Wording().money(1234.5)
        '1,234.50'
        """
        return fixed(value, self.decimals)


class FeatureWords:
    """Says one feature of any row; whatever does not depend on the value is said once, here."""

    def __init__(
        self,
        meaning: FeatureMeaning,
        wording: Wording | None = None,
        catalogue: Catalogue | None = None,
        analyst: Text | None = None,
    ) -> None:
        """Prepare the phrases of a feature.

        Args:
            meaning: The feature.
            wording: How numbers are said.
            catalogue: Where the phrases come from; None: the house's.
            analyst: Words of its catalogue entry, in the place of the field's phrase.
        """
        style, words = wording or Wording(), catalogue or house_catalogue()
        phrases = _Phrases(meaning, style, words)
        self._missing: Filled = phrases.get("value.missing")
        self._cases: dict[str, Filled]
        own = analyst.of(style.language) if analyst is not None else ""
        self._pick, self._cases, self._scale = _choose(meaning, style, phrases, own)

    def __call__(self, value: float) -> str:
        """Say the feature of a row that has this value; one that is no number is missing."""
        if not math.isfinite(value):
            return say(self._missing, value)
        value *= self._scale
        return say(self._cases[self._pick(value)], value)


def describe(
    meaning: FeatureMeaning,
    value: float,
    wording: Wording | None = None,
    catalogue: Catalogue | None = None,
) -> str:
    """Say one feature of one row.

    >>> from tasks.explain.groups import read_feature
    >>> describe(read_feature("payer.ratio_30d", ["payer"]), 4.2)
    "amount is 4.2 x the payer's 30-day mean"
    >>> describe(read_feature("payer.ratio_30d", ["payer"]), 4.2, Wording(language="zh"))
    '本笔金额是付款方近30天平均金额的4.2倍'
    """
    return FeatureWords(meaning, wording, catalogue)(value)


_STORY = {"ratio": "amount", "z": "amount", "of_max": "amount", "rate": "pace", "n": "pace"}
_STORY |= {"mean": "level", "before": "level", "level": "level", "peak": "level"}
_STORY |= {"run_age": "run", "run_days": "run", "run_length": "run"}


def story(meaning: FeatureMeaning) -> tuple[str, str]:
    """Return what a feature tells about, whatever the window: features of one story repeat."""
    return meaning.entity, _STORY.get(meaning.field, meaning.field)


class _Phrases:
    """The phrases of one feature in one language, its fixed fields said."""

    def __init__(self, meaning: FeatureMeaning, style: Wording, catalogue: Catalogue) -> None:
        language = style.language
        known = {*OF_ENTITY, "run_days"} if meaning.entity else {*OF_EVENT}
        own = (style.house and meaning.field in known) or meaning.theme == "embedding"
        name = catalogue.field_name if own else catalogue.column_name
        self._phrases, self._language = catalogue.phrases, language
        self._fixed = {
            "who": catalogue.column_name(meaning.entity, language),
            "window": window_words(meaning.window, language),
            "window_adjective": window_adjective(meaning.window, language),
            "reference": window_words(meaning.reference, language),
            "reference_adjective": window_adjective(meaning.reference, language),
            "field": name(meaning.field, language),
            "column": catalogue.column_name(meaning.column, language),
        }
        kind = "event" if not meaning.entity else "window" if meaning.window else "entity"
        self._fixed["name"] = fill(self._text(f"name.{kind}"), self._fixed)
        self._numbers = _numbers(style)

    def get(self, key: str, own: str = "", **fixed: str) -> Filled:
        """Return a phrase of the catalogue, or ``own``; fields given here are fixed as well."""
        numbers = {k: v for k, v in self._numbers.items() if k not in fixed}
        return prepare(own or self._text(key), self._fixed | fixed, numbers)

    def _text(self, key: str) -> str:
        return self._phrases[key].of(self._language)


def _numbers(style: Wording) -> dict[str, Callable[[float], str]]:
    """Return every form in which a value can be said."""
    language: Language = style.language
    return {
        "value": number,
        "times": lambda v: fixed(v, 1 if abs(v) < 100 else 0),
        "percent": percent,
        "money": style.money,
        "duration": lambda v: duration(v, language),
        "count": decimal,
        "hour": lambda v: f"{int(v):02d}:00",
        "sigmas": lambda v: fixed(abs(v), 1),
    }


def _only(_: float) -> str:
    return "other"


Chosen = tuple[Callable[[float], str], dict[str, Filled], float]


def _choose(meaning: FeatureMeaning, style: Wording, phrases: _Phrases, own: str) -> Chosen:
    """Return which case a value takes, the phrase of each case, and a factor for the value.

    A text of the entry's ``own`` stands for all cases that have a value to tell.
    """
    if meaning.theme == "embedding":
        return _only, {"other": phrases.get("embedding.other", own)}, 1.0
    names = style.categories.get(meaning.name)
    if names is not None:
        said = {
            str(n): phrases.get("category.other", own, value=name) for n, name in enumerate(names)
        }
        said["unknown"] = phrases.get("category.unknown")
        return lambda v: str(int(v)) if 0 <= v < len(names) else "unknown", said, 1.0
    _, is_value, name = meaning.field.partition("=")
    encoded = style.house and meaning.field.endswith("_missing") and meaning.column != meaning.field
    if is_value or encoded:
        return _indicator(phrases, own, name, is_value=bool(is_value))
    field_name, scale = meaning.field, 1.0
    if meaning.entity and field_name == "run_days":
        field_name, scale = "run_age", DAY_SECONDS
    if own:
        return _only, {"other": phrases.get("value.other", own)}, 1.0
    cases = (OF_ENTITY if meaning.entity else OF_EVENT).get(field_name)
    if cases is None or not style.house:
        return _only, {"other": phrases.get("value.other")}, 1.0
    return cases.pick, {c: phrases.get(f"{field_name}.{c}") for c in cases.names}, scale


def _indicator(phrases: _Phrases, own: str, name: str, *, is_value: bool) -> Chosen:
    """Return the cases of a column of 0 and 1; another number is said as it is."""
    yes, no = ("is", "not") if is_value else ("missing", "present")
    said = {case: phrases.get(f"indicator.{case}", value=name) for case in (yes, no)}
    if is_value:
        said[yes] = phrases.get("indicator.is", own, value=name)
    said["other"] = phrases.get("value.other", own)
    return lambda v: {1.0: yes, 0.0: no}.get(v, "other"), said, 1.0
