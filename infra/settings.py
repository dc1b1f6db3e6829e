"""Settings of one checkout: PENSTOCK_* variables over one TOML file over defaults."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from infra.errors import ConfigurationError

CHECKOUT = Path(__file__).resolve().parents[1]
FILE_NAME = "penstock.toml"
HOST = "127.0.0.1"

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
StateBackend = Literal["heap", "rocksdb"]


class Settings(BaseSettings):
    """Where state lives and how the local services run.

    Ports are of the loopback interface; 0 means the usual port when it is free, else any free
    one. Database URLs may hold passwords and are therefore secret: they are never logged and
    reach the services through their environment only.
    """

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", extra="forbid", frozen=True)

    home: Path = Field(CHECKOUT / ".penstock", description="folder of all state")
    prefect_port: int = Field(0, ge=0, le=65535)
    mlflow_port: int = Field(0, ge=0, le=65535)
    prefect_api_url: str | None = Field(None, description="use this Prefect server, not our own")
    mlflow_tracking_uri: str | None = Field(None, description="use this MLflow, not our own")
    mlflow_backend_url: SecretStr | None = Field(None, description="SQLite or PostgreSQL URL")
    mlflow_artifact_root: str | None = Field(None, description="URI of the artifact folder")
    prefect_database_url: SecretStr | None = Field(None, description="SQLite or PostgreSQL URL")
    prefect_auth: SecretStr | None = Field(None, description="user:password of the Prefect API")
    kafka_servers: str | None = Field(None, description="use these brokers, not our own")
    kafka_port: int = Field(0, ge=0, le=65535)
    kafka_heap_mb: int = Field(512, ge=256, description="heap of the broker, MiB")
    kafka_retention_hours: int = Field(168, ge=1, description="age at which records go")
    kafka_retention_mb: int = Field(4096, ge=128, description="size of a partition, MiB")
    flink_zookeeper_port: int = Field(0, ge=0, le=65535)
    flink_jobmanager_port: int = Field(0, ge=0, le=65535, description="REST interface and pages")
    flink_taskmanager_port: int = Field(0, ge=0, le=65535)
    flink_standby_port: int = Field(0, ge=0, le=65535)
    flink_slots: int = Field(4, ge=1, le=64, description="parallel tasks of the TaskManager")
    flink_memory_mb: int = Field(1900, ge=1300, description="memory of the TaskManager, MiB")
    flink_state: StateBackend = Field("heap", description="heap, or rocksdb for large state")
    stream_dataset: str = Field("", description="dataset that the API and the store writer serve")
    redis_url: SecretStr | None = Field(None, description="use this Redis, not our own")
    redis_port: int = Field(0, ge=0, le=65535)
    redis_memory_mb: int = Field(1024, ge=16, description="limit of the data of Redis, MiB")
    prometheus_port: int = Field(0, ge=0, le=65535)
    prometheus_disk_mb: int = Field(512, ge=64, description="limit of its data, MiB")
    api_port: int = Field(0, ge=0, le=65535)
    store_writer_port: int = Field(0, ge=0, le=65535)
    watchdog_port: int = Field(0, ge=0, le=65535)
    service_timeout: float = Field(120.0, gt=0, description="seconds a service may take to start")
    log_level: LogLevel = "INFO"

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        try:
            return value.expanduser().resolve()
        except (RuntimeError, OSError) as error:  # an unknown user, links in a circle
            raise ValueError(f"{value} names no folder: {error}") from error

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("mlflow_backend_url", "prefect_database_url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            scheme = value.get_secret_value().split(":", 1)[0].split("+", 1)[0]
            if scheme not in {"sqlite", "postgresql", "postgres"}:
                raise ValueError("must start with sqlite:/// or postgresql://")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - signature of pydantic
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - signature of pydantic
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over variables, variables over the file; no .env is read."""
        toml = TomlConfigSettingsSource(settings_cls, configuration_file())
        return init_settings, env_settings, toml

    @property
    def logs(self) -> Path:
        """Folder that holds the log of every service."""
        return self.home / "logs"

    @property
    def services(self) -> Path:
        """Folder that holds the state of every service."""
        return self.home / "services"


def configuration_file() -> Path | None:
    """The TOML file in force: PENSTOCK_CONFIG, else ./penstock.toml, else the checkout's."""
    named = os.environ.get("PENSTOCK_CONFIG")
    if named:
        if not Path(named).is_file():
            raise ConfigurationError(
                f"PENSTOCK_CONFIG names {named}, which is not a file", "Correct or unset it"
            )
        return Path(named)
    candidates = (Path.cwd() / FILE_NAME, CHECKOUT / FILE_NAME)
    return next((path for path in candidates if path.is_file()), None)


def get_settings() -> Settings:
    """Read the settings afresh; nothing is kept between calls.

    Raises:
        ConfigurationError: a variable or a line of the file does not fit; names all of them.
    """
    file = configuration_file()
    try:
        return Settings()  # type: ignore[call-arg]  # every field has a default
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file}: not valid TOML ({error})", "Correct it") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: not UTF-8 ({error})", "Save it as UTF-8") from error
    except OSError as error:
        raise ConfigurationError(
            f"{file}: cannot be read ({error.strerror})", "Give the right to read it, or move it"
        ) from error
    except ValidationError as error:
        # Built from location and message alone: the offending value may hold a password.
        found = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        place = f"PENSTOCK_* variables or {file}" if file else "PENSTOCK_* variables"
        raise ConfigurationError(f"wrong settings ({found})", f"Correct the {place}") from None
