"""Settings of the API: PENSTOCK_API_* variables over defaults, each checked with its remedy."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.errors import ConfigurationError
from infra.settings import CHECKOUT, HOST, LogLevel

Mode = Literal["embedded", "stream"]
PREFIX = "PENSTOCK_API_"
SettingsKind = TypeVar("SettingsKind", bound=BaseSettings)


class ApiSettings(BaseSettings):
    """Where the API listens, what it serves and what it lets through.

    In mode ``embedded`` this process is the one writer of the online store; in mode ``stream`` it
    reads what a store writer wrote and hands accepted events to Kafka.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = Field(HOST, description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port; 0 takes any free one")
    home: Path = Field(CHECKOUT / ".penstock" / "api", description="folder of all its state")
    log_level: LogLevel = "INFO"

    model: str = Field("", description="bundle folder, or registry:DATASET for the champion")
    challenger: str = Field("", description="the same for the challenger; empty: none")
    tracking_uri: str = Field("", description="MLflow of the registry; empty: MLFLOW_TRACKING_URI")
    reload_seconds: float = Field(30.0, ge=0, description="how often a new champion is looked for")

    mode: Mode = "embedded"
    store: str = Field("", description="address of the online store; empty: LMDB below home")
    store_gib: float = Field(64.0, gt=0, description="largest size of the embedded store")
    cache_mib: int = Field(512, ge=8, description="memory for state blocks of recent entities")
    answer_hours: float = Field(24.0, gt=0, description="how long answers are kept by event id")
    journal: Path | None = Field(None, description="folder of journals; None: home/journal")
    journal_seconds: float = Field(1.0, gt=0, description="age at which a journal file is closed")
    journal_mib: int = Field(64, ge=1, description="size at which a journal file is closed")
    dead_letter_mib: int = Field(256, ge=1, description="most dead letters written per day")
    kafka: str = Field("", description="bootstrap servers, in mode stream")
    kafka_prefix: str = Field("", description="topics; empty: penstock.DATASET")
    outbox_mib: int = Field(1_024, ge=1, description="most undelivered events, in mode stream")
    overlay_seconds: float = Field(60.0, gt=0, description="how long own events await the stream")

    tokens: SecretStr = Field(SecretStr(""), description="NAME:SCOPE+SCOPE:SECRET, comma between")
    tokens_file: Path | None = Field(None, description="file of hashed tokens")
    rate: float = Field(20_000.0, gt=0, description="transactions per second and token")
    burst: float = Field(40_000.0, gt=0, description="transactions a rested token may send at once")
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    max_body_kib: int = Field(64, ge=1, description="largest body of one transaction")
    max_batch: int = Field(1_000, ge=1, le=100_000, description="most transactions in a batch")
    max_batch_mib: int = Field(4, ge=1, le=256, description="largest body of a batch")
    max_connections: int = Field(1_000, ge=1)
    read_seconds: float = Field(10.0, gt=0, description="time a request may take to arrive")
    idle_seconds: float = Field(30.0, gt=0, description="time a connection may stay idle")
    stop_seconds: float = Field(10.0, gt=0, description="time running requests get at the end")
    budget_ms: float = Field(25.0, gt=0, description="time within which an answer is due")
    reasons_from: Literal["approve", "review", "block"] = Field(
        "approve", description="least decision that is explained"
    )
    bulk_reasons: bool = Field(default=False, description="explain batches, too, unless they ask")
    ui: bool = Field(default=True, description="serve /ui")
    session_hours: float = Field(8.0, gt=0, description="how long a login of /ui lasts")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> ApiSettings:
        require_files(self.tls_certificate, self.tls_key, self.tokens_file)
        if self.mode == "stream" and not self.kafka:
            raise ValueError("mode stream hands events to Kafka: set kafka to HOST:PORT")
        require_private(self.host, tls=bool(self.tls_certificate))
        return self

    @property
    def journal_folder(self) -> Path:
        """Folder of the journals."""
        return self.journal or self.home / "journal"

    @property
    def max_body_bytes(self) -> int:
        """Largest body of one transaction."""
        return self.max_body_kib * 1024

    @property
    def max_batch_bytes(self) -> int:
        """Largest body of a batch."""
        return self.max_batch_mib * 2**20


def require_files(certificate: Path | None, key: Path | None, tokens: Path | None) -> None:
    """Refuse files that are not there, and one of certificate and key without the other.

    Raises:
        ValueError: Says which.
    """
    if bool(certificate) != bool(key):
        raise ValueError("tls_certificate and tls_key belong together: set both or neither")
    for path in (certificate, key, tokens):
        if path is not None and not path.is_file():
            raise ValueError(f"{path} is not a file")


def require_private(host: str, *, tls: bool) -> None:
    """Refuse to let tokens travel in the clear.

    Raises:
        ValueError: Other machines reach the address, and there is no TLS.
    """
    if not tls and not is_loopback(host):
        raise ValueError(
            f"{host} can be reached from other machines: set tls_certificate and tls_key "
            "(tokens must not travel in the clear), or listen on 127.0.0.1 behind a proxy"
        )


def is_loopback(host: str) -> bool:
    """Tell whether an address is of this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def api_settings(**changes: Any) -> ApiSettings:
    """Read the settings; arguments win over variables.

    Raises:
        ConfigurationError: A value does not fit; all of them are named, none is shown.
    """
    return checked_settings(ApiSettings, "the API", PREFIX, changes)


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
