from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from infra.environment import apply_environment, service_environment
from infra.services.environment import mlflow_backend_url
from infra.services.prefect_server import database_url
from infra.services.registry import SERVICES
from infra.settings import Settings


@pytest.fixture(autouse=True)
def environment_restored(monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())


def test_without_servers_mlflow_writes_to_its_database(settings):
    environment = service_environment(settings)
    assert environment["MLFLOW_TRACKING_URI"] == f"sqlite:///{settings.home}/mlflow.db"
    assert environment["_MLFLOW_SERVER_ARTIFACT_ROOT"] == f"file://{settings.home}/mlartifacts"
    assert "PREFECT_API_URL" not in environment


def test_tuning_reaches_every_process(settings):
    environment = service_environment(settings)
    assert environment["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] == "90"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert environment["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] == "true"
    assert environment["PREFECT_RUNNER_POLL_FREQUENCY"] == "1"
    assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def test_the_bundle_holds_one_certificate_and_is_made_once(settings):
    path = service_environment(settings)["PREFECT_API_SSL_CERT_FILE"]
    bundle = ssl.create_default_context(cafile=path)
    assert bundle.cert_store_stats()["x509_ca"] == 1
    before = Path(path).read_text()
    again = service_environment(settings)["PREFECT_API_SSL_CERT_FILE"]
    assert Path(again).read_text() == before
    assert "PRIVATE" not in before


def test_configured_servers_are_used(tmp_path):
    settings = Settings(
        home=tmp_path,
        prefect_api_url="https://prefect.example/api",
        mlflow_tracking_uri="https://mlflow.example",
        prefect_auth="me:hunter2",
    )
    environment = service_environment(settings)
    assert environment["PREFECT_API_URL"] == "https://prefect.example/api"
    assert environment["MLFLOW_TRACKING_URI"] == "https://mlflow.example"
    assert environment["PREFECT_API_AUTH_STRING"] == "me:hunter2"
    # The one-certificate bundle could not verify a real host.
    assert "PREFECT_API_SSL_CERT_FILE" not in environment


def test_loopback_is_exempt_from_proxies_beside_what_was_exempt(settings, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    assert service_environment(settings)["NO_PROXY"] == "intranet.example,127.0.0.1,localhost"


def test_applying_sets_this_process_and_makes_the_home(settings):
    apply_environment(settings)
    assert settings.home.is_dir()
    assert os.environ["PREFECT_HOME"] == str(settings.home / "prefect")


@pytest.mark.parametrize(
    ("url", "mlflow", "prefect"),
    [
        ("postgresql://a:b@h/d", "postgresql+psycopg2://a:b@h/d", "postgresql+asyncpg://a:b@h/d"),
        ("postgres://a:b@h/d", "postgresql+psycopg2://a:b@h/d", "postgresql+asyncpg://a:b@h/d"),
        ("sqlite:////x.db", "sqlite:////x.db", "sqlite+aiosqlite:////x.db"),
    ],
)
def test_database_urls_get_the_drivers_that_are_pinned(tmp_path, url, mlflow, prefect):
    settings = Settings(home=tmp_path, mlflow_backend_url=url, prefect_database_url=url)
    assert mlflow_backend_url(settings) == mlflow
    assert database_url(settings) == prefect


def test_servers_are_tuned_and_get_secrets_by_environment_only(tmp_path):
    settings = Settings(
        home=tmp_path,
        mlflow_backend_url="postgresql://me:hunter2@h/d",
        prefect_database_url="postgresql://me:hunter2@h/d",
        prefect_auth="me:hunter2",
    )
    mlflow, prefect = (SERVICES[name].build(settings, 4321) for name in ("mlflow", "prefect"))
    assert "hunter2" not in " ".join(mlflow.command + prefect.command) + repr((mlflow, prefect))

    assert " ".join(mlflow.command).count("--workers 1") == 1
    assert mlflow.environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert mlflow.environment["MLFLOW_BACKEND_STORE_URI"] == "postgresql+psycopg2://me:hunter2@h/d"

    assert prefect.url == "http://127.0.0.1:4321"
    assert prefect.environment["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
    assert prefect.environment["PREFECT_SERVER_API_AUTH_STRING"] == "me:hunter2"


def test_sqlite_needs_no_database_url(settings):
    prefect = SERVICES["prefect"].build(settings, 4321)
    assert "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in prefect.environment
