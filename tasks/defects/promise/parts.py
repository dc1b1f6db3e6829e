"""Images of one part are one witness: what a part's score is, by what is promised.

==============  ===========================================  ==================  ================
``per``         what is promised of a share of the parts     a defect's score    a good part's
==============  ===========================================  ==================  ================
``every image`` no image of the part is judged wrongly       its lowest          its highest
``one image``   one image, drawn at random, is not           one at random       one at random
``part``        the part, stopped if any image is, is not    its highest         its highest
==============  ===========================================  ==================  ================

A part with all its images below a threshold has one at random there, which has its lowest there:
so ``every image`` keeps the other two promises of escapes as well, and is the default. It speaks of
as many images per part as were calibrated with, ``part`` too; ``one image`` does not depend on
that. None of them speaks of the share of all images of a line where parts with many images are
judged worse than parts with few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.defects.samples import Sample, parts_of

Floats = NDArray[np.float64]
Per = Literal["every image", "one image", "part"]
Side = Literal["escape", "false reject"]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Images that are all defective, or all good, scored by a model that has not seen them.

    Attributes:
        scores: float64 [images], finite; the higher, the more likely defective.
        parts: The part that each shows, as `parts_of` names them.
        kinds: Type of defect of each, "" where nobody named it; empty for no types at all.
    """

    scores: Floats
    parts: Sequence[str]
    kinds: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        scores = np.asarray(self.scores, dtype=np.float64)
        object.__setattr__(self, "scores", scores)
        if scores.ndim != 1 or len(self.parts) != len(scores):
            raise ValueError(
                f"scores {scores.shape} of {len(self.parts)} parts; give one score and one part "
                "per image"
            )
        if self.kinds and len(self.kinds) != len(scores):
            raise ValueError(f"{len(self.kinds)} types of {len(scores)} images; give one each")
        if not np.isfinite(scores).all():
            bad = int((~np.isfinite(scores)).sum())
            raise ValueError(
                f"{bad} of {len(scores)} scores are not finite; mend the model, or leave those "
                "images out and say so where the promise is told"
            )

    def __len__(self) -> int:
        """Count the images."""
        return len(self.scores)

    def of_kind(self, kind: str) -> Scored:
        """Return the images of one type."""
        chosen = [i for i, own in enumerate(self.kinds) if own == kind]
        return Scored(self.scores[chosen], [self.parts[i] for i in chosen])

    def places(self) -> tuple[NDArray[np.int64], int]:
        """Return int64 [images] the number of each image's part, and how many parts there are."""
        numbers: dict[str, int] = {}
        places = [numbers.setdefault(part, len(numbers)) for part in self.parts]
        return np.array(places, dtype=np.int64), len(numbers)


def scored(samples: Sequence[Sample], scores: Sequence[float]) -> tuple[Scored, Scored]:
    """Return the defective and the good images of labelled samples.

    Good images of a part that has a defective one are in neither: to stop that part is no false
    reject. Samples without a label are in neither, too.

    Args:
        samples: What was scored.
        scores: One each.

    Raises:
        ValueError: Not as many scores, or one that is not finite.
    """
    if len(samples) != len(scores):
        raise ValueError(f"{len(scores)} scores of {len(samples)} samples; give one each")
    parts = parts_of(samples)
    defective = {part for part, one in zip(parts, samples, strict=True) if one.label == "ng"}
    ng = [i for i, one in enumerate(samples) if one.label == "ng"]
    ok = [i for i, one in enumerate(samples) if one.label == "ok" and parts[i] not in defective]
    values = np.asarray(scores, dtype=np.float64)
    return (
        Scored(values[ng], [parts[i] for i in ng], [samples[i].kind for i in ng]),
        Scored(values[ok], [parts[i] for i in ok]),
    )


def part_scores(images: Scored, side: Side, per: Per, seed: int = 0) -> Floats:
    """Return float64 [parts]: the score that decides for each part.

    Args:
        images: All defective for ``escape``, all good for ``false reject``.
        side: Which error counts.
        per: What is promised; see above.
        seed: Draws the image of ``one image``; to try several and keep the best breaks the promise.
    """
    places, parts = images.places()
    if per == "one image":
        shuffled = np.random.default_rng(seed).permutation(len(images))
        _, first = np.unique(places[shuffled], return_index=True)
        return np.asarray(images.scores[shuffled[first]])
    if per == "every image" and side == "escape":
        lowest = np.full(parts, np.inf)
        np.minimum.at(lowest, places, images.scores)
        return lowest
    highest = np.full(parts, -np.inf)
    np.maximum.at(highest, places, images.scores)
    return highest
