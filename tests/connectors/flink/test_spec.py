"""A stream described in a file: what it may say, and what becomes of it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from connectors.flink.endpoints import FileEndpoint, KafkaEndpoint
from connectors.flink.models import model_stamp, place_model
from connectors.flink.presets import PRESETS
from connectors.flink.spec import EPOCH_START, StreamSpec, new_epoch
from connectors.flink.submit import main as submit_main
from infra.errors import ConfigurationError
from kernels.bundle.folder import BundleError

SPEC = StreamSpec(name="payments", models="/models", model="abc", kafka="127.0.0.1:9092")


def test_a_spec_survives_its_file(tmp_path):
    path = tmp_path / "deep" / "payments.json"
    SPEC.save(path)
    assert StreamSpec.load(path) == SPEC
    assert (SPEC.job_name, SPEC.prefix) == ("penstock-payments", "penstock.payments")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folder": "/f"}, "brokers or a folder"),
        ({"kafka": ""}, "brokers or a folder"),
        ({"preset": "fast"}, "preset 'fast'"),
        ({"mode": "sometimes"}, "mode 'sometimes'"),
        ({"target": "moon"}, "target 'moon'"),
        ({"start": "never"}, "start 'never'"),
        ({"batch": True}, "bounded input"),
        ({"parallelism": 0}, "parallelism 0"),
    ],
)
def test_what_a_spec_may_not_say(change, message):
    with pytest.raises(ConfigurationError, match=message):
        dataclasses.replace(SPEC, **change)


def test_files_that_are_no_spec(tmp_path, capsys):
    for content, message in (
        ("{", "Start the stream anew"),
        ('{"name": "a", "models": "m", "model": "x", "colour": "red"}', "has no 'colour'"),
        ('{"name": "a"}', "Start the stream anew"),
    ):
        path = tmp_path / "spec.json"
        path.write_text(content)
        with pytest.raises(ConfigurationError, match=message):
            StreamSpec.load(path)
    assert submit_main([str(tmp_path / "missing.json")]) == 1
    assert "no stream is described" in capsys.readouterr().err


def test_kafka_endpoints():
    endpoint = SPEC.endpoint()
    assert isinstance(endpoint, KafkaEndpoint)
    source = endpoint.source()
    assert source["transactions"] == "penstock.payments.transactions"
    assert source["properties"]["isolation.level"] == "read_committed"
    assert endpoint.sinks()["state"] == "penstock.payments.state"
    assert endpoint.control()["source"]["control"] == "penstock.payments.control"
    bounded = dataclasses.replace(SPEC, bounded=True, labels=False).endpoint()
    assert bounded.control() == {}
    assert "labels" not in bounded.source()


def test_file_endpoints(tmp_path):
    spec = dataclasses.replace(SPEC, kafka="", folder=str(tmp_path))
    endpoint = spec.endpoint()
    assert isinstance(endpoint, FileEndpoint)
    source = endpoint.source()
    assert source["transactions"] == (tmp_path / "transactions").as_uri()
    assert (tmp_path / "labels").is_dir()
    assert endpoint.control()["source"]["type"] == "files"
    assert endpoint.sinks()["alerts"] == (tmp_path / "alerts").as_uri()


def test_presets_reach_flink_and_the_producers():
    options = dataclasses.replace(SPEC, preset="throughput").options()
    assert options.bundle_rows == PRESETS["throughput"].bundle_rows
    assert options.extra["execution.buffer-timeout.interval"] == "100 ms"
    assert SPEC.endpoint().producer["linger.ms"] == "0"
    assert SPEC.options().checkpoint_ms == PRESETS["latency"].checkpoint_ms
    files = dataclasses.replace(SPEC, kafka="", folder="x")
    assert files.options().checkpoint_ms == 1_000
    assert dataclasses.replace(SPEC, checkpoint_s=0.5).options().checkpoint_ms == 500
    batch = dataclasses.replace(SPEC, bounded=True, batch=True, mode="event-time").options()
    assert batch.extra["execution.runtime-mode"] == "BATCH"
    assert new_epoch(60.0 * (EPOCH_START + 5)) == 5


def test_a_model_is_placed_once_and_only_whole(small_bundle, tmp_path):
    bundle = small_bundle(tmp_path / "made")
    placed = place_model(bundle.folder, tmp_path / "models")
    assert placed.folder.name == model_stamp(bundle) == bundle.digest[:16]
    assert place_model(bundle.folder, tmp_path / "models").folder == placed.folder
    (bundle.folder / "metrics.json").write_text(json.dumps({"ap": 1}))
    with pytest.raises(BundleError):
        place_model(bundle.folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()
