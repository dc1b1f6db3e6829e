"""Contracts as TOML, readable and editable by the person who knows the data."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import date
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tasks.cleaning.contract.model import (
    ColumnContract,
    Contract,
    ContractError,
    Denial,
    Dependency,
    Label,
    Reference,
)
from tasks.cleaning.contract.rows import DuplicateRule
from tasks.cleaning.sensors.model import SensorRules
from tasks.cleaning.transactions.model import TransactionRules

FORMAT = 1
"""What the line ``format`` says; raised when an older Penstock would misread a file."""
TABLES = {
    "dependency": Dependency,
    "denial": Denial,
    "reference": Reference,
    "sensor": SensorRules,
    "transactions": TransactionRules,
}
SINGLE = {"duplicates": DuplicateRule, "label": Label}
NESTED = {
    "columns", "dependencies", "denials", "references", "keys", "sensors", "transactions",
    *SINGLE,
}  # fmt: skip
SCALARS = tuple(f.name for f in fields(Contract) if f.name not in NESTED)
MAX_BYTES = 10_000_000
EXAMPLES = {
    str: '"text"', bool: "true", int: "3", float: "0.5", tuple: '["a", "b"]',
    Mapping: "{ name = 0.5 }",
}  # fmt: skip


def from_toml(text: str, *, source: str = "contract") -> Contract:
    """Read a contract.

    Args:
        text: TOML, see ``docs/reference/cleaning.md``.
        source: What messages call it.

    Raises:
        ContractError: With the line or the field at fault.
    """
    if len(text) > MAX_BYTES:
        raise ContractError(
            f"{source} has {len(text):,} characters; at most {MAX_BYTES:,} are read"
        )
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"{source} is no TOML: {error}") from None
    try:
        return _contract(data)
    except ContractError as error:
        raise ContractError(f"{source}: {error}") from None


def read_contract(path: Path) -> Contract:
    """Read a contract's file.

    Raises:
        ContractError: When there is none, or it is no contract.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path} cannot be read: {error}") from None
    return from_toml(text, source=str(path))


def to_toml(contract: Contract) -> str:
    """Write a contract; what has its default is left out.

    Lines that were inferred are named in ``confidence``; taken out of it, a line is declared.
    """
    changed = _changed(contract)
    lines = [f"format = {FORMAT}"]
    lines += [f"{name} = {_value(value)}" for name, value in changed if name in SCALARS]
    if contract.keys:
        lines.append(f"keys = {_value(contract.keys)}")
    for name, column in contract.columns.items():
        lines += ["", f"[columns.{_key(name)}]"]
        lines += _pairs(column)
    for dependency in contract.dependencies:
        lines += ["", "[[dependency]]", *_pairs(dependency)]
    for denial in contract.denials:
        lines += ["", "[[denial]]", *_pairs(denial)]
    for reference in contract.references:
        lines += ["", "[[reference]]", *_pairs(reference)]
    for name in SINGLE:
        one = getattr(contract, name)
        lines += ["", f"[{name}]", *_pairs(one)] if one is not None else []
    for sensor in contract.sensors:
        lines += ["", "[[sensor]]", *_pairs(sensor)]
    for rules in contract.transactions:
        lines += ["", "[[transactions]]", *_pairs(rules)]
    return "\n".join(lines) + "\n"


