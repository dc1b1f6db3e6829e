"""The target ``application``: what the job decides there, and what its deployment does."""

from __future__ import annotations

import pytest

from connectors.flink.application import (
    GATEWAY_PORT,
    OWNED_BY_DEPLOYMENT,
    application_environment,
    application_values,
)
from connectors.flink.presets import PRESETS
from connectors.flink.remote import job_values
from connectors.flink.spec import StreamSpec
from connectors.flink.submit import submit
from infra.errors import ConfigurationError, ServiceError
from infra.settings import Settings


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def spec() -> StreamSpec:
    return StreamSpec("pay", "/models", "0" * 16, kafka="broker:9092", target="application")


def test_the_job_leaves_to_the_deployment_what_is_the_deployments(settings, spec):
    options = spec.with_changes(parallelism=8).options()
    values = application_values(settings, options)
    assert not OWNED_BY_DEPLOYMENT & set(values)
    assert not any(key.startswith(("rest.", "execution.target")) for key in values)
    # and all of the rest stays: nothing else gets lost on the way.
    assert set(job_values(settings, options)) | set(options.extra) == set(values) | (
        OWNED_BY_DEPLOYMENT - {"execution.state-recovery.path"}
    )


def test_the_preset_still_decides_on_bundles_and_checkpoints(settings, spec):
    preset = PRESETS["throughput"]
    values = application_values(settings, spec.with_changes(preset="throughput").options())
    assert values["execution.checkpointing.interval"] == f"{preset.checkpoint_ms} ms"
    assert values["python.fn-execution.bundle.size"] == str(preset.bundle_rows)
    assert values["execution.buffer-timeout.interval"] == "100 ms"
    assert values["pipeline.max-parallelism"] == "720"


def test_no_jar_is_carried_to_where_the_image_has_it(spec):
    assert spec.options().jars == ()


def test_restoring_is_said_to_the_operator(spec):
    with pytest.raises(ConfigurationError, match="initialSavepointPath"):
        spec.with_changes(restore="file:///savepoints/1")


def test_an_unknown_target_is_refused(spec):
    with pytest.raises(ConfigurationError, match="remote, local, application"):
        spec.with_changes(target="cloud")


def test_without_a_driver_no_cluster_of_its_own_is_started(settings, spec, monkeypatch):
    from pyflink import java_gateway

    before = java_gateway._gateway  # of another test, if at all
    monkeypatch.delenv(GATEWAY_PORT, raising=False)
    with pytest.raises(ServiceError, match="driver"):
        application_environment(settings, spec.options(), {})
    with pytest.raises(ServiceError, match="driver"):
        submit(settings, spec)
    assert java_gateway._gateway is before
    assert not settings.home.exists()
