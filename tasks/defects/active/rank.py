"""Which images to label next: first typical ones of every kind, then those that types part over.

With few labels a classifier knows too little to know what it does not know, and typical images of
parts of the feature space that have no label yet teach most (TypiClust: Hacohen, Dekel and
Weinshall, ICML 2022). Later the most uncertain images do, spread over the feature space so that
a batch does not ask the same thing many times (Zhdanov, arXiv 1901.05954).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.defects.active.coverage import spread_out, typical

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Why = Literal["typical", "unsure"]


@dataclass(frozen=True, slots=True)
class RankConfig:
    """How images are ranked.

    Attributes:
        start: Labels up to which typical images are asked for, uncertain ones then; 0 where the
            probabilities are of a classifier that was trained before.
        uncertainty: ``entropy`` of the types' probabilities, or ``margin`` between the first two.
        balance: How far types with few labels count more, 0 (not at all) to 1.
        candidates: The batch is spread over so many times as many of the most uncertain images.
    """

    start: int = 10
    uncertainty: Literal["entropy", "margin"] = "entropy"
    balance: float = 0.5
    candidates: int = 4

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.start < 0 or self.candidates < 1:
            raise ValueError(f"start must be at least 0, candidates at least 1, got {self}")
        if self.uncertainty not in ("entropy", "margin"):
            raise ValueError(f"uncertainty is {self.uncertainty!r}; give entropy or margin")
        if not 0 <= self.balance <= 1:
            raise ValueError(f"balance is {self.balance}; it must lie in 0 to 1")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an image is asked for.

    Attributes:
        why: ``typical`` of images nobody labelled, or ``unsure`` of its type.
        types: The two likeliest types, empty for a typical one.
        odds: Their probabilities.
    """

    why: Why
    types: tuple[int, ...] = ()
    odds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranking:
    """Images in the order in which to label them.

    Attributes:
        order: int64 [at most batch] their places.
        reasons: Of each.
    """

    order: Ints
    reasons: tuple[Reason, ...]


def rank(
    features: Floats,
    probabilities: Floats | None,
    labelled: Ints,
    batch: int,
    config: RankConfig | None = None,
    *,
    groups: Ints | None = None,
    counts: Ints | None = None,
    priors: Floats | None = None,
) -> Ranking:
    """Return the images to label next.

    Args:
        features: float64 [n, d], scaled so that distances mean something.
        probabilities: float64 [n, types] of a classifier whose types all count alike; None while
            there is none, and all of the batch are typical images.
        labelled: Places of the images that have labels, or that nobody could tell.
        batch: How many to return; fewer where fewer are left.
        config: How they are ranked.
        groups: int64 [n], equal for near-duplicates: of a group one image is asked for, none once
            one has a label.
        counts: int64 [types] labels of each type, for ``balance``; None where not known.
        priors: float64 [types] share of each type on the line, where it is known.

    Raises:
        ValueError: When shapes do not fit, or a number is not finite.
    """
    config = config or RankConfig()
    _check(features, probabilities, labelled, groups, counts, priors)
    groups = np.arange(len(features)) if groups is None else groups
    free = ~np.isin(groups, groups[labelled])
    # Of the copies that are left the first one stands for all.
    first = np.zeros(len(features), np.bool_)
    first[np.unique(groups, return_index=True)[1]] = True
    free &= first
    batch = min(batch, int(free.sum()))
    if batch < 1:
        return Ranking(np.zeros(0, np.int64), ())
    calm = batch
    if probabilities is not None:
        calm = min(batch, max(config.start - len(labelled), 0))
    order = typical(features, labelled, free, calm)
    reasons = [Reason("typical")] * len(order)
    if probabilities is not None and len(order) < batch:
        odds = _with_priors(probabilities, priors)
        doubt = uncertainty(odds, config.uncertainty) * _rarity(odds, counts, config.balance)
        free[order] = False
        places = np.flatnonzero(free)
        some = places[np.argsort(-doubt[places], kind="stable")]
        some = some[: config.candidates * (batch - len(order))]
        more = some[spread_out(features[some], doubt[some], batch - len(order))]
        more = more[np.argsort(-doubt[more], kind="stable")]
        order = np.concatenate([order, more])
        reasons += [_unsure(odds[place]) for place in more]
    return Ranking(order, tuple(reasons))


def uncertainty(probabilities: Floats, by: Literal["entropy", "margin"] = "entropy") -> Floats:
    """Return how uncertain each row [n, types] of probabilities is: float64 [n], 0 to 1."""
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities))
    if by == "margin":
        best = np.sort(probabilities, axis=1)
        return np.asarray(1.0 - (best[:, -1] - best[:, -2]))
    logs = np.log(np.maximum(probabilities, 1e-300))
    return np.asarray(-(probabilities * logs).sum(1) / np.log(probabilities.shape[1]))


def _with_priors(probabilities: Floats, priors: Floats | None) -> Floats:
    """Return the probabilities where types are as frequent as on the line (Saerens, 2002)."""
    if priors is None:
        return probabilities
    weighed = probabilities * priors
    return np.asarray(weighed / np.maximum(weighed.sum(1, keepdims=True), 1e-300))


def _rarity(odds: Floats, counts: Ints | None, balance: float) -> Floats:
    if counts is None or balance == 0:
        return np.ones(len(odds))
    weight = ((1.0 + counts.max()) / (1.0 + counts)) ** balance
    return np.asarray(odds @ weight)


def _unsure(odds: Floats) -> Reason:
    best = np.argsort(-odds, kind="stable")[:2]
    return Reason("unsure", tuple(best.tolist()), tuple(odds[best].tolist()))


def _check(
    features: Floats,
    probabilities: Floats | None,
    labelled: Ints,
    groups: Ints | None,
    counts: Ints | None,
    priors: Floats | None,
) -> None:
    n = len(features)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(f"features are {features.shape}; give finite numbers [images, features]")
    if len(labelled) and not 0 <= labelled.min() <= labelled.max() < n:
        raise ValueError(f"labelled names images that are not there; places go from 0 to {n - 1}")
    if groups is not None and groups.shape != (n,):
        raise ValueError(f"groups are {groups.shape}; give one for each of {n} images")
    if probabilities is None:
        return
    if probabilities.ndim != 2 or len(probabilities) != n or not np.isfinite(probabilities).all():
        raise ValueError(f"probabilities are {probabilities.shape}; give finite ones [{n}, types]")
    for name, each in (("counts", counts), ("priors", priors)):
        if each is not None and each.shape != probabilities.shape[1:]:
            raise ValueError(f"{name} are {each.shape}; give one for each type")
