"""The logistic head of a fraud bundle as a model that can be scored encrypted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from connectors.api.rules import default_rules
from kernels.bundle.folder import BundleError
from tasks.fraud.bundle import Bundle
from tasks.fraud.heads.calibration import Calibration
from tasks.fraud.heads.files import head_from_dict
from tasks.fraud.heads.logistic import LogisticScorer
from tasks.fraud.heads.scaling import LIMIT, Scaling
from tasks.privacy.encoding import Encoding
from tasks.privacy.model import ModelError, PrivateModel, linear_model
from tasks.privacy.readout import Readout

HEAD = "logistic"


def logistic_model(folder: Path) -> tuple[PrivateModel, NDArray[np.float64]]:
    """Return the model and rows to compile it with.

    Args:
        folder: Of the bundle. Its ``review`` and ``block`` thresholds become the bands.

    Raises:
        BundleError: When the bundle cannot be read.
        ModelError: When it has no logistic head.
    """
    bundle = Bundle.load(folder)
    stored = json.loads(bundle.read_extra("heads.json"))
    if HEAD not in stored:
        raise ModelError(f"{folder} has no head {HEAD!r}; it has {', '.join(sorted(stored))}")
    head = head_from_dict(stored[HEAD])
    if not isinstance(head.scorer, LogisticScorer):
        raise BundleError(f"{folder}: head {HEAD!r} of heads.json is of another kind")
    rules = default_rules(bundle.thresholds, bundle.digest)
    bands = (("review", rules.review_at), ("block", rules.block_at))
    model = linear_model(
        encoding_of(head.scorer.scaling, bundle.feature_names),
        head.scorer.weights,
        head.scorer.bias,
        readout_of(head.calibration, tuple(band for band in bands if band[1] <= 1)),
    )
    return model, bundle.background().astype(np.float64)


def encoding_of(scaling: Scaling, columns: tuple[str, ...]) -> Encoding:
    """Return the encoding of a head's features, done by the owner."""
    return Encoding(
        columns,
        scaling.mean,
        scaling.scale,
        np.full(len(columns), LIMIT),
        scaling.knots,
        signed_log=True,
        beyond="clip",
    )


def readout_of(calibration: Calibration, bands: tuple[tuple[str, float], ...]) -> Readout:
    """Return what the owner makes of a head's log-odds."""
    return Readout(
        a=calibration.a,
        b=calibration.b,
        c=calibration.c,
        floor=calibration.floor,
        thresholds=bands,
    )
