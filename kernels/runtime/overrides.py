"""Single settings changed by their dotted names, from text or from values.

A command line or a schedule changes a few settings of a config that a program wrote: this reads
the types off the config's own dataclasses, so that it needs no flag per setting.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")

WORDS = {"true": True, "false": False}


def parse_changes(kind: type, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes with every value checked against its setting, text turned into it.

    Args:
        kind: Dataclass of the whole config.
        changes: Values by dotted name, e.g. ``{"optimizer.learning_rate": "1e-3"}``.

    Raises:
        ValueError: For a setting that is not there, and a value of another type; names both.

    Example:
        >>> from kernels.runtime.config import RunConfig
        >>> parse_changes(RunConfig, {"clipping.exclude": "head.,norm.", "ema.decay": "0.9"})
        {'clipping.exclude': ('head.', 'norm.'), 'ema.decay': 0.9}
    """
    known = settings_of(kind)
    found = {}
    for name, value in changes.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            near = f"; near it: {', '.join(close)}" if close else ""
            raise ValueError(f"there is no setting {name!r} in {kind.__name__}{near}")
        try:
            found[name] = _value(known[name], value)
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be {_words(known[name])}, got {value!r}") from None
    return found


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a config with some settings changed; its dataclasses judge the whole.

    Args:
        config: A dataclass of values and further dataclasses.
        changes: Values by dotted name, as `parse_changes` takes them.

    Raises:
        ValueError: As `parse_changes` raises it, and where settings do not go together.
    """
    parsed = parse_changes(type(config), changes)
    own = {name: value for name, value in parsed.items() if "." not in name}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in parsed.items():
        if "." in name:
            head, rest = name.split(".", 1)
            nested.setdefault(head, {})[rest] = value
    parts = {head: with_changes(getattr(config, head), inner) for head, inner in nested.items()}
    return replace(config, **own, **parts)  # type: ignore[type-var]  # a dataclass, see above


def settings_of(kind: type) -> dict[str, Any]:
    """Return the type of every setting by its dotted name."""
    found: dict[str, Any] = {}
    hints = get_type_hints(kind)
    for each in fields(kind):
        hint = hints[each.name]
        if is_dataclass(hint) and isinstance(hint, type):
            inner = settings_of(hint)
            found |= {f"{each.name}.{name}": type_ for name, type_ in inner.items()}
        else:
            found[each.name] = hint
    return found


def _value(kind: Any, value: Any) -> Any:
    """Return a value as ``kind``.

    Raises:
        ValueError, TypeError: Where it is none.
    """
    origin, choices = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _first([partial(_same, choice) for choice in choices], value)
    if origin in {Union, UnionType}:
        # "none" is also a text and a path.
        ordered = sorted(choices, key=lambda choice: choice is not NoneType)
        return _first([partial(_value, choice) for choice in ordered], value)
    if origin is tuple:
        return _items(choices, value)
    if origin is Mapping:
        return _pairs(choices, value)
    return READERS.get(kind, lambda v: _same_kind(kind, v))(value)


def _first(readers: list[Callable[[Any], Any]], value: Any) -> Any:
    for read in readers:
        try:
            return read(value)
        except (TypeError, ValueError):
            continue
    raise ValueError


def _same(wanted: Any, value: Any) -> Any:
    if value != wanted and value != str(wanted):
        raise ValueError
    return wanted


def _same_kind(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _number(kind: type, value: Any) -> Any:
    if isinstance(value, bool) or (kind is int and isinstance(value, float)):
        raise TypeError
    return kind(value)


def _name(kind: type, value: Any) -> Any:
    return kind(_same_kind((str, Path), value))


def _items(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    given = [v for v in value.split(",") if v] if isinstance(value, str) else list(value)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_value(kinds[0], v) for v in given)
    if len(given) != len(kinds):
        raise ValueError
    return tuple(_value(kind, v) for kind, v in zip(kinds, given, strict=True))


def _pairs(kinds: tuple[Any, ...], value: Any) -> dict[Any, Any]:
    given = (
        [v.partition("=")[::2] for v in value.split(",") if v]
        if isinstance(value, str)
        else (dict(value).items())
    )
    return {_value(kinds[0], k): _value(kinds[1], v) for k, v in given}


READERS: dict[Any, Callable[[Any], Any]] = {
    NoneType: lambda value: _same(None, None if value == "none" else value),
    bool: lambda value: _same_kind(bool, WORDS.get(str(value), value)),
    int: partial(_number, int),
    float: partial(_number, float),
    str: partial(_name, str),
    Path: partial(_name, Path),
}


def _words(kind: Any) -> str:
    """Return a type in words, for a message."""
    origin, choices = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(str(c) for c in choices)}"
    if origin in {Union, UnionType}:
        return " or ".join(_words(choice) for choice in choices)
    if origin is tuple:
        many = len(choices) == 2 and choices[1] is Ellipsis
        return f"{_words(choices[0])}s between commas" if many else f"{len(choices)} numbers"
    if origin is Mapping:
        return f"name={_words(choices[1])} between commas"
    names = {NoneType: "none", bool: "true or false", int: "a whole number", float: "a number"}
    return names.get(kind, {str: "text", Path: "a path"}.get(kind, f"a {kind}"))
