"""Inspection models in the registry: what a bundle's version notes, how MLflow scores with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from connectors import model_scripts
from connectors.registry import BundleFacts, BundleKind, Registry
from infra.settings import get_settings
from tasks.defects.bundle.bundle import EDGE, SCORE_TOLERANCE, DefectBundle

REGISTRY = "registry:"


def inspection_registry(uri: str = "") -> Registry[DefectBundle]:
    """Return the registry of inspection models; ``uri`` empty: ``MLFLOW_TRACKING_URI``."""
    return Registry(INSPECTION, uri)


def model_at(address: str) -> Path:
    """Return where a model lies, as `open_inspector` takes it.

    Args:
        address: An edge file, a bundle's folder, or ``registry:LINE`` for the serving model.

    Raises:
        RegistryError: When no model of the line serves.
    """
    if address.startswith(REGISTRY):
        line = address.removeprefix(REGISTRY)
        _, bundle = inspection_registry().champion(line, get_settings().home / "models")
        return bundle.folder
    return Path(address)


def edge_model(address: str) -> Path:
    """Return the edge file of a model; as `model_at`.

    Raises:
        RegistryError: When no model of the line serves.
        BundleError: When a folder is no bundle.
    """
    path = model_at(address)
    return DefectBundle.load(path).folder / EDGE if path.is_dir() else path


def _load(folder: Path, digest: str) -> DefectBundle:
    return DefectBundle.load(folder, digest=digest)


def _facts(bundle: DefectBundle) -> BundleFacts:
    manifest = bundle.manifest
    limits = bundle.thresholds
    return BundleFacts(
        dataset=manifest.dataset,
        data_digest=manifest.data_digest,
        git_commit=manifest.git_commit,
        tags={"ok_below": f"{limits.ok_below:.6g}", "ng_from": f"{limits.ng_from:.6g}"},
    )


def _signature(bundle: DefectBundle) -> Any:
    import numpy as np
    from mlflow.models.signature import ModelSignature
    from mlflow.types import Schema, TensorSpec

    del bundle
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
        outputs=Schema([TensorSpec(np.dtype(np.float64), (-1,))]),
    )


INSPECTION: BundleKind[DefectBundle] = BundleKind(
    prefix="inspection",
    script=Path(model_scripts.__file__).parent / "defects.py",
    requirements=("mlflow", "numpy", "onnxruntime"),
    load=_load,
    facts=_facts,
    example=DefectBundle.example,
    signature=_signature,
    tolerance=SCORE_TOLERANCE,
    train="penstock defects train FOLDER",
)
