"""Reads nested frozen dataclasses back from JSON data, checking every type by its annotation."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

_T = TypeVar("_T")


class ReportError(ValueError):
    """Report data that cannot be shown; the message names the field."""


def build(cls: type[_T], data: Any, where: str) -> _T:
    """Build a dataclass of annotated fields from JSON data.

    Args:
        cls: Dataclass whose fields are scalars, optionals, ``tuple[X, ...]``, mappings from text,
            literals or further dataclasses.
        data: Parsed JSON.
        where: Path of ``data`` in the whole, for messages.

    Raises:
        ReportError: On unknown or missing fields or values of another type.
    """
    if not isinstance(data, Mapping):
        raise ReportError(f"{where}: expected an object, got {type(data).__name__}")
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]  # only our dataclasses
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ReportError(f"{where}: unknown field {unknown[0]!r}")
    missing = [
        n
        for n, f in known.items()
        if n not in data and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise ReportError(f"{where}: field {missing[0]!r} is missing")
    return cls(**{name: _value(hints[name], v, f"{where}.{name}") for name, v in data.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        inner = next(a for a in get_args(hint) if a is not type(None))
        return _value(inner, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ReportError(f"{where}: expected a list, got {type(value).__name__}")
        item = get_args(hint)[0]
        return tuple(_value(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ReportError(f"{where}: expected an object, got {type(value).__name__}")
        item = get_args(hint)[1]
        return {str(k): _value(item, v, f"{where}.{k}") for k, v in value.items()}
    if is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, where)
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ReportError(f"{where}: expected a number, got {type(value).__name__}")
        if not math.isfinite(value):
            raise ReportError(f"{where}: {value} is no finite number; use null where none exists")
        return float(value)
    if hint in (int, bool, str) and type(value) is not hint:
        raise ReportError(f"{where}: expected {hint.__name__}, got {type(value).__name__}")
    return value
