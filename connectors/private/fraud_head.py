"""A head of a fraud bundle as a model that can be scored encrypted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from connectors.api.rules import default_rules
from tasks.fraud.bundle import Bundle
from tasks.fraud.heads.calibration import Calibration
from tasks.fraud.heads.files import head_from_dict
from tasks.fraud.heads.logistic import LogisticScorer
from tasks.fraud.heads.scaling import LIMIT, Scaling
from tasks.fraud.heads.trees import TreeScorer
from tasks.privacy.encoding import Encoding
from tasks.privacy.model import ModelError, PrivateModel, linear_model
from tasks.privacy.readout import Readout
from tasks.privacy.trees import tree_model

LOGISTIC = "logistic"


def head_model(folder: Path, name: str = LOGISTIC) -> tuple[PrivateModel, NDArray[np.float64]]:
    """Return a head as a model, and rows to compile it with.

    Args:
        folder: Of the bundle. Its ``review`` and ``block`` thresholds become the bands.
        name: Of a head of linear or tree models over the features.

    Raises:
        BundleError: When the bundle cannot be read.
        ModelError: When it has no such head, or one of another kind.
    """
    bundle = Bundle.load(folder)
    stored = json.loads(bundle.read_extra("heads.json"))
    if name not in stored:
        raise ModelError(f"{folder} has no head {name!r}; it has {', '.join(sorted(stored))}")
    head, features = head_from_dict(stored[name]), bundle.feature_names
    rules = default_rules(bundle.thresholds, bundle.digest)
    bands = (("review", rules.review_at), ("block", rules.block_at))
    readout = readout_of(head.calibration, tuple(band for band in bands if band[1] <= 1))
    background = bundle.background().astype(np.float64)
    if isinstance(head.scorer, LogisticScorer):
        encoding = encoding_of(head.scorer.scaling, features)
        return linear_model(encoding, head.scorer.weights, head.scorer.bias, readout), background
    if not isinstance(head.scorer, TreeScorer) or head.scorer.width != len(features):
        raise ModelError(
            f"head {name!r} of {folder} is no linear model and no trees over the {len(features)}"
            " features; choose another, or distil it (tasks.privacy.distil)"
        )
    model = trees_of(head.scorer, features, readout)
    return model, background[:, [features.index(column) for column in model.encoding.columns]]


def trees_of(scorer: TreeScorer, columns: Sequence[str], readout: Readout) -> PrivateModel:
    """Return the mean of a head's tree models, its splits published.

    Args:
        scorer: The trees.
        columns: Names of all columns that they may read.
        readout: What the score means.
    """
    from kernels.forest import read_model

    trees = [tree for text in scorer.to_text() for tree in read_model(text)[0]]
    return tree_model(trees, columns, models=len(scorer.boosters), readout=readout)


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
