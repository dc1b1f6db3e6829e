"""Discriminants of unlike descriptors, whose calibrated posteriors are multiplied.

Each family of descriptors has a discriminant of its own: put together, the largest family would
drown the others. Each posterior is tempered (Guo et al. 2017) by held-out folds first, and the
product once more, since families agree more than independent witnesses would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.defects.classify.discriminant import Discriminant, fit_discriminant

Floats = NDArray[np.float64]
Targets = NDArray[np.int64]
Described = Mapping[str, NDArray[np.float32]]
"""Family of descriptors -> float32 [n, d] of n images."""
TEMPERATURES = np.geomspace(0.0005, 3, 60)
FOLDS = 8
FEWEST = 6
"""Held-out labels below which no temperature is fitted."""
UNFITTED_MARGIN = 6.0
"""Logits between the types' means where none could be fitted."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One family's discriminant, and what its logits are multiplied by."""

    discriminant: Discriminant
    temperature: float

    @classmethod
    def tempered(cls, discriminant: Discriminant, distances: Floats, targets: Targets) -> Member:
        """Fit the temperature to distances [n, types] of samples whose types are known."""
        found = fit_temperature(-0.5 * distances, targets)
        return cls(discriminant, _unfitted(discriminant) if found is None else found)

    def log_posterior(self, features: NDArray[np.floating[Any]]) -> Floats:
        """Return [n, types] of [n, d]."""
        return log_softmax(-0.5 * self.temperature * self.discriminant.distances(features))


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Members by family, and the temperature of their product."""

    members: Mapping[str, Member]
    temperature: float

    def log_posterior(self, described: Described) -> Floats:
        """Return [n, types]; types are taken as equally likely beforehand."""
        return log_softmax(self.temperature * self.product(described))

    def product(self, described: Described) -> Floats:
        """Return the sum of the members' log posteriors, [n, types]."""
        found = [each.log_posterior(described[name]) for name, each in self.members.items()]
        return np.asarray(np.sum(found, axis=0))

    def distances(self, described: Described) -> Floats:
        """Return squared distances to the types' means over all members' axes, [n, types]."""
        found = [each.discriminant.distances(described[n]) for n, each in self.members.items()]
        return np.asarray(np.sum(found, axis=0))

    def coordinates(self, described: Described) -> Floats:
        """Return directions from the middle of the types' means, of length 1, [n, axes].

        Directions, since samples that were fitted to lie farther out than new ones.
        """
        found = []
        for name, each in self.members.items():
            middle = each.discriminant.centroids.mean(axis=0)
            away = each.discriminant.coordinates(described[name]) - middle
            found.append(away * np.sqrt(each.temperature))
        whole = np.concatenate(found, axis=1)
        return np.asarray(whole / np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """What ensembles said of labelled samples that they were fitted without.

    Attributes:
        places: int [m], which samples: those of types that other parts show, too.
        log_posterior: [m, types].
        distances: [m, types].
    """

    places: Targets
    log_posterior: Floats
    distances: Floats


def fit_ensemble(
    described: Described, targets: Targets, weights: Floats, folds: Targets
) -> tuple[Ensemble, HeldOut]:
    """Fit the ensemble, and judge each labelled sample by one fitted without its fold.

    Args:
        described: Descriptors of n samples; a family that never varies is left out.
        targets: int [n], types counted from 0, each at least once.
        weights: [n], how much each sample counts.
        folds: int [n] of `deal_folds`.

    Returns:
        The ensemble and what it says of samples held out. Their temperatures were fitted to the
        same held-out logits.
    """
    types = int(targets.max()) + 1
    used = [name for name, x in described.items() if float(np.ptp(x, axis=0).max()) > 0]
    judged = _judged(targets, folds)
    members: dict[str, Member] = {}
    product = np.zeros((len(judged), types))
    distances = np.zeros((len(judged), types))
    for name in used or list(described)[:1]:
        features = described[name]
        discriminant = fit_discriminant(features, targets, types, weights)
        own = np.zeros((len(judged), types))
        for fold in np.unique(folds[judged]):
            rest, out = folds != fold, folds[judged] == fold
            part = fit_discriminant(features[rest], targets[rest], types, weights[rest])
            own[out] = part.distances(features[judged[out]])
        members[name] = Member.tempered(discriminant, own, targets[judged])
        distances += own
        product += log_softmax(-0.5 * members[name].temperature * own)
    shared = fit_temperature(product, targets[judged]) or 1 / len(members)
    held_out = HeldOut(judged, log_softmax(shared * product), distances)
    return Ensemble(members, shared), held_out


def deal_folds(targets: Targets, parts: Sequence[str], folds: int = FOLDS) -> Targets:
    """Deal the samples into folds, int [n]: types evenly, images of one part together."""
    dealt: dict[str, int] = {}
    places = np.full(len(targets), -1, np.int64)
    for place in np.argsort(targets, kind="stable"):
        places[place] = dealt.setdefault(parts[place], len(dealt) % folds)
    return places


def fit_temperature(logits: Floats, targets: Targets) -> float | None:
    """Return the factor of least log loss, None for too few samples.

    Targets are softened to 1 - 1 / (n + 2) (Platt 1999): without an error among few samples the
    best factor would be infinite.
    """
    if len(logits) < FEWEST:
        return None
    share = 1 / (len(logits) + 2)
    wanted = np.full(logits.shape, share / max(logits.shape[1] - 1, 1))
    wanted[np.arange(len(targets)), targets] = 1 - share
    losses = [-(wanted * log_softmax(logits * t)).sum() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def log_softmax(logits: Floats) -> Floats:
    """Return logits less the logarithm of the sum of their exponentials, row by row."""
    top = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(top - np.log(np.exp(top).sum(axis=1, keepdims=True)))


def _judged(targets: Targets, folds: Targets) -> Targets:
    """Return the samples of folds without which every type is still shown."""
    types = len(set(targets))
    able = [fold for fold in np.unique(folds) if len(set(targets[folds != fold])) == types]
    return np.flatnonzero(np.isin(folds, able))


def _unfitted(discriminant: Discriminant) -> float:
    apart = discriminant.centroids[:, None] - discriminant.centroids[None]
    square = (apart**2).sum(2)
    usual = float(np.median(square[square > 0])) if (square > 0).any() else 1.0
    return 2 * UNFITTED_MARGIN / usual
