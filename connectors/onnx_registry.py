"""Registers an ONNX file as a model of MLflow's own ONNX kind, which any of its clients loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.model_server.addresses import valid_name
from connectors.registry_client import (
    DIGEST_TAG,
    ModelVersion,
    RegistryClient,
    RegistryError,
    pinned,
)

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

REQUIREMENTS = ("mlflow", "onnx", "onnxruntime")


def publish_onnx(
    path: Path, name: str, *, run_id: str, tags: Mapping[str, str], uri: str = ""
) -> ModelVersion:
    """Upload a file as a new version of a model.

    Args:
        path: Self-contained ONNX file.
        name: Of the registered model.
        run_id: Run that made it, whose status stays as it is.
        tags: Of the version.
        uri: Tracking URI; empty: ``MLFLOW_TRACKING_URI``.
    """
    import mlflow.onnx
    import onnx

    from connectors.tracking import resumed_run

    registry = RegistryClient(uri)
    model = onnx.load_model(path)
    with resumed_run(run_id, uri=registry.uri) as run:
        version = registry.log(
            run,
            mlflow.onnx,
            name,
            onnx_model=model,
            signature=_signature(model),
            pip_requirements=pinned(REQUIREMENTS),
            save_as_external_data=False,
        )
    return registry.tag(version, tags)


def check_name(name: str, uri: str = "") -> None:
    """Refuse a name that a file cannot be registered under, before it is made.

    Raises:
        RegistryError: It could not be served, or bundles are registered under it.
    """
    if not valid_name(name):
        raise RegistryError(
            f"{name!r} cannot be the name of a registered model; give --name of letters, digits, "
            "dots, dashes and underscores"
        )
    registry = RegistryClient(uri)
    versions = registry.client.search_model_versions(f"name='{name}'", max_results=1)
    if any(DIGEST_TAG in version.tags for version in versions):
        raise RegistryError(f"{name} has bundles as versions; give another --name")


def _signature(model: Any) -> ModelSignature:
    """Return names, types and sizes of inputs and outputs; -1 where a size is free."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec
    from onnx.helper import tensor_dtype_to_np_dtype

    def schema(values: Iterable[Any]) -> Schema:
        types = ((value.name, value.type.tensor_type) for value in values)
        return Schema(
            [
                TensorSpec(
                    tensor_dtype_to_np_dtype(each.elem_type),
                    tuple(size.dim_value or -1 for size in each.shape.dim),
                    name,
                )
                for name, each in types
            ]
        )

    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = (value for value in model.graph.input if value.name not in constants)
    return ModelSignature(schema(inputs), schema(model.graph.output))
