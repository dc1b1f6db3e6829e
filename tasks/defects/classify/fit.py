"""Learns types of defects from a few labelled images, and names them in new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.defects.classify.descriptors import Cache, describe
from tasks.defects.classify.ensemble import (
    Ensemble,
    HeldOut,
    Targets,
    deal_folds,
    fit_ensemble,
)
from tasks.defects.classify.novelty import Novelty, learn_novelty, with_unknown
from tasks.defects.classify.self_training import (
    SelfTrainingConfig,
    compress,
    enlarged,
    self_train,
)
from tasks.defects.judgement import UNKNOWN
from tasks.defects.samples import Pixels, Sample, SampleError, parts_of

Floats = NDArray[np.float64]
Families = dict[str, NDArray[np.float32]]
GATE_FOLDS = 4
FEWEST_UNLABELLED = 20
"""Unlabelled images below which nothing is learned from them."""


@dataclass(frozen=True, slots=True)
class TypesConfig:
    """How types are learned.

    Attributes:
        false_unknown: Share of defects of known types that may be called unknown; 0 for none.
            Needs 1 / false_unknown - 1 labelled parts to ever be used.
        nearest: Labelled images that are shown beside a judgement.
        self_training: How much is learned from unlabelled images.
    """

    false_unknown: float = 0.05
    nearest: int = 3
    self_training: SelfTrainingConfig = field(default_factory=SelfTrainingConfig)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not 0 <= self.false_unknown < 1:
            raise ValueError(
                f"false_unknown is {self.false_unknown}; give a share from 0 to below 1"
            )
        if self.nearest < 0:
            raise ValueError(f"nearest is {self.nearest}; give 0 or more")


@dataclass(frozen=True, slots=True)
class TypeJudgement:
    """What one image shows.

    Attributes:
        probabilities: Type -> probability, sum 1, `UNKNOWN` among them.
        nearest: Names of the labelled images it is most like, likest first.
        p_value: Share of defects of known types that look as strange, at least
            1 / (labelled parts + 1).
    """

    probabilities: Mapping[str, float]
    nearest: tuple[str, ...]
    p_value: float

    @property
    def kind(self) -> str:
        """The likeliest type."""
        return max(self.probabilities, key=lambda kind: self.probabilities[kind])


@dataclass(frozen=True, slots=True, eq=False)
class TypeClassifier:
    """Names types of defects.

    Attributes:
        kinds: The labelled types, sorted.
        ensemble: Posteriors over them.
        novelty: What is usual for them.
        names: Of the labelled samples.
        places: float [n, axes], directions of the labelled samples along the ensemble's axes.
        self_trained: Whether unlabelled images were learned from: False where there were too few,
            or held-out labels were named worse.
        config: As fitted.
    """

    kinds: tuple[str, ...]
    ensemble: Ensemble
    novelty: Novelty
    names: tuple[str, ...]
    places: Floats
    self_trained: bool
    config: TypesConfig

    def judge(self, images: Sequence[Pixels], cache: Cache | None = None) -> list[TypeJudgement]:
        """Judge images, uint8 [h, w] or [h, w, 3] of any size.

        Args:
            images: Of defects; whether there is one at all is not asked here.
            cache: Descriptors by digest, see `describe`.
        """
        if not images:
            return []
        described = describe(images, cache)
        posterior = np.exp(self.ensemble.log_posterior(described))
        p_values = self.novelty.p_values(self.ensemble.distances(described))
        whole = with_unknown(posterior, p_values, self.config.false_unknown)
        own = self.ensemble.coordinates(described)
        away = ((own[:, None] - self.places[None]) ** 2).sum(axis=2)
        order = np.argsort(away, axis=1, kind="stable")[:, : self.config.nearest]
        kinds = (*self.kinds, UNKNOWN)
        return [
            TypeJudgement(
                dict(zip(kinds, row.tolist(), strict=True)),
                tuple(self.names[i] for i in near),
                float(p),
            )
            for row, near, p in zip(whole, order, p_values, strict=True)
        ]


def fit_types(
    samples: Sequence[Sample],
    config: TypesConfig | None = None,
    unlabelled: Sequence[Pixels] = (),
    cache: Cache | None = None,
) -> TypeClassifier:
    """Learn the types of labelled samples.

    One label per type will do, and one type: then nothing can be held out, probabilities are rough
    and nothing is called unknown.

    Args:
        samples: Those with a type are learned from; the others are left aside, not learned as a
            type. Images of one part are held out together.
        config: How.
        unlabelled: More images of defects. They are learned from where held-out labels say that it
            helps.
        cache: Descriptors by digest, see `describe`.

    Raises:
        SampleError: No sample has a type, or one's type is `UNKNOWN`.
    """
    config = config or TypesConfig()
    known = [sample for sample in samples if sample.kind]
    if not known:
        raise SampleError(
            f"none of {len(samples)} samples has a type; set kind on at least one defective sample"
        )
    for sample in known:
        if sample.kind == UNKNOWN:
            raise SampleError(
                f"{sample.name}: the type {UNKNOWN!r} is kept for defects of no known type; "
                "name it otherwise, or leave it empty"
            )
    kinds = tuple(sorted({sample.kind for sample in known}))
    targets = np.array([kinds.index(sample.kind) for sample in known], np.int64)
    parts = parts_of(known)
    labelled = describe([sample.pixels for sample in known], cache)
    ensemble, held_out = _fit(labelled, targets, parts)
    self_trained = False
    if len(unlabelled) >= FEWEST_UNLABELLED and len(kinds) > 1 and config.self_training.rounds:
        more = describe(unlabelled, cache)
        learned = _from_unlabelled(ensemble, labelled, targets, parts, more, config.self_training)
        if learned is not None:
            ensemble, held_out = learned
            self_trained = True
    return TypeClassifier(
        kinds=kinds,
        ensemble=ensemble,
        novelty=learn_novelty(held_out, targets, len(kinds), parts),
        names=tuple(sample.name for sample in known),
        places=ensemble.coordinates(labelled),
        self_trained=self_trained,
        config=config,
    )


def _fit(labelled: Families, targets: Targets, parts: Sequence[str]) -> tuple[Ensemble, HeldOut]:
    folds = deal_folds(targets, parts)
    return fit_ensemble(labelled, targets, np.ones(len(targets)), folds)


def _from_unlabelled(
    ensemble: Ensemble,
    labelled: Families,
    targets: Targets,
    parts: Sequence[str],
    unlabelled: Families,
    config: SelfTrainingConfig,
) -> tuple[Ensemble, HeldOut] | None:
    """Return the self-trained ensemble, None unless it names held-out labels as well.

    In each fold all is done anew: held-out samples are among the unlabelled ones, so what is
    learned never saw their labels.
    """
    families = list(ensemble.members)
    by = {n: compress(np.concatenate([labelled[n], unlabelled[n]])) for n in families}
    own = {n: by[n].small(labelled[n]) for n in families}
    more = {n: by[n].small(unlabelled[n]) for n in families}
    folds = deal_folds(targets, parts, GATE_FOLDS)
    types = int(targets.max()) + 1
    judged, posteriors, distances = [], [], []
    before = after = 0.0
    for fold in range(GATE_FOLDS):
        rest, out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if not len(out) or len(set(targets[rest])) < types:
            continue
        part = {n: labelled[n][rest] for n in families}
        base, _ = _fit(part, targets[rest], [parts[i] for i in rest])
        whole = {n: np.concatenate([unlabelled[n], labelled[n][out]]) for n in families}
        small = {n: np.concatenate([more[n], own[n][out]]) for n in families}
        says = base.log_posterior(whole)
        trained = self_train(
            {n: own[n][rest] for n in families}, targets[rest], small, says, config
        )
        if trained is None:
            return None
        at = {n: own[n][out] for n in families}
        now = trained.log_posterior(at)
        places = np.arange(len(out))
        before -= float(says[-len(out) :][places, targets[out]].sum())
        after -= float(now[places, targets[out]].sum())
        judged.append(out)
        posteriors.append(now)
        distances.append(trained.distances(at))
    if not judged or after > before:
        return None
    student = self_train(own, targets, more, ensemble.log_posterior(unlabelled), config)
    if student is None:
        return None
    held_out = HeldOut(
        np.concatenate(judged), np.concatenate(posteriors), np.concatenate(distances)
    )
    return enlarged(student, by), held_out
