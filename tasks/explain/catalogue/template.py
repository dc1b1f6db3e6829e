"""Texts with fields in braces: plain names only, each checked when the text is read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from string import Formatter

from tasks.explain.errors import CatalogueError

Filled = tuple[str | Callable[[float], str], ...]
"""A text whose fixed fields are said; what depends on the row's value is left as functions."""

FIXED = frozenset({"who", "window", "window_adjective", "reference", "reference_adjective",
                   "field", "column", "name"})  # fmt: skip
"""Fields that a feature's name decides."""
NUMBERS = frozenset({"value", "times", "percent", "money", "duration", "count", "hour", "sigmas"})
"""Fields that tell the row's value, each in one form."""


def split(text: str, allowed: Collection[str], where: str) -> tuple[tuple[str, str], ...]:
    """Return a text as pairs of literal and field; the last field may be empty.

    Raises:
        CatalogueError: On an empty text, a brace that stands alone or a field not in ``allowed``.

    >>> split("{n} of {who}", {"n", "who"}, "x")
    (('', 'n'), (' of ', 'who'))
    """
    if not text.strip():
        raise CatalogueError(f"{where} is empty; write the text")
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise CatalogueError(f"{where}: {error}; write a brace of the text twice: {{{{") from None
    for _, field, form, conversion in parts:
        if field is None:
            continue
        if field not in allowed or form or conversion:
            wrong = field + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            known = ", ".join(sorted(allowed)) or "none"
            raise CatalogueError(f"{where}: no field {{{wrong}}} here; fields: {known}")
    return tuple((literal, field or "") for literal, field, _, _ in parts)


def fields(text: str) -> frozenset[str]:
    """Return the names of the fields of a text that ``split`` has accepted."""
    return frozenset(field for _, field, _, _ in Formatter().parse(text) if field)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return a text with all its fields said; a brace within a value stays what it is.

    >>> fill("the {who}", {"who": "{payer}"})
    'the {payer}'
    """
    parts = Formatter().parse(text)
    return "".join(
        part for lit, name, _, _ in parts for part in (lit, values[name] if name else "")
    )


def prepare(
    text: str, values: Mapping[str, str], numbers: Mapping[str, Callable[[float], str]]
) -> Filled:
    """Return a text with its fixed fields said once, ready for ``say``."""
    done: list[str | Callable[[float], str]] = [""]
    for literal, name, _, _ in Formatter().parse(text):
        fixed = literal + (values.get(name, "") if name else "")
        if isinstance(done[-1], str):
            done[-1] += fixed
        elif fixed:
            done.append(fixed)
        if name and name in numbers:
            done.append(numbers[name])
    return tuple(part for part in done if part != "")


def say(filled: Filled, value: float) -> str:
    """Return the text of one value."""
    return "".join([part if isinstance(part, str) else part(value) for part in filled])
