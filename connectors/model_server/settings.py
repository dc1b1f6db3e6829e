"""Settings of the model server: PENSTOCK_MODELS_* variables over defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from connectors.api.settings import checked_settings, require_files, require_private
from connectors.model_server.batching import BatchConfig
from connectors.model_server.messages import Limits
from infra.settings import HOST, LogLevel

PREFIX = "PENSTOCK_MODELS_"
TOKENS = "PENSTOCK_API_TOKENS"
"""The variable of the tokens, the same as for the fraud API."""


class ModelServerSettings(BaseSettings):
    """Where the server listens, what it serves and how much of it at a time."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = Field(HOST, description="address to listen on")
    port: int = Field(8020, ge=0, le=65535, description="port; 0 takes any free one")
    workers: int = Field(1, ge=1, le=64, description="processes; each opens every model")
    log_level: LogLevel = "INFO"

    serve: str = Field("", description="[NAME=]FOLDER, FILE or models:/NAME@ALIAS; comma between")
    tracking_uri: str = Field("", description="MLflow of the registry; empty: MLFLOW_TRACKING_URI")
    reload_seconds: float = Field(30.0, ge=0, description="how often models are looked for; 0: off")

    threads: int = Field(1, ge=1, le=256, description="cores that one run of a model uses")
    concurrency: int = Field(1, ge=1, le=256, description="runs at the same time, all models")
    runs: int = Field(1, ge=1, le=256, description="runs at the same time, one model version")
    max_rows: int = Field(32, ge=1, description="most rows of a batch; 1: no batching")
    max_wait_ms: float = Field(1.0, ge=0, description="longest wait for others while idle")
    max_queue: int = Field(256, ge=1, description="most requests that wait, one model version")
    queue_ms: float = Field(1_000.0, gt=0, description="longest wait in the queue")
    budget_ms: float = Field(250.0, gt=0, description="wait for the process beyond which it sheds")

    tokens_file: Path | None = Field(None, description="file of hashed tokens")
    rate: float = Field(20_000.0, gt=0, description="requests per second and token")
    burst: float = Field(40_000.0, gt=0, description="requests a rested token may send at once")
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    max_body_mib: int = Field(16, ge=1, le=1_024, description="largest body")
    bodies_mib: int = Field(256, ge=1, description="bodies being read or answered, all together")
    max_elements: int = Field(2**24, ge=1, description="most elements of one request's tensors")
    max_connections: int = Field(1_000, ge=1)
    read_seconds: float = Field(10.0, gt=0, description="time a request may take to arrive")
    idle_seconds: float = Field(30.0, gt=0, description="time a connection may stay idle")
    stop_seconds: float = Field(10.0, gt=0, description="time running requests get at the end")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> ModelServerSettings:
        require_files(self.tls_certificate, self.tls_key, self.tokens_file)
        if self.bodies_mib < self.max_body_mib:
            raise ValueError("bodies_mib must be at least max_body_mib")
        require_private(self.host, tls=bool(self.tls_certificate))
        return self

    @property
    def batches(self) -> BatchConfig:
        """How requests are put together."""
        return BatchConfig(
            self.max_rows, self.max_wait_ms, self.max_queue, self.queue_ms, self.runs
        )

    @property
    def limits(self) -> Limits:
        """What a request may hold."""
        return Limits(self.max_elements)


def model_server_settings(**changes: Any) -> ModelServerSettings:
    """Read the settings; arguments win over variables.

    Raises:
        ConfigurationError: A value does not fit; all of them are named, none is shown.
    """
    return checked_settings(ModelServerSettings, "the model server", PREFIX, changes)