def _contract(data: dict[str, Any]) -> Contract:
    if data.get("format", FORMAT) != FORMAT or isinstance(data.get("format"), bool):
        raise ContractError(
            f"format = {data['format']!r}; this Penstock reads format {FORMAT}: take a newer one, "
            "or write the contract anew"
        )
    known = [*SCALARS, "keys", *TABLES, "columns", *SINGLE, "format"]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ContractError(f"unknown line {unknown[0]!r}; known: {', '.join(known)}")
    columns = data.get("columns", {})
    if not isinstance(columns, dict) or not columns:
        raise ContractError("no column; write [columns.NAME] for each")
    return Contract(
        **_scalars(data),
        columns={
            name: _made(ColumnContract, f"[columns.{name}]", given)
            for name, given in columns.items()
        },
        dependencies=_many(data, "dependency"),
        denials=_many(data, "denial"),
        references=_many(data, "reference"),
        **{name: _made(SINGLE[name], f"[{name}]", data[name]) for name in SINGLE if name in data},
        keys=_keys(data.get("keys", [])),
        sensors=_many(data, "sensor"),
        transactions=_many(data, "transactions"),
    )


def _keys(given: Any) -> tuple[tuple[str, ...], ...]:
    if not isinstance(given, list) or not all(
        isinstance(key, list) and all(isinstance(name, str) for name in key) for key in given
    ):
        raise ContractError(
            f'keys = {_shown(given)} must be a list of lists of columns, as [["id"]] or '
            '[["place", "day"]]'
        )
    return tuple(tuple(key) for key in given)


def _scalars(data: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: data[name] for name in SCALARS if name in data}
    given.setdefault("name", "table")
    wanted = {f.name: f.default for f in fields(Contract)}
    for name, value in given.items():
        default = wanted[name] if wanted[name] is not MISSING else ""
        # A whole number is a float as well; true and false are none.
        kinds = {int, float} if isinstance(default, float) else {type(default)}
        if type(value) not in kinds:
            raise ContractError(f"{name} = {value!r} must be like {default!r}")
    return given


def _many(data: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    given = data.get(name, [])
    if not isinstance(given, list):
        raise ContractError(f"{name} stands in doubled brackets: [[{name}]]")
    return tuple(_made(TABLES[name], f"[[{name}]] {i + 1}", one) for i, one in enumerate(given))


def _made(kind: type, where: str, given: Any) -> Any:
    if not isinstance(given, dict):
        raise ContractError(f"{where} must be a table")
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ContractError(f"{where} has no {unknown[0]!r}; known: {', '.join(known)}")
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    for name in ("minimum", "maximum"):
        if isinstance(plain.get(name), date):  # a datetime is one, too
            plain[name] = plain[name].isoformat()
    hints = get_type_hints(kind)
    for name, value in plain.items():
        if not _fits(value, hints[name]):
            raise ContractError(
                f"{where}: {name} = {_shown(given[name])} must be like {_example(hints[name])}"
            )
    absent = [
        f.name for f in fields(kind) if f.default is f.default_factory and f.name not in plain
    ]
    if absent:
        raise ContractError(f"{where}: {absent[0]} is missing, for example "
                            f"{absent[0]} = {_example(hints[absent[0]])}")  # fmt: skip
    try:
        return kind(**plain)
    except ValueError as error:
        raise ContractError(f"{where}: {error}") from None


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value of TOML is of a field's type; a whole number is a float as well."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str)  # which ones there are, the contract itself tells
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, inner[0]) for one in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(one, inner[1]) for one in value.values())
    if hint is float:
        return type(value) in {int, float}
    return type(value) is hint


def _example(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in {Union, UnionType}:
        return " or ".join(_example(one) for one in get_args(hint) if one is not type(None))
    return EXAMPLES.get(str if origin is Literal else origin or hint, "another value")


def _shown(value: Any) -> str:
    """Return a value as TOML writes it, for messages."""
    return repr(value) if isinstance(value, date | dict) else _value(value)


def _changed(thing: Any) -> list[tuple[str, Any]]:
    """Return the fields that have not their default, in order of their definition."""
    changed = []
    for f in fields(thing):
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        value = getattr(thing, f.name)
        if value != default:
            changed.append((f.name, value))
    return changed


def _pairs(thing: Any) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in _changed(thing)]


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else _string(name)


def _string(text: str) -> str:
    """Return a TOML string: one of JSON, but for a character that TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    return repr(value)
