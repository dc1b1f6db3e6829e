"""Out-of-sample probabilities of a table's labels by cross-validation, and labels put right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.cleaning.labels.scores import Floats, Labels

ModelName = Literal["lightgbm", "logistic"]
Effect = Literal["remove", "relabel"]


@dataclass(frozen=True, slots=True)
class OutOfSample:
    """What cross-validation says about every label.

    Attributes:
        labels: Class numbers [N].
        classes: Name of every class [K], sorted.
        probabilities: Of the model that did not see the row [N, K].
        fold: Which fold held the row out [N].
    """

    labels: Labels
    classes: tuple[str, ...]
    probabilities: Floats
    fold: Labels


def _lightgbm(seed: int) -> Any:
    from lightgbm import LGBMClassifier

    # Few leaves and slow growth: a model that follows single labels hides the wrong ones.
    return LGBMClassifier(
        n_estimators=100, learning_rate=0.1, num_leaves=15, min_child_samples=20, reg_lambda=1.0,
        random_state=seed, deterministic=True, force_row_wise=True, n_jobs=1, verbose=-1,
    )  # fmt: skip


def _logistic(seed: int) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # A column without any value stays, as zeros, so that all folds have the same columns.
    fill = SimpleImputer(strategy="median", keep_empty_features=True)
    return make_pipeline(
        fill, StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed)
    )


MODELS: Mapping[str, Callable[[int], Any]] = {"lightgbm": _lightgbm, "logistic": _logistic}
"""Name -> classifier of scikit-learn's kind for a seed; both take missing values (NaN)."""


def out_of_sample(
    features: ArrayLike,
    labels: Sequence[str],
    *,
    model: ModelName = "lightgbm",
    folds: int = 5,
    seed: int = 0,
) -> OutOfSample:
    """Return every label's class probabilities by a model that did not see its row.

    Folds are stratified and shuffled by ``seed``; the same arguments give the same result.

    Args:
        features: Numbers [N, F]; NaN where missing.
        labels: Given labels as texts [N].
        model: A name of ``MODELS``.
        folds: How many models are trained.
        seed: Of the folds and of the model.

    Raises:
        ValueError: Shapes do not fit, fewer than two classes, a class has fewer rows than there
            are folds, or the model is unknown.
    """
    from sklearn.model_selection import StratifiedKFold

    x = np.asarray(features, dtype=np.float64)
    if model not in MODELS:
        raise ValueError(f"no model {model!r}; there are {', '.join(MODELS)}")
    if x.ndim != 2 or len(x) != len(labels):
        raise ValueError(f"features {x.shape} must be [rows, columns] of {len(labels)} labels")
    classes, y, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"labels need at least two classes, there are {len(classes)}")
    if folds < 2 or counts.min() < folds:
        raise ValueError(
            f"class {str(classes[counts.argmin()])!r} has {counts.min()} rows, {folds} folds need "
            "as many of every class and at least two folds; use fewer folds or leave it out"
        )
    probabilities = np.zeros((len(y), len(classes)))
    fold = np.zeros(len(y), dtype=np.int64)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y)
    for number, (train, held) in enumerate(splits):
        fitted = MODELS[model](seed).fit(x[train], y[train])
        probabilities[held] = _probabilities(fitted, x[held])
        fold[held] = number
    return OutOfSample(y.astype(np.int64), tuple(map(str, classes)), probabilities, fold)


def _probabilities(fitted: Any, x: Floats) -> Floats:
    """Return a fitted model's class probabilities [N, K]."""
    return np.asarray(fitted.predict_proba(x), dtype=np.float64)


def accuracy_after(
    train: tuple[Floats, Labels],
    test: tuple[Floats, Labels],
    rows: NDArray[np.int64],
    suggestion: Labels,
    *,
    effect: Effect | None,
    model: ModelName = "lightgbm",
    seed: int = 0,
) -> float:
    """Return the accuracy on clean test labels of a model trained after removing or relabelling.

    Args:
        train: Features [N, F] and given labels [N].
        test: Features [M, F] and clean labels [M].
        rows: Training rows that are removed or relabelled.
        suggestion: New label of each of ``rows``; unused where they are removed.
        effect: What is done with ``rows``; None trains on everything as given.
        model: A name of ``MODELS``.
        seed: Of the model.
    """
    x, y = train[0], train[1].copy()
    kept = np.ones(len(y), dtype=bool)
    if effect == "remove":
        kept[rows] = False
    elif effect == "relabel":
        y[rows] = suggestion
    fitted = MODELS[model](seed).fit(x[kept], y[kept])
    return float((np.asarray(fitted.predict(test[0])) == test[1]).mean())
