"""Settings of the scorer's server: PENSTOCK_PRIVATE_* variables over defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from connectors.api.server_settings import ServerSettings, checked_settings
from infra.settings import CHECKOUT

PREFIX = "PENSTOCK_PRIVATE_"


class PrivateSettings(ServerSettings):
    """Where the server listens, what it scores and how much of it at a time."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    port: int = Field(8030, ge=0, le=65535, description="port; 0 takes any free one")
    home: Path = Field(CHECKOUT / ".penstock" / "private", description="folder of keys and log")

    models: str = Field("", description="folders of compiled models, comma between")
    workers: int = Field(1, ge=1, le=64, description="processes that score")
    worker_mib: int = Field(1_024, ge=64, description="memory of one for a request, MiB")
    worker_seconds: float = Field(30.0, gt=0, description="time of one for a request")
    max_rows: int = Field(16_384, ge=1, description="most rows of a request")
    max_body_mib: int = Field(256, ge=1, le=4_096, description="largest body")
    bodies_mib: int = Field(512, ge=1, description="bodies being read or scored, all together")
    queue_seconds: float = Field(10.0, gt=0, description="longest wait for a process")
    max_waiting: int = Field(64, ge=1, description="most requests that wait for a process")

    window_seconds: float = Field(300.0, gt=0, description="age at which a request is too old")
    overlap_days: float = Field(7.0, ge=0, description="time a replaced key goes on to hold")
    max_keys: int = Field(100, ge=1, description="most keys of one tenant at a time")
    rows_rate: float = Field(1_000_000.0, gt=0, description="rows per second and key")
    rows_burst: float = Field(2_000_000.0, gt=0, description="rows a rested key may send at once")

    rate: float = Field(200.0, gt=0, description="requests per second and token")
    burst: float = Field(400.0, gt=0, description="requests a rested token may send at once")
    max_connections: int = Field(200, ge=1)
    read_seconds: float = Field(30.0, gt=0, description="time a request may take to arrive")

    @model_validator(mode="after")
    def _fits(self) -> PrivateSettings:
        if self.bodies_mib < self.max_body_mib:
            raise ValueError("bodies_mib must be at least max_body_mib")
        return self

    @property
    def folders(self) -> list[Path]:
        """Folders of compiled models."""
        return [Path(one.strip()) for one in self.models.split(",") if one.strip()]


def private_settings(**changes: Any) -> PrivateSettings:
    """Read the settings; arguments win over variables.

    Raises:
        ConfigurationError: A value does not fit; all of them are named, none is shown.
    """
    return checked_settings(PrivateSettings, "the scorer's server", PREFIX, changes)
