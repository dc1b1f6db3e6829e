"""Learning from images without labels: pseudo-labels by posterior, taken only where they help.

The ensemble names the unlabelled images, is fitted again with them, and names them anew. Types may
be unevenly frequent among them: frequent ones are weighed down to the median type, and posteriors
never lean on how frequent a type seems. The fits are in few dimensions for the number of images:
with more, the rare types are lost. A gate keeps what was learned from labels alone unless held-out
labels are named at least as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.defects.classify.discriminant import Discriminant, fit_discriminant
from tasks.defects.classify.ensemble import (
    Described,
    Ensemble,
    Member,
    Targets,
    fit_temperature,
)

Floats = NDArray[np.float64]
COMPONENTS, PER_COMPONENT = 96, 10
"""Most principal components per family that pseudo-labelled fits work in, and images for each."""


@dataclass(frozen=True, slots=True)
class SelfTrainingConfig:
    """How much is learned from unlabelled images.

    Attributes:
        rounds: Times that they are named and the ensemble fitted again.
        confidence: Posterior from which an image counts.
        weight: How much one counts beside a label's 1.
    """

    rounds: int = 3
    confidence: float = 0.8
    weight: float = 0.5

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.rounds < 0:
            raise ValueError(f"rounds is {self.rounds}; give 0 for no self-training, or more")
        if not 0 < self.confidence <= 1:
            raise ValueError(f"confidence is {self.confidence}; give above 0, at most 1")
        if self.weight <= 0:
            raise ValueError(f"weight is {self.weight}; give one above 0")


def self_train(
    labelled: Described,
    targets: Targets,
    unlabelled: Described,
    log_posterior: Floats,
    config: SelfTrainingConfig,
) -> Ensemble | None:
    """Return an ensemble fitted with pseudo-labels, None where no image was sure enough.

    Args:
        labelled: Descriptors of n labelled samples, in few dimensions (`compress`).
        targets: int [n], types counted from 0, each at least once.
        unlabelled: Descriptors of m images, in the same families.
        log_posterior: [m, types] of the unlabelled images by the ensemble of the labels alone.
        config: How much.
    """
    types = log_posterior.shape[1]
    found = None
    for _ in range(config.rounds):
        posterior = np.exp(log_posterior)
        sure = np.flatnonzero(posterior.max(axis=1) >= config.confidence)
        if not len(sure):
            return None
        guessed = posterior[sure].argmax(axis=1)
        named = np.concatenate([targets, guessed])
        weights = np.concatenate([np.ones(len(targets)), config.weight * _evened(guessed)])
        members = {}
        for name, own in labelled.items():
            both = np.concatenate([own, unlabelled[name][sure]])
            discriminant = fit_discriminant(both, named, types, weights)
            # Labels are few among the samples fitted to, so their distances are nearly held out.
            members[name] = Member.tempered(discriminant, discriminant.distances(own), targets)
        found = Ensemble(members, 1.0)
        shared = fit_temperature(found.product(labelled), targets)
        found = Ensemble(members, shared or 1 / len(members))
        log_posterior = found.log_posterior(unlabelled)
    return found


def _evened(guessed: Targets) -> Floats:
    """Return weights that bring frequent types down to the median type's sum."""
    counts = np.bincount(guessed)
    return np.asarray(np.minimum(1.0, np.median(counts[counts > 0]) / counts[guessed]))


@dataclass(frozen=True, slots=True, eq=False)
class Compression:
    """Principal components of one family, of labelled and unlabelled images together.

    Attributes:
        centre: [d].
        scale: [d].
        components: [d, r].
    """

    centre: Floats
    scale: Floats
    components: Floats

    def small(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return float32 [n, r] of [n, d]."""
        return (((features - self.centre) / self.scale) @ self.components).astype(np.float32)

    def enlarged(self, found: Discriminant) -> Discriminant:
        """Return the discriminant of [n, d] that says what the given one says of [n, r]."""
        axes = self.components @ (found.axes / found.scale[:, None])
        moved = found.centroids + (found.centre / found.scale) @ found.axes
        return Discriminant(self.centre, self.scale, axes, moved)


def compress(features: NDArray[np.float32]) -> Compression:
    """Find at most n / 10 components of [n, d] by random projection (Halko et al. 2011)."""
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.sqrt(scale**2 + (0.1 * float(np.median(scale[scale > 0]))) ** 2)
    unit = (features - centre) / scale
    count = min(COMPONENTS, max(1, len(unit) // PER_COMPONENT), unit.shape[1])
    sketch = np.random.default_rng(0).standard_normal((unit.shape[1], count), np.float32)
    for _ in range(2):
        sketch = np.linalg.qr(unit.T @ (unit @ sketch))[0]
    return Compression(
        centre.astype(np.float64), scale.astype(np.float64), sketch.astype(np.float64)
    )


def enlarged(ensemble: Ensemble, by: Mapping[str, Compression]) -> Ensemble:
    """Return the ensemble of whole descriptors that says what one of compressed ones says."""
    return Ensemble(
        {
            name: Member(by[name].enlarged(each.discriminant), each.temperature)
            for name, each in ensemble.members.items()
        },
        ensemble.temperature,
    )
