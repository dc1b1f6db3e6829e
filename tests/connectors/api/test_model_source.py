"""Models from folders and from the registry: found, verified, refused with a reason."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from connectors.api.model_source import ModelSource
from connectors.api.served_model import ModelError, fallback_heads, same_state
from tasks.fraud.dataset import EntityColumn


def test_a_folder(bundle, tmp_path):
    source = ModelSource(str(bundle.folder), "champion", tmp_path)
    model = source.load()
    assert model.bundle.digest == source.newest() == bundle.digest
    assert model.origin.name == "fraud-demo"
    assert model.heads == ("tabular", "logistic")
    assert not model.needs_mail


def test_a_folder_that_is_damaged_or_absent(bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle.folder, copy)
    (copy / "metrics.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be served"):
        ModelSource(str(copy), "champion", tmp_path).load()
    absent = ModelSource(str(tmp_path / "absent"), "champion", tmp_path)
    assert absent.newest() == ""
    with pytest.raises(ModelError, match="cannot be served"):
        absent.load()


def test_the_registry(bundle, other_bundle, mlflow_uri, tmp_path):
    from connectors.fraud_models import fraud_registry

    source = ModelSource("registry:demo", "champion", tmp_path / "cache", mlflow_uri)
    with pytest.raises(ModelError, match="has no champion"):
        source.load()
    assert source.newest() == ""
    registry = fraud_registry(mlflow_uri)
    first = registry.publish(bundle)
    registry.set_alias(first.name, "champion", first.version)
    model = source.load()
    assert model.bundle.digest == bundle.digest == source.newest()
    assert model.described == {
        "name": "fraud-demo",
        "version": first.version,
        "digest": bundle.digest[:16],
    }
    second = registry.publish(other_bundle)
    registry.set_alias(second.name, "champion", second.version)
    assert source.newest() == other_bundle.digest
    assert source.load().origin.version == second.version


def test_fallbacks_read_features_alone(bundle, other_bundle, graph_bundle):
    assert fallback_heads(graph_bundle) == ("both", "tabular")
    assert fallback_heads(bundle) == ("tabular", "logistic")
    assert fallback_heads(other_bundle) == ("logistic", "tabular")


@pytest.mark.parametrize(
    "change",
    [
        {"entities": (EntityColumn("customer"),)},
        {"label_delay_days": 1.0},
        {"numeric": ("speed",)},
        {"time_unit": "ms"},
        {"amount_unit": "major"},
        {"event_id": "other"},
    ],
)
def test_models_of_other_columns_read_other_state(bundle, change):
    assert same_state(bundle.config, replace(bundle.config, max_quarantine_share=0.5))
    assert not same_state(bundle.config, replace(bundle.config, **change))
