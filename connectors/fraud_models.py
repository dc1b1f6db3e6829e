"""Fraud models in the registry: what a bundle's version notes, and how MLflow scores with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from connectors.registry import BundleFacts, BundleKind, Registry
from tasks.fraud.bundle import SCORE_TOLERANCE, Bundle


def fraud_registry(uri: str = "") -> Registry[Bundle]:
    """Return the registry of fraud models; ``uri`` empty: ``MLFLOW_TRACKING_URI``."""
    return Registry(FRAUD, uri)


def _load(folder: Path, digest: str) -> Bundle:
    return Bundle.load(folder, digest=digest)


def _facts(bundle: Bundle) -> BundleFacts:
    manifest = bundle.manifest
    return BundleFacts(
        dataset=manifest.dataset,
        data_digest=manifest.data_digest,
        git_commit=manifest.git_commit,
        tags={"active_head": manifest.active, "trained_until": str(manifest.trained_until)},
    )


def _signature(bundle: Bundle) -> Any:
    from mlflow.models.signature import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    inputs, scores = bundle.example()
    return ModelSignature(
        inputs=Schema([TensorSpec(v.dtype, (-1, *v.shape[1:]), k) for k, v in inputs.items()]),
        outputs=Schema([TensorSpec(scores.dtype, (-1,))]),
        params=ParamSchema([ParamSpec("head", DataType.string, "")]),
    )


FRAUD: BundleKind[Bundle] = BundleKind(
    prefix="fraud",
    script=Path(__file__).parent / "model_scripts" / "fraud.py",
    requirements=("mlflow", "numpy", "onnx", "onnxruntime"),
    load=_load,
    facts=_facts,
    example=Bundle.example,
    signature=_signature,
    tolerance=SCORE_TOLERANCE,
    train="penstock fraud train DATA",
)
