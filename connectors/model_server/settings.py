"""Settings of the model server: PENSTOCK_MODELS_* variables over defaults."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from connectors.api.server_settings import ServerSettings, checked_settings
from connectors.model_server.batching import BatchConfig
from connectors.model_server.messages import Limits

PREFIX = "PENSTOCK_MODELS_"


class ModelServerSettings(ServerSettings):
    """Where the server listens, what it serves and how much of it at a time."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    port: int = Field(8020, ge=0, le=65535, description="port; 0 takes any free one")
    workers: int = Field(1, ge=1, le=64, description="processes; each opens every model")

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

    max_body_mib: int = Field(16, ge=1, le=1_024, description="largest body")
    bodies_mib: int = Field(256, ge=1, description="bodies being read or answered, all together")
    max_elements: int = Field(2**24, ge=1, description="most elements of one request's tensors")

    @model_validator(mode="after")
    def _fits(self) -> ModelServerSettings:
        if self.bodies_mib < self.max_body_mib:
            raise ValueError("bodies_mib must be at least max_body_mib")
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
