"""Inspection models in the registry: published, compared on unseen parts, promoted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from connectors.defects.comparison import InspectionRules, on_parts
from connectors.defects.inspect.inspector import open_inspector
from connectors.defects.models import edge_model, inspection_registry, model_at
from connectors.promotion import promote
from connectors.registry import RegistryError
from kernels.bundle.folder import BundleError
from tasks.defects.bundle.bundle import write_bundle
from tasks.defects.samples import Sample
from tests.tasks.defects.bright import parts, plate


@pytest.fixture(scope="module")
def registry(mlflow_uri):
    return inspection_registry(mlflow_uri)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Models that see spots, that see the reverse, and one that learnt from the test."""
    folder = tmp_path_factory.mktemp("bundles")
    good = parts(1.0, dataset="line")
    return {
        "sees": write_bundle(folder / "sees", good),
        "blind": write_bundle(folder / "blind", parts(-1.0, dataset="line")),
        "cheat": write_bundle(
            folder / "cheat", parts(dataset="line", learnt=[s.pixels for s in samples()])
        ),
    }


def samples(n=24):
    return [
        Sample(f"{i}.png", plate(100 + i, 200 * (i % 2)), "ng" if i % 2 else "ok", part=f"p{i}")
        for i in range(n)
    ]


def test_a_model_is_published_loads_as_pyfunc_and_is_fetched(registry, bundles, tmp_path):
    import mlflow

    version = registry.publish(bundles["sees"])
    assert version.name == "inspection-line"
    assert registry.smoke_test(version) <= 1e-6
    model = mlflow.pyfunc.load_model(version.uri)
    images = np.stack([np.repeat(plate(5, 220)[:, :, None], 3, axis=2)])
    np.testing.assert_allclose(model.predict(images), bundles["sees"].score(images))
    assert registry.fetch(version, tmp_path).digest == bundles["sees"].digest
    local = Path(mlflow.artifacts.download_artifacts(version.uri, tracking_uri=registry.uri))
    names = {path.name for path in local.rglob("*") if path.is_file()}
    assert {"defects.py", "edge.onnx", "images.csv"} <= names
    assert not any(name.endswith((".pkl", ".pickle", ".pt")) for name in names)


def test_the_better_model_serves_and_a_blind_one_does_not(registry, bundles, tmp_path):
    compare = on_parts(samples())
    blind = promote(registry, bundles["blind"], compare, cache=tmp_path)
    assert not blind.promoted
    assert "AUROC 0.000 against 0.500 of the chance" in blind.reason
    first = promote(registry, bundles["sees"], compare, cache=tmp_path)
    assert first.promoted
    assert "on 12 good and 12 defective parts" in first.reason
    tags = registry.version("inspection-line", first.version).tags
    assert tags["promotion_auroc"] == "1.00000"
    again = promote(registry, bundles["blind"], compare, cache=tmp_path)
    assert not again.promoted
    assert again.serving == first.version
    assert registry.champion("line", tmp_path)[1].digest == bundles["sees"].digest


def test_parts_that_a_model_learnt_from_do_not_count(bundles):
    verdict = on_parts(samples())(bundles["cheat"], bundles["sees"], "1")
    assert not verdict.wins
    assert "0 good parts to compare on; label at least 5" in verdict.reason
    # The spare images of a part go with the one that was learnt from.
    twin = Sample("twin.png", plate(900), "ok", part="p0")
    verdict = on_parts([*samples(), twin])(bundles["cheat"], None, "")
    assert "0 good parts" in verdict.reason
    with pytest.raises(ValueError, match="margin 2"):
        InspectionRules(2)


def test_models_of_cameras_of_other_depths_are_not_compared(bundles, tmp_path):
    deep = write_bundle(tmp_path / "deep", parts(1.0, dataset="line", bits=12))
    verdict = on_parts(samples())(deep, bundles["blind"], "3")
    assert not verdict.wins
    assert "version 3), which judges images of 16 bits; these have 12" in verdict.reason


def test_the_model_of_an_address(bundles, tmp_path, monkeypatch, mlflow_uri):
    folder = bundles["sees"].folder
    assert model_at(str(folder)) == folder
    assert model_at("line.onnx") == edge_model("line.onnx") == Path("line.onnx")
    assert edge_model(str(folder)) == folder / "edge.onnx"
    with pytest.raises(BundleError, match="holds no manifest"):
        open_inspector(tmp_path)
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(mlflow_uri)
    try:
        with pytest.raises(RegistryError, match="penstock defects train FOLDER"):
            model_at("registry:none")
    finally:
        mlflow.set_tracking_uri(before)
