"""Exact SHAP values of a mean of gradient-boosted tree models (LightGBM).

Space: contributions are in log-odds of the raw model output. A head is a mean of models trained
with different seeds; its explanation is the mean of theirs, so for every row

    base + contributions.sum() == mean over models of the raw score (log-odds).

That holds whether the head averages log-odds or probabilities and whatever monotone calibration
follows: signs and the order of reasons are meant for the score, sizes for the log-odds.
Additivity is checked for every row of every model and a gap is an error, never a warning.

Without a background the method is path-dependent TreeSHAP (Lundberg et al. 2020, "From local
explanations to global understanding with explainable AI for trees"): its reference are the training
data's own branch counts. ``kernels.forest`` computes what LightGBM's ``pred_contrib`` does, to the
last digits. With a background it is interventional: what a feature changes against the frozen rows,
so that a feature the model does not test has no part. Either way missing values take the branch
they take in the model, and the score that contributions must add up to is LightGBM's own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.explain.additivity import check_additivity
from tasks.explain.background import Background

if TYPE_CHECKING:
    from kernels.forest import Forest

logger = logging.getLogger(__name__)

Method = Literal["path", "interventional", "mixed"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Contributions of features to the log-odds of some rows.

    Attributes:
        names: Feature names, length F.
        per_model: float64 ``[k, n, F]``: contributions by each of the head's k models.
        base: float64 ``[k]``: log-odds before any feature is known, by model.
        raw_score: float64 ``[n]``: mean log-odds of the rows.
        additivity_gap: Largest ``|base + sum - raw score|`` over rows and models.
        method: ``path`` for trees without a background, ``interventional`` for trees with one and
            for linear models, ``mixed`` for a blend of both.
        background_sha256: Digest of the background; empty for ``path``.
    """

    names: tuple[str, ...]
    per_model: NDArray[np.float64]
    base: NDArray[np.float64]
    raw_score: NDArray[np.float64]
    additivity_gap: float
    method: Method
    background_sha256: str = ""

    @property
    def values(self) -> NDArray[np.float64]:
        """Mean contributions ``[n, F]``."""
        mean: NDArray[np.float64] = self.per_model.mean(axis=0)
        return mean

    @property
    def mean_abs(self) -> NDArray[np.float64]:
        """Mean absolute contribution of every feature over the rows, ``[F]``."""
        if self.per_model.shape[1] == 0:
            return np.zeros(len(self.names))
        mean: NDArray[np.float64] = np.abs(self.values).mean(axis=0)
        return mean


class TreeExplainer:
    """Explains a head that is the mean of LightGBM models.

    >>> from tasks.explain.tree import TreeExplainer
    >>> TreeExplainer.__name__
    'TreeExplainer'
    """

    def __init__(
        self,
        models: Sequence[Any],
        names: Sequence[str],
        *,
        threads: int = 1,
        background: Background | None = None,
    ) -> None:
        """Prepare the models.

        Args:
            models: ``lightgbm.Booster``, fitted ``LGBMClassifier`` or LightGBM model text, mixed
                as they come; each a binary model with one output.
            names: Feature names in the models' order.
            threads: CPU threads of the prediction.
            background: Frozen rows for interventional values; without them values are
                path-dependent.

        Raises:
            ValueError: On no models, a foreign feature count, a model of several classes or a
                background of other features.
        """
        if not models:
            raise ValueError("nothing to explain: the head has no tree models")
        self.names = tuple(names)
        self._boosters = [_booster(model) for model in models]
        self._threads = threads
        for booster in self._boosters:
            if booster.num_feature() != len(self.names):
                raise ValueError(
                    f"model has {booster.num_feature()} features, the feature list "
                    f"{len(self.names)}; explain with the list the model was trained on"
                )
            if booster.num_model_per_iteration() != 1:
                raise ValueError(
                    f"model scores {booster.num_model_per_iteration()} classes, an explanation is "
                    "of one score: train one model for each class against the rest, or explain "
                    "one class by PlayerExplainer"
                )
        if background is not None and background.names != self.names:
            raise ValueError("background holds other features than the model; take its bundle's")
        self._background = background

    def explain(self, values: NDArray[np.floating[Any]]) -> Explanation:
        """Explain rows ``[n, F]``.

        Raises:
            AdditivityError: When contributions miss a raw score by more than is allowed.
            ValueError: On a foreign number of columns, or models that cannot be explained against
                a background (see ``kernels.forest.Forest.interventional``).
        """
        if values.ndim != 2 or values.shape[1] != len(self.names):
            raise ValueError(f"rows of shape {values.shape} do not fit {len(self.names)} features")
        if len(values) == 0:
            # The base is the models' own and known without rows; LightGBM tells it with one.
            per_model, base = self._contributions(np.zeros((1, len(self.names))))
            return self._explanation(per_model[:, :0], base, np.zeros(0), 0.0)
        per_model, base = self._contributions(values)
        raws, gap = [], 0.0
        for booster, contributions, start in zip(self._boosters, per_model, base, strict=True):
            raw = np.asarray(
                booster.predict(values, raw_score=True, num_threads=self._threads), dtype=np.float64
            )
            gap = max(gap, check_additivity(contributions, float(start), raw))
            raws.append(raw)
        return self._explanation(per_model, base, np.mean(raws, axis=0, dtype=np.float64), gap)

    def _contributions(
        self, values: NDArray[np.floating[Any]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return contributions ``[k, n, F]`` and base ``[k]``."""
        if self._forest is not None:
            return self._forest.contributions(values), self._forest.base
        with_base = np.stack(
            [
                np.asarray(b.predict(values, pred_contrib=True, num_threads=self._threads))
                for b in self._boosters
            ]
        ).astype(np.float64)
        return with_base[..., :-1], with_base[:, 0, -1]

    @cached_property
    def _forest(self) -> Forest | None:
        """The models in the forest kernel, a hundred times faster; None where it refuses them.

        Raises:
            ForestError: When it refuses them and there is a background, which LightGBM knows not.
        """
        from kernels.forest import Forest, ForestError, read_model

        try:
            models = [read_model(booster.model_to_string())[0] for booster in self._boosters]
            forest = Forest(models, len(self.names))
            if self._background is None:
                return forest
            return forest.interventional(self._background.values)
        except ForestError as error:
            if self._background is not None:
                raise ForestError(
                    f"the model cannot be explained against a background: {error}; without a "
                    "background its path-dependent values are given"
                ) from error
            logger.info("LightGBM itself explains the model: %s", error)
            return None

    def _explanation(
        self,
        per_model: NDArray[np.float64],
        base: NDArray[np.float64],
        raw: NDArray[np.float64],
        gap: float,
    ) -> Explanation:
        if self._background is None:
            return Explanation(self.names, per_model, base, raw, gap, "path")
        digest = self._background.sha256
        return Explanation(self.names, per_model, base, raw, gap, "interventional", digest)


def _booster(model: Any) -> Any:
    import lightgbm

    if isinstance(model, str):
        return lightgbm.Booster(model_str=model)
    if isinstance(model, lightgbm.Booster):
        return model
    booster = getattr(model, "booster_", None)
    if isinstance(booster, lightgbm.Booster):
        return booster
    raise ValueError(
        f"cannot explain a {type(model).__name__} as trees; pass a LightGBM booster, classifier "
        "or model text"
    )
