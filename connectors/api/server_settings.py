"""Settings that every server of the house has, read from variables and checked with remedies."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings

from infra.errors import ConfigurationError
from infra.settings import HOST, LogLevel

TOKENS = "PENSTOCK_API_TOKENS"
"""The variable of the tokens, the same for every server."""

SettingsKind = TypeVar("SettingsKind", bound=BaseSettings)


class ServerSettings(BaseSettings):
    """Where a server listens, whom it lets in, and how long it waits for them."""

    host: str = Field(HOST, description="address to listen on")
    port: int = Field(0, ge=0, le=65535, description="port; 0 takes any free one")
    log_level: LogLevel = "INFO"
    tokens_file: Path | None = Field(None, description="file of hashed tokens")
    rate: float = Field(20_000.0, gt=0, description="requests per second and token")
    burst: float = Field(40_000.0, gt=0, description="requests a rested token may send at once")
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    max_connections: int = Field(1_000, ge=1)
    read_seconds: float = Field(10.0, gt=0, description="time a request may take to arrive")
    idle_seconds: float = Field(30.0, gt=0, description="time a connection may stay idle")
    stop_seconds: float = Field(10.0, gt=0, description="time running requests get at the end")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _lets_in(self) -> Self:
        """Refuse files that are not there, and to let tokens travel in the clear."""
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key belong together: set both or neither")
        for path in (self.tls_certificate, self.tls_key, self.tokens_file):
            if path is not None and not path.is_file():
                raise ValueError(f"{path} is not a file")
        if not self.tls_certificate and not is_loopback(self.host):
            raise ValueError(
                f"{self.host} can be reached from other machines: set tls_certificate and tls_key "
                "(tokens must not travel in the clear), or listen on 127.0.0.1 behind a proxy"
            )
        return self


def is_loopback(host: str) -> bool:
    """Tell whether an address is of this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_settings(
    kind: type[SettingsKind], what: str, prefix: str, changes: Mapping[str, Any]
) -> SettingsKind:
    """Read settings of a kind; arguments win over variables.

    Args:
        kind: The class.
        what: What it configures, for messages.
        prefix: Of its variables.
        changes: The arguments.

    Raises:
        ConfigurationError: A value does not fit; all of them are named, none is shown.
    """
    try:
        return kind(**changes)
    except ValidationError as error:
        # Built from location and message alone: the offending value may hold a token.
        found = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(
            f"wrong settings of {what} ({found})", f"Correct the {prefix}* variables or arguments"
        ) from None


def settings_parser(
    kind: type[BaseSettings], program: str, description: str
) -> argparse.ArgumentParser:
    """Return a parser with an option for every setting but ``tokens``."""
    parser = argparse.ArgumentParser(prog=program, description=description, argument_default=None)
    kinds: dict[Any, type] = {int: int, float: float}
    for name, field in kind.model_fields.items():
        if name == "tokens":
            continue
        option = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            parser.add_argument(
                option, action=argparse.BooleanOptionalAction, help=field.description
            )
        else:
            parser.add_argument(
                option, type=kinds.get(field.annotation, str), help=field.description
            )
    return parser
