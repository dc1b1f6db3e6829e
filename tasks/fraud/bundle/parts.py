"""What training hands over to be written as a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.fraud.bundle.embeddings import Embeddings
from tasks.fraud.dataset import DatasetConfig


@dataclass(frozen=True, slots=True)
class BundleParts:
    """What training hands over to be written as a bundle.

    Attributes:
        config: Dataset config.
        feature_names: Names of the feature columns, in order, length F.
        features_version: Version of the feature definition.
        heads: Head name -> serialised ONNX graph.
        active: The head that scores.
        thresholds: JSON-able thresholds.
        metrics: JSON-able figures with intervals.
        background: float32 ``[b, F]`` rows for SHAP.
        example: Inputs by name (``features`` ...), a few rows each.
        trained_until: Newest event time learnt from, epoch milliseconds.
        data_digest: SHA-256 of the input file.
        git_commit: Commit of the code.
        embeddings: Entity embeddings, empty without a graph part.
        background_signals: float32 ``[b, H]``, what the network told the trees about these rows.
        categories: Categorical column -> known values, in code order.
        extras: File name -> bytes of further data files.
    """

    config: DatasetConfig
    feature_names: tuple[str, ...]
    features_version: int
    heads: Mapping[str, bytes]
    active: str
    thresholds: Mapping[str, Any]
    metrics: Mapping[str, Any]
    background: NDArray[np.float32]
    example: Mapping[str, NDArray[Any]]
    trained_until: int
    data_digest: str
    git_commit: str = "unknown"
    embeddings: Embeddings = field(default_factory=Embeddings)
    background_signals: NDArray[np.float32] | None = None
    categories: Mapping[str, list[str]] = field(default_factory=dict)
    extras: Mapping[str, bytes] = field(default_factory=dict)
