"""Where models lie, as it is written on a command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from connectors.registry_client import CHAMPION
from infra.errors import ConfigurationError

REGISTRY = "models:/"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Address:
    """A place that models are served from.

    Attributes:
        text: As it was written.
        name: Name to serve under; empty: that of the place.
        path: Folder or file; None for the registry.
        model: Registered model.
        alias: Its alias, followed when it moves; empty where a version is named.
        version: Its version; empty where an alias is followed.
        file: The one file of several to serve, as it lies inside; empty: all.
    """

    text: str
    name: str
    path: Path | None = None
    model: str = ""
    alias: str = ""
    version: str = ""
    file: str = ""


def parse_address(text: str) -> Address:
    """Read ``[NAME=]PLACE[#FILE]``.

    ``PLACE`` is a folder, an ONNX file, or a model of the registry as MLflow writes it:
    ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``; ``models:/NAME`` follows `CHAMPION`.

    Raises:
        ConfigurationError: It cannot be read.

    >>> parse_address("models:/fraud-bank@challenger").alias
    'challenger'
    """
    head, equals, rest = text.strip().partition("=")
    named = bool(equals) and "/" not in head
    name, place = (head, rest) if named else ("", text.strip())
    place, _, file = place.partition("#")
    if not place or (named and not name):
        raise ConfigurationError(f"{text!r} names no place of models", "Give a folder or models:/")
    if name and not valid_name(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a model", "Use letters, digits, dots, _ and -"
        )
    if not place.startswith(REGISTRY):
        return Address(text, name, Path(place), file=file)
    model, version, alias = place.removeprefix(REGISTRY).strip("/"), "", ""
    if "@" in model:
        model, _, alias = model.partition("@")
    elif "/" in model:
        model, _, version = model.partition("/")
    else:
        alias = CHAMPION
    if not valid_name(model) or not (valid_name(alias) or version.isdecimal()):
        raise ConfigurationError(
            f"{place!r} names no model of the registry",
            "Write models:/NAME@ALIAS or models:/NAME/VERSION",
        )
    return Address(text, name or model, None, model, alias, version, file)


def parse_addresses(text: str) -> list[Address]:
    """Read several, commas between.

    Raises:
        ConfigurationError: There is none, or one that cannot be read.
    """
    found = [parse_address(part) for part in text.split(",") if part.strip()]
    if not found:
        raise ConfigurationError(
            "the model server was not told what to serve",
            "Set PENSTOCK_MODELS_SERVE to a folder, an ONNX file or models:/NAME@ALIAS",
        )
    return found


def valid_name(name: str) -> bool:
    """Tell whether a model may be called so: the name stands in addresses and metrics."""
    return _NAME.fullmatch(name) is not None
