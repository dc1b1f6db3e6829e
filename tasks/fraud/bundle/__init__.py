"""The model bundle: one folder with everything a scorer needs and nothing that can run code.

========================  ===================================================================
``manifest.json``         active head, data digest, commit, size and SHA-256 of every file
``heads/*.onnx``          ``both``, ``tabular``, ``mlp``, ``logistic``; calibrated probabilities
``embeddings.npz``        entity embeddings by kind, with a cold-start default (graph models only)
``dataset.json``          the dataset config the model was trained with
``features.json``         feature names in order, their version, known categories
``thresholds.json``       scores at which to alert
``background.npz``        rows against which SHAP explains
``example.npz``           a few inputs and their scores: what a loaded copy must reproduce
``metrics.json``          figures by fold, with intervals
``MODEL_CARD.md``         the same for people
========================  ===================================================================

Further data files (network weights as safetensors, trees as text) may lie beside them.
"""

from __future__ import annotations

from tasks.fraud.bundle.bundle import SCORE_TOLERANCE, Bundle, write_bundle
from tasks.fraud.bundle.parts import BundleParts

__all__ = ["SCORE_TOLERANCE", "Bundle", "BundleParts", "write_bundle"]
