"""Heads as plain JSON data, so that they can be explained, encrypted or grown again later.

ONNX is what scores; this is what a person or another room reads: LightGBM's text, the weights of
linear parts and of the small network, the calibration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from tasks.fraud.heads.calibration import Calibration
from tasks.fraud.heads.head import Blend, Head, HeadError, Scorer
from tasks.fraud.heads.logistic import LogisticScorer
from tasks.fraud.heads.mlp import MlpScorer
from tasks.fraud.heads.scaling import Scaling
from tasks.fraud.heads.trees import TreeScorer


def head_to_dict(head: Head) -> dict[str, Any]:
    """Return a head as JSON data.

    Raises:
        HeadError: On a scorer that has no such form.
    """
    return {"calibration": asdict(head.calibration), "scorer": _scorer_to_dict(head.scorer)}


def head_from_dict(data: Mapping[str, Any]) -> Head:
    """Rebuild a head from ``head_to_dict``.

    Raises:
        HeadError: On unknown kinds or missing fields.
    """
    try:
        return Head(_scorer_from_dict(data["scorer"]), Calibration(**data["calibration"]))
    except (KeyError, TypeError) as error:
        raise HeadError(f"stored head lacks {error}") from error


def _scorer_to_dict(scorer: Scorer) -> dict[str, Any]:
    if isinstance(scorer, TreeScorer):
        return {"kind": "trees", "models": list(scorer.to_text())}
    if isinstance(scorer, LogisticScorer):
        weights = {"weights": scorer.weights.tolist(), "bias": scorer.bias}
        return {"kind": "logistic", **_scaling_to_dict(scorer.scaling), **weights}
    if isinstance(scorer, MlpScorer):
        layers = [{"weight": w.tolist(), "bias": b.tolist()} for w, b in scorer.layers]
        return {"kind": "mlp", **_scaling_to_dict(scorer.scaling), "layers": layers}
    if isinstance(scorer, Blend):
        parts = [_scorer_to_dict(part) for part in scorer.parts]
        return {"kind": "blend", "parts": parts, "weights": list(scorer.weights)}
    raise HeadError(f"{type(scorer).__name__} has no JSON form; add one beside those of its kind")


def _scorer_from_dict(data: Mapping[str, Any]) -> Scorer:
    kind = data["kind"]
    if kind == "trees":
        return TreeScorer.from_text(data["models"])
    if kind == "logistic":
        weights = np.asarray(data["weights"])
        return LogisticScorer(_scaling_from_dict(data), weights, float(data["bias"]))
    if kind == "mlp":
        layers = ((np.asarray(v["weight"]), np.asarray(v["bias"])) for v in data["layers"])
        return MlpScorer(_scaling_from_dict(data), tuple(layers))
    if kind == "blend":
        parts = tuple(_scorer_from_dict(part) for part in data["parts"])
        return Blend(parts, tuple(data["weights"]))
    raise HeadError(f"stored scorer of unknown kind {kind!r}")


def _scaling_to_dict(scaling: Scaling) -> dict[str, Any]:
    arrays = {"mean": scaling.mean, "scale": scaling.scale, "knots": scaling.knots}
    return {name: values.tolist() for name, values in arrays.items()}


def _scaling_from_dict(data: Mapping[str, Any]) -> Scaling:
    mean = np.asarray(data["mean"])
    knots = np.asarray(data["knots"]).reshape(len(mean), -1)
    return Scaling(mean, np.asarray(data["scale"]), knots)
