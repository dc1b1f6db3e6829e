"""Says a feature and its value in plain words, from the generic field names of entity state.

The fields are those of ``tasks.fraud.derive``; a column of the user's is said by its own name. Who
an entity is comes from the dataset config's column name alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tasks.explain.groups import FeatureMeaning, window_adjective, window_words

NEVER_SECONDS = 1e8
"""Durations beyond this stand for "has not happened"."""


@dataclass(frozen=True, slots=True)
class Wording:
    """How numbers are said.

    Attributes:
        decimals: Decimal places of the currency; money features are in major units.
        categories: Names of integer-coded categories by feature name.
    """

    decimals: int = 2
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def money(self, value: float) -> str:
        """Say an amount.

        >>> Wording().money(1234.5)
        '1,234.50'
        """
        return f"{value:,.{self.decimals}f}"


@dataclass(frozen=True, slots=True)
class _Words:
    """What a phrase may use: who, over which window, compared with which."""

    who: str
    window: str
    reference: str
    value: float
    wording: Wording

    @property
    def adjective(self) -> str:
        return window_adjective(self.window) + " " if self.window else ""

    @property
    def over(self) -> str:
        return f" in {window_words(self.window)}" if self.window else ""

    @property
    def history(self) -> str:
        return f" in the {window_words(self.window)} known so far" if self.window else ""

    @property
    def times(self) -> str:
        return f"{self.value:.1f}" if abs(self.value) < 100 else f"{self.value:,.0f}"


Phrase = Callable[[_Words], str]


def describe(meaning: FeatureMeaning, value: float, wording: Wording | None = None) -> str:
    """Say one feature of one row.

    >>> from tasks.explain.groups import read_feature
    >>> describe(read_feature("payer.ratio_30d", ["payer"]), 4.2)
    "amount is 4.2 x the payer's 30-day mean"
    """
    style = wording or Wording()
    who = meaning.entity.replace("_", " ")
    if math.isnan(value):
        return f"{plain_name(meaning)} is missing"
    if meaning.theme == "embedding":
        return "recent partners and place in the transaction graph look unusual"
    names = style.categories.get(meaning.name)
    if names is not None:
        known = 0 <= value < len(names)
        return f"{plain_name(meaning)} is {names[int(value)] if known else 'missing or new'}"
    encoded = _encoded(meaning, value)
    if encoded:
        return encoded
    table = _OF_ENTITY if meaning.entity else _OF_EVENT
    phrase = table.get(meaning.field)
    if phrase is None:
        return f"{plain_name(meaning)} is {number(value)}"
    return phrase(_Words(who, meaning.window, meaning.reference, value, style))


_STORY = {"ratio": "amount", "z": "amount", "of_max": "amount", "rate": "pace", "n": "pace"}
_STORY |= {"mean": "level", "before": "level", "level": "level", "peak": "level"}
_STORY |= {"run_age": "run", "run_days": "run", "run_length": "run"}


def story(meaning: FeatureMeaning) -> tuple[str, str]:
    """Return what a feature tells about, whatever the window: features of one story repeat."""
    return meaning.entity, _STORY.get(meaning.field, meaning.field)


def _encoded(meaning: FeatureMeaning, value: float) -> str:
    """Say an indicator: one value of a category, or whether a value is missing."""
    column = meaning.column.replace("_", " ")
    _, is_value, name = meaning.field.partition("=")
    if is_value:
        return f"{column} is {'' if value > 0 else 'not '}{name}"
    if meaning.field.endswith("_missing") and meaning.column != meaning.field:
        return f"{column} is {'missing' if value > 0 else 'present'}"
    return ""


def plain_name(meaning: FeatureMeaning) -> str:
    """Say a feature's name in words, for example ``"the payer's gap"``."""
    name = meaning.field.replace("_", " ").strip()
    over = f" over {window_words(meaning.window)}" if meaning.window else ""
    who = meaning.entity.replace("_", " ")
    return f"the {who}'s {name}{over}" if who else f"{name}{over}"


def number(value: float) -> str:
    """Say a number with as many digits as help.

    >>> number(3.0), number(0.123), number(1234.5)
    ('3', '0.12', '1,234')
    """
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.2f}"


def duration(seconds: float) -> str:
    """Say a duration in its largest fitting unit.

    >>> duration(5400), duration(86400), duration(1)
    ('1.5 hours', '1 day', '1 second')
    """
    for size, word in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size or size == 1:
            return count(round(seconds / size, 1 if size > 1 else 0), word)
    raise AssertionError  # pragma: no cover - the last unit always fits


