"""Which case of a phrase a value takes; the words of each case are the catalogue's.

Fields are those of ``tasks.fraud.derive``. A case ``one`` stands beside ``other`` where a language
counts in the singular.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tasks.explain.languages import decimal

NEVER_SECONDS = 1e8
"""Durations beyond this stand for "has not happened"."""

SHORT_SECONDS = 3_600.0
"""A gap below this is said to be short."""

DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Cases:
    """The cases of one phrase.

    Attributes:
        names: Names of the cases.
        pick: Value of a row -> name of its case.
    """

    names: tuple[str, ...]
    pick: Callable[[float], str]


def _gap(value: float) -> str:
    if not 0 <= value < NEVER_SECONDS:
        return "never"
    return "short" if value < SHORT_SECONDS else "other"


def _label(value: float) -> str:
    if value < 0:
        return "unknown"
    return "fraud" if value >= 0.5 else "genuine"


def _run(value: float) -> str:
    if value < 1:
        return "none"
    return "one" if value < 2 else "other"


_ONLY = Cases(("other",), lambda _: "other")
_COUNT = Cases(("one", "other"), lambda v: "one" if decimal(v) == "1" else "other")
_SINCE = Cases(("never", "other"), lambda v: "other" if 0 <= v < NEVER_SECONDS else "never")
_FLAG = Cases(("yes", "no"), lambda v: "yes" if v > 0 else "no")

OF_ENTITY: Mapping[str, Cases] = {
    "n": _COUNT,
    "mean": _ONLY,
    "before": _ONLY,
    "spread": _ONLY,
    "ratio": _ONLY,
    "z": Cases(("above", "below"), lambda v: "above" if v >= 0 else "below"),
    "of_max": Cases(("largest", "other"), lambda v: "largest" if v >= 1 else "other"),
    "rate": _ONLY,
    "level": _ONLY,
    "peak": _ONLY,
    "gap": Cases(("never", "short", "other"), _gap),
    "risk": _ONLY,
    "frauds": _COUNT,
    "known": _COUNT,
    "last_label": Cases(("unknown", "fraud", "genuine"), _label),
    "since_fraud": _SINCE,
    "run_age": _SINCE,
    "run_length": Cases(("none", "one", "other"), _run),
}
OF_EVENT: Mapping[str, Cases] = {"amount": _ONLY, "hour": _ONLY, "night": _FLAG, "weekend": _FLAG}

GENERAL: Mapping[str, tuple[str, ...]] = {
    "name": ("event", "entity", "window"),
    "value": ("other", "missing"),
    "category": ("other", "unknown"),
    "indicator": ("is", "not", "missing", "present"),
    "embedding": ("other",),
}
"""Phrases of columns that are no fields of the house, and how a feature is named."""


def phrase_keys() -> tuple[str, ...]:
    """Return every phrase a catalogue holds, as ``field.case``."""
    known = dict(GENERAL)
    for fields in (OF_EVENT, OF_ENTITY):
        known |= {field: cases.names for field, cases in fields.items()}
    return tuple(f"{name}.{case}" for name, cases in known.items() for case in cases)
