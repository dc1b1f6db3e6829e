"""The last part of a head, fast: trees by the forest kernel, linear models in closed form.

A part turns what a head reads into log-odds, and says how much each input added to them. It is
built from a head's JSON form (``tasks.fraud.heads.files``) without LightGBM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from kernels.forest import Forest
    from tasks.fraud.heads.logistic import LogisticScorer

Inputs = NDArray[np.float32]
Reals = NDArray[np.float64]


class RowExplanation(NamedTuple):
    """Why one row has its log-odds: ``base + contributions.sum() / K`` is the log-odds.

    Attributes:
        logit: Log-odds before calibration.
        base: Log-odds before any input is known, mean over the models.
        contributions: float64 [K, W], log-odds each input added, by model.
    """

    logit: float
    base: float
    contributions: Reals


Engine = Literal["forest", "linear", "onnx"]


class Part(Protocol):
    """What scores rows of W inputs.

    Attributes:
        engine: What computes.
    """

    engine: Engine

    def logit(self, x: Inputs) -> Reals:
        """Return log-odds [n] of rows [n, W]."""

    def logit_of_row(self, row: Inputs) -> float:
        """Return the log-odds of one row [W]."""

    def explain_row(self, row: Inputs) -> RowExplanation:
        """Explain one row [W]."""


class ForestPart:
    """Mean log-odds of tree models.

    Attributes:
        engine: ``forest``.
        forest: The models, compiled.
    """

    engine: Engine = "forest"

    def __init__(self, forest: Forest) -> None:
        self.forest = forest
        self._base = float(forest.base.mean())

    def logit(self, x: Inputs) -> Reals:
        """Return log-odds [n]."""
        return self.forest.score(x) / self.forest.models

    def logit_of_row(self, row: Inputs) -> float:
        """Return the log-odds of one row, the same number as ``logit`` gives it."""
        return self.forest.score_row(row) / self.forest.models

    def explain_row(self, row: Inputs) -> RowExplanation:
        """Return exact path-dependent SHAP values of one row."""
        score, contributions = self.forest.explain_row(row)
        return RowExplanation(score / self.forest.models, self._base, contributions)


class LinearPart:
    """A logistic regression, explained against the mean of the background.

    Attributes:
        engine: ``linear``.
    """

    engine: Engine = "linear"

    def __init__(self, scorer: LogisticScorer, background: Inputs) -> None:
        """Encode the background.

        Args:
            scorer: The model.
            background: float32 [b, W], frozen training rows.
        """
        self._scorer = scorer
        self._mean = scorer.encode(background).mean(axis=0)
        self._base = float(self._mean @ scorer.weights + scorer.bias)
        hinges = scorer.scaling.outputs // scorer.width - 1
        features = np.arange(scorer.width)
        self._owner = np.concatenate([features, np.repeat(features, hinges)])

    def logit(self, x: Inputs) -> Reals:
        """Return log-odds [n]."""
        return self._scorer.logit(x)

    def logit_of_row(self, row: Inputs) -> float:
        """Return the log-odds of one row."""
        return float(self._scorer.logit(row[None])[0])

    def explain_row(self, row: Inputs) -> RowExplanation:
        """Return the interventional SHAP values of one row; they need no sampling."""
        encoded = self._scorer.encode(row[None])[0]
        terms = (encoded - self._mean) * self._scorer.weights
        values: Reals = np.bincount(self._owner, terms, self._scorer.width).astype(np.float64)
        logit = float(encoded @ self._scorer.weights + self._scorer.bias)
        return RowExplanation(logit, self._base, values[None])


def forest_part(stored: Mapping[str, Any], width: int) -> ForestPart:
    """Build the trees of a head from its JSON form.

    Args:
        stored: Scorer of kind ``trees`` from ``head_to_dict``.
        width: Inputs W the head must read.

    Raises:
        ForestError: On models of another width, or of a kind that the kernel does not read.
    """
    from kernels.forest import Forest, ForestError, read_model

    models = [read_model(text) for text in stored["models"]]
    for _, found in models:
        if found != width:
            raise ForestError(f"a tree model reads {found} inputs, the bundle gives {width}")
    return ForestPart(Forest([trees for trees, _ in models], width))
