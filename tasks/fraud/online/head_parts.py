"""The last part of a head, fast: trees by the forest kernel, linear models in closed form.

A part turns what a head reads into log-odds, and says how much each input added to them. It is
built from a head's JSON form (``tasks.fraud.heads.files``) without LightGBM.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.explain.background import Background
from tasks.explain.tree import Method

if TYPE_CHECKING:
    from kernels.forest import Forest, InterventionalForest
    from tasks.fraud.heads.logistic import LogisticScorer

logger = logging.getLogger(__name__)

Inputs = NDArray[np.float32]
Reals = NDArray[np.float64]

REPLICATES = 40
"""Half samples of the background that errors come from, of all models together: an error is then
itself uncertain by a ninth."""

WALKED_ROWS = 16
"""Most background rows that the errors of trees without tables are a mean over."""

_ROOM = 512 * 2**20
"""Bytes for tables that are dropped once the errors are known."""


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
        method: What contributions compare a row with.
        background: Frozen training rows they compare with; None for ``path``.
        models: Number of models K.
        covariance: float64 [W, W], covariance of what inputs add to a row over backgrounds of the
            same size, mean over the background rows; zeros for ``path``.
    """

    engine: Engine
    models: int

    @property
    def method(self) -> Method:
        """See above."""

    @property
    def background(self) -> Background | None:
        """See above."""

    @property
    def covariance(self) -> Reals:
        """See above."""

    def logit(self, x: Inputs) -> Reals:
        """Return log-odds [n] of rows [n, W]."""

    def logit_of_row(self, row: Inputs) -> float:
        """Return the log-odds of one row [W]."""

    def explain_row(self, row: Inputs) -> RowExplanation:
        """Explain one row [W]."""


class ForestPart:
    """Mean log-odds of tree models, explained against a background.

    What explanations need is made with the first one, some 1 s for a thousand trees.

    Attributes:
        engine: ``forest``.
        method: ``interventional``; ``path`` without a background, or where the trees cannot be
            explained against one (``kernels.forest.Forest.interventional``), which is logged.
        background: The background; None for ``path``.
        models: Number of models K.
        covariance: See ``Part``.
        forest: The models, compiled.
    """

    engine: Engine = "forest"

    def __init__(self, forest: Forest, background: Background | None) -> None:
        """Take the trees."""
        self.forest, self.models = forest, forest.models
        self._given = background

    @cached_property
    def _against(self) -> InterventionalForest | None:
        return None if self._given is None else _against(self.forest, self._given)

    @property
    def method(self) -> Method:
        """What contributions compare a row with."""
        return "path" if self._against is None else "interventional"

    @property
    def background(self) -> Background | None:
        """The background; None for ``path``."""
        return None if self._against is None else self._given

    @cached_property
    def covariance(self) -> Reals:
        """See ``Part``."""
        if self.background is None or len(self.background.values) < 2:
            return np.zeros((self.forest.n_features, self.forest.n_features))
        return _redraw_covariance(self.forest, self.background.values)

    @cached_property
    def _base(self) -> float:
        return float((self._against or self.forest).base.mean())

    def logit(self, x: Inputs) -> Reals:
        """Return log-odds [n]."""
        return self.forest.score(x) / self.forest.models

    def logit_of_row(self, row: Inputs) -> float:
        """Return the log-odds of one row, the same number as ``logit`` gives it."""
        return self.forest.score_row(row) / self.forest.models

    def explain_row(self, row: Inputs) -> RowExplanation:
        """Return exact SHAP values of one row."""
        explained = self._against or self.forest
        score, contributions = explained.explain_row(row)
        return RowExplanation(score / self.models, self._base, contributions)


class LinearPart:
    """A logistic regression, explained against the mean of the background.

    Attributes:
        engine: ``linear``.
        method: ``interventional``.
        background: The background.
        models: 1.
        covariance: See ``Part``; for a linear model it is that of every row.
    """

    engine: Engine = "linear"
    method: Method = "interventional"
    models = 1

    def __init__(self, scorer: LogisticScorer, background: Background) -> None:
        """Encode the background."""
        self._scorer = scorer
        self.background: Background | None = background
        encoded = scorer.encode(background.values)
        self._mean = encoded.mean(axis=0)
        self._base = float(self._mean @ scorer.weights + scorer.bias)
        hinges = scorer.scaling.outputs // scorer.width - 1
        features = np.arange(scorer.width)
        self._owner = np.concatenate([features, np.repeat(features, hinges)])
        each = np.zeros((len(encoded), scorer.width))
        np.add.at(each.T, self._owner, ((encoded - self._mean) * scorer.weights).T)
        self.covariance: Reals = each.T @ each / (len(each) * max(len(each) - 1, 1))

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


def _against(forest: Forest, background: Background) -> InterventionalForest | None:
    """Return the forest against the background; None where it refuses, which is logged."""
    from kernels.forest import ForestError

    try:
        return forest.interventional(background.values)
    except ForestError as error:
        logger.warning("reasons compare with branch counts, not with the background: %s", error)
        return None


def _redraw_covariance(forest: Forest, background: Inputs) -> Reals:
    """Return the covariance of contributions over backgrounds, mean over the background rows.

    What another background adds to a row hardly depends on the row: exactly so for sums of one
    feature's functions, within some tens of percent for the fraud trees. So it is told once at
    loading, and costs a request nothing. Trees too large for tables take up to a second a row, and
    few rows serve. Zeros, and a line in the log, where they find no room at all.
    """
    from kernels.forest import ForestError

    width = forest.n_features
    covariance: Reals = np.zeros((width, width))
    replicates = -(-REPLICATES // forest.models)
    try:
        against = forest.interventional(background, table_bytes=_ROOM, replicates=replicates)
    except ForestError as error:
        logger.warning("errors of reasons leave out what another background would do: %s", error)
        return covariance
    tabulated = against.tabulated == against.trees
    rows = background if tabulated else background[:: -(-len(background) // WALKED_ROWS)]
    for row in rows:
        found = against.explain_row_with_replicates(row)[2]
        covariance += found.T @ found
    return covariance / len(rows)


def forest_part(stored: Mapping[str, Any], width: int, background: Background | None) -> ForestPart:
    """Build the trees of a head from its JSON form.

    Args:
        stored: Scorer of kind ``trees`` from ``head_to_dict``.
        width: Inputs W the head must read.
        background: What contributions compare with; None: the trees' own branch counts.

    Raises:
        ForestError: On models of another width, or of a kind that the kernel does not read.
    """
    from kernels.forest import Forest, ForestError, read_model

    models = [read_model(text) for text in stored["models"]]
    for _, found in models:
        if found != width:
            raise ForestError(f"a tree model reads {found} inputs, the bundle gives {width}")
    return ForestPart(Forest([trees for trees, _ in models], width), background)
