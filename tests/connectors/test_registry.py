"""Bundles in the registry: published without pickle, fetched only when they are what they say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from connectors.fraud_models import fraud_registry
from connectors.registry import CHAMPION, ModelVersion, RegistryError


@pytest.fixture(scope="module")
def registry(mlflow_uri):
    return fraud_registry(mlflow_uri)


@pytest.fixture(scope="module")
def published(registry, small_bundle, tmp_path_factory):
    bundle = small_bundle(tmp_path_factory.mktemp("bundles") / "b", active=(1, 0, -1, 0))
    return bundle, registry.publish(bundle)


def test_a_published_model_loads_as_pyfunc_without_pickle(registry, published):
    import mlflow

    bundle, version = published
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert registry.smoke_test(version) <= 1e-7
    local = Path(mlflow.artifacts.download_artifacts(version.uri, tracking_uri=registry.uri))
    names = {p.name for p in local.rglob("*") if p.is_file()}
    assert not any(n.endswith((".pkl", ".pickle", ".joblib", ".pt", ".pth")) for n in names)
    assert {"MLmodel", "fraud.py", "manifest.json", "input_example.json"} <= names
    info = mlflow.models.get_model_info(version.uri)
    assert [i.name for i in info.signature.inputs.inputs] == ["features"]
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    model = mlflow.pyfunc.load_model(version.uri)
    np.testing.assert_allclose(model.predict({"features": rows}), bundle.score(rows))
    logistic = model.predict({"features": rows}, params={"head": "logistic"})
    np.testing.assert_allclose(logistic, bundle.score(rows, head="logistic"))
    requirements = (local / "requirements.txt").read_text()
    assert "onnxruntime==" in requirements
    assert "penstock" not in requirements


def test_a_version_carries_what_a_reader_asks(registry, published):
    bundle, version = published
    assert version.name == registry.kind.model_name("tiny") == "fraud-tiny"
    assert version.digest == bundle.digest
    assert version.tags["active_head"] == "tabular"
    assert version.tags["data_sha256"] == "0" * 64
    assert version.run_id


def test_a_champion_is_fetched_once_and_verified_each_time(registry, published, tmp_path):
    bundle, version = published
    with pytest.raises(RegistryError, match="no champion of fraud-none"):
        registry.champion("none", tmp_path)
    registry.set_alias(version.name, CHAMPION, version.version)
    found, fetched = registry.champion("tiny", tmp_path)
    assert (found.version, fetched.digest) == (version.version, bundle.digest)
    (fetched.folder / "metrics.json").write_text("{}")
    again = registry.fetch(version, tmp_path)
    assert again.metrics == bundle.metrics
    assert registry.fetch(version, tmp_path).digest == bundle.digest
    registry.drop_alias(version.name, CHAMPION)
    registry.drop_alias(version.name, CHAMPION)
    assert registry.by_alias(version.name, CHAMPION) is None


def test_a_model_belongs_to_its_training_run(registry, small_bundle, tmp_path, mlflow_uri):
    from connectors.tracking import RunRequest, tracked_run, unfinished_run

    request = RunRequest(
        dataset="tiny", name="train", tags={"job_key": "in-the-middle"}, uri=mlflow_uri
    )
    with tracked_run(request) as run:
        version = registry.publish(small_bundle(tmp_path / "b"), run_id=run.run_id)
        # A kill from here on must leave a run that is found unfinished.
        assert run.client.get_run(run.run_id).info.status == "RUNNING"
        assert unfinished_run("tiny", "in-the-middle", uri=mlflow_uri) == run.run_id
    assert version.run_id == run.run_id
    outputs = run.client.get_run(run.run_id).outputs.model_outputs
    assert [run.client.get_logged_model(m.model_id).source_run_id for m in outputs] == [run.run_id]
    assert run.client.get_logged_model(outputs[0].model_id).experiment_id == run.experiment_id
    assert run.client.get_run(run.run_id).info.status == "FINISHED"


def test_two_that_fetch_one_version_at_once_both_get_it(registry, published, tmp_path, monkeypatch):
    import mlflow

    bundle, version = published
    download = mlflow.artifacts.download_artifacts
    others = []

    def overtaken(*a, **k):
        root = download(*a, **k)
        if not others:
            others.append(None)
            others.append(registry.fetch(version, tmp_path))
        return root

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", overtaken)
    mine = registry.fetch(version, tmp_path)
    assert mine.digest == others[1].digest == bundle.digest
    assert mine.folder == others[1].folder
    assert [p.name for p in mine.folder.parent.iterdir()] == [mine.folder.name]


def test_of_two_that_fetch_at_once_the_sound_copy_stays(registry, published, tmp_path, monkeypatch):
    import mlflow

    bundle, version = published
    place = tmp_path / version.name / f"{version.version}-{bundle.digest[:16]}"
    download = mlflow.artifacts.download_artifacts

    def beside_a_broken_one(*a, **k):
        shutil.copytree(bundle.folder, place)
        (place / "metrics.json").write_text("{}")
        return download(*a, **k)

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", beside_a_broken_one)
    assert registry.fetch(version, tmp_path).metrics == bundle.metrics


def test_no_message_shows_the_login_of_the_registry(registry, published, tmp_path, monkeypatch):
    import mlflow

    _, version = published
    monkeypatch.setattr(registry, "uri", "postgresql+psycopg2://user:secret@db.example/mlflow")
    with pytest.raises(RegistryError, match="at postgresql") as absent:
        registry.version(version.name, "99")
    with pytest.raises(RegistryError, match="at postgresql") as no_champion:
        registry.champion("none", tmp_path)

    def fail(*_, **__):
        raise OSError(f"no answer from {registry.uri}")

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", fail)
    monkeypatch.setattr(mlflow.pyfunc, "load_model", fail)
    with pytest.raises(RegistryError, match="cannot be fetched: no answer from") as unfetched:
        registry.fetch(version, tmp_path)
    with pytest.raises(RegistryError, match="smoke test: no answer from") as untested:
        registry.smoke_test(version)
    for caught in (absent, no_champion, unfetched, untested):
        assert "//db.example/mlflow" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "user" not in str(caught.value)


def test_tampered_and_foreign_versions_are_refused(registry, small_bundle, tmp_path):
    version = registry.publish(small_bundle(tmp_path / "b", active=(0, 0, 0, 1)))
    stored = registry.client.get_model_version_download_uri(version.name, version.version)
    bundle = Path(stored.removeprefix("file://")) / "artifacts" / "bundle"
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"tabular"', '"logistic"', 1))
    with pytest.raises(RegistryError, match=r"cannot be fetched: .*not the manifest"):
        registry.fetch(version, tmp_path / "cache")
    with pytest.raises(RegistryError, match="failed its smoke test"):
        registry.smoke_test(version)
    shutil.rmtree(bundle)
    with pytest.raises(RegistryError, match="cannot be fetched"):
        registry.fetch(version, tmp_path / "cache")
    foreign = ModelVersion(version.name, version.version, "", "", {})
    with pytest.raises(RegistryError, match="no bundle of ours"):
        registry.fetch(foreign, tmp_path)
    with pytest.raises(RegistryError, match="no version 99"):
        registry.version(version.name, "99")


def test_the_smoke_test_compares_with_what_was_published(registry, published):
    _, version = published
    other = ModelVersion(version.name, version.version, "f" * 64, "", {})
    with pytest.raises(RegistryError, match="another bundle"):
        registry.smoke_test(other)