def count(value: float, noun: str) -> str:
    """Say how many.

    >>> count(1, "fraud"), count(2.5, "day")
    ('1 fraud', '2.5 days')
    """
    text = f"{value:,.1f}".removesuffix(".0")
    return f"{text} {noun}{'' if text == '1' else 's'}"


def _mean_ratio(w: _Words) -> str:
    return f"amount is {w.times} x the {w.who}'s {w.adjective}mean"


def _z(w: _Words) -> str:
    side = "above" if w.value >= 0 else "below"
    mean = f"the {w.who}'s {w.adjective}mean"
    return f"amount is {abs(w.value):.1f} standard deviations {side} {mean}"


def _of_max(w: _Words) -> str:
    if w.value >= 1:
        return f"largest amount of the {w.who}{w.over}"
    return f"amount is {w.value * 100:.0f} % of the {w.who}'s largest{w.over}"


def _rate(w: _Words) -> str:
    usual = window_adjective(w.reference) + " " if w.reference else ""
    return f"the {w.who}'s activity{w.over} is {w.times} x its {usual}average"


def _level(w: _Words) -> str:
    usual = window_adjective(w.reference) + " " if w.reference else ""
    return f"the {w.who}'s mean amount{w.over} is {w.times} x its {usual}mean"


def _peak(w: _Words) -> str:
    usual = window_adjective(w.reference) + " " if w.reference else ""
    return f"the {w.who}'s largest amount{w.over} is {w.times} x its {usual}mean"


def _gap(w: _Words) -> str:
    if not 0 <= w.value < NEVER_SECONDS:
        return f"first transaction of the {w.who} on record"
    return (
        f"only {duration(w.value)} since the {w.who}'s previous transaction"
        if (w.value < 3_600)
        else f"{duration(w.value)} since the {w.who}'s previous transaction"
    )


def _risk(w: _Words) -> str:
    return f"{w.value * 100:.0f} % of the {w.who}'s transactions{w.history} were frauds"


def _frauds(w: _Words) -> str:
    return f"the {w.who} had {count(w.value, 'fraud')}{w.history}"


def _known(w: _Words) -> str:
    return f"{count(w.value, 'transaction')} of the {w.who}{w.over} with known outcome"


def _last_label(w: _Words) -> str:
    if w.value < 0:
        return f"no outcome of the {w.who} is known yet"
    verdict = "a fraud" if w.value >= 0.5 else "genuine"
    return f"the {w.who}'s last known transaction was {verdict}"


def _since_fraud(w: _Words) -> str:
    if not 0 <= w.value < NEVER_SECONDS:
        return f"no fraud of the {w.who} is known"
    return f"the {w.who}'s last known fraud was {duration(w.value)} ago"


def _run_age(w: _Words) -> str:
    if not 0 <= w.value < NEVER_SECONDS:
        return f"the {w.who}'s last known transaction was no fraud"
    return f"the {w.who}'s current run of known frauds began {duration(w.value)} ago"


def _run_days(w: _Words) -> str:
    return _run_age(_Words(w.who, w.window, w.reference, w.value * 86_400, w.wording))


def _run_length(w: _Words) -> str:
    if w.value < 1:
        return f"the {w.who}'s last known transaction was no fraud"
    if w.value < 2:
        return f"the {w.who}'s last known transaction was a fraud"
    return f"the {w.who}'s last {count(w.value, 'known transaction')} were all frauds"


def _money(noun: str) -> Phrase:
    return lambda w: f"the {w.who}'s {w.adjective}{noun} is {w.wording.money(w.value)}"


def _spread(w: _Words) -> str:
    return f"amounts of the {w.who}{w.over} vary by {w.wording.money(w.value)} as a rule"


def _flag(yes: str, no: str) -> Phrase:
    return lambda w: yes if w.value > 0 else no


_OF_ENTITY: dict[str, Phrase] = {
    "n": lambda w: f"{count(w.value, 'transaction')} of the {w.who}{w.over}",
    "mean": _money("mean amount"),
    "before": _money("mean amount before this one"),
    "spread": _spread,
    "ratio": _mean_ratio,
    "z": _z,
    "of_max": _of_max,
    "rate": _rate,
    "level": _level,
    "peak": _peak,
    "gap": _gap,
    "risk": _risk,
    "frauds": _frauds,
    "known": _known,
    "last_label": _last_label,
    "since_fraud": _since_fraud,
    "run_age": _run_age,
    "run_days": _run_days,
    "run_length": _run_length,
}

_OF_EVENT: dict[str, Phrase] = {
    "amount": lambda w: f"amount of {w.wording.money(w.value)}",
    "hour": lambda w: f"made in the hour from {int(w.value):02d}:00",
    "night": _flag("made at night", "made by day"),
    "weekend": _flag("made at the weekend", "made on a working day"),
}
