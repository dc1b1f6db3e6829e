"""Settings of the API: PENSTOCK_API_* variables over defaults, each checked with its remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from connectors.api.server_settings import ServerSettings, checked_settings
from infra.settings import CHECKOUT

Mode = Literal["embedded", "stream"]
PREFIX = "PENSTOCK_API_"


class ApiSettings(ServerSettings):
    """Where the API listens, what it serves and what it lets through.

    In mode ``embedded`` this process is the one writer of the online store; in mode ``stream`` it
    reads what a store writer wrote and hands accepted events to Kafka.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    port: int = Field(8000, ge=0, le=65535, description="port; 0 takes any free one")
    home: Path = Field(CHECKOUT / ".penstock" / "api", description="folder of all its state")

    model: str = Field("", description="bundle folder, or registry:DATASET for the champion")
    challenger: str = Field("", description="the same for the challenger; empty: none")
    tracking_uri: str = Field("", description="MLflow of the registry; empty: MLFLOW_TRACKING_URI")
    catalogue: Path | None = Field(
        None, description="reason catalogue (TOML); None: the one in the model's bundle"
    )
    language: Literal["en", "zh"] = Field("en", description="language of the reasons: en or zh")
    approved_rules: Path | None = Field(
        None, description="rules.json that runs beside the model; its trial record lies beside it"
    )
    rule_powers: Literal["none", "flag", "flag+veto"] = Field(
        "flag", description="what the approved rules may do to the model's decision"
    )
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
    rate: float = Field(20_000.0, gt=0, description="transactions per second and token")
    burst: float = Field(40_000.0, gt=0, description="transactions a rested token may send at once")

    max_body_kib: int = Field(64, ge=1, description="largest body of one transaction")
    max_batch: int = Field(1_000, ge=1, le=100_000, description="most transactions in a batch")
    max_batch_mib: int = Field(4, ge=1, le=256, description="largest body of a batch")
    budget_ms: float = Field(25.0, gt=0, description="time within which an answer is due")
    reasons_from: Literal["approve", "review", "block"] = Field(
        "approve", description="least decision that is explained"
    )
    reasons_ms: float = Field(
        5.0, ge=0.1, description="time for the reasons of transactions that are answered together"
    )
    explain_ms: float = Field(
        1_000.0, ge=1, description="time for an answer of /v1/explain, which never delays a score"
    )
    explain_rate: float = Field(50.0, gt=0, description="explanations per second and token")
    bulk_reasons: bool = Field(default=False, description="explain batches, too, unless they ask")
    ui: bool = Field(default=True, description="serve /ui")
    session_hours: float = Field(8.0, gt=0, description="how long a login of /ui lasts")

    @model_validator(mode="after")
    def _fits(self) -> ApiSettings:
        if self.mode == "stream" and not self.kafka:
            raise ValueError("mode stream hands events to Kafka: set kafka to HOST:PORT")
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


def api_settings(**changes: Any) -> ApiSettings:
    """Read the settings; arguments win over variables.

    Raises:
        ConfigurationError: A value does not fit; all of them are named, none is shown.
    """
    return checked_settings(ApiSettings, "the API", PREFIX, changes)
