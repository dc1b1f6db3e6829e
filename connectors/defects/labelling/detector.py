"""What a detector tells the labelling page: where an image looks defective, and how sure."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.defects.judgement import Judgement
from tasks.defects.samples import Pixels

OK = "OK"


class Detector(Protocol):
    """Judges images; used from several threads at once."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Types of defects that it tells apart, the last is ``unknown``."""
        ...

    @property
    def bits(self) -> int:
        """Bits in use of deep images: they are brought to the upper eight of these."""
        ...

    def judge(self, pixels: Pixels) -> Judgement:
        """Judge uint8 [h, w] or [h, w, 3]; raises `ValueError` for what it does not judge."""
        ...


class EdgeDetector:
    """A detector by its edge file, which decides here as it does on the line.

    Attributes:
        kinds: Types of defects that it tells apart.
        bits: In use of deep images, as it was trained.
    """

    def __init__(self, address: str) -> None:
        """Load it.

        Args:
            address: An edge file, a bundle's folder, or ``registry:LINE``.

        Raises:
            EdgeFileError: There is no such file, or it is no edge file that can be run.
            BundleError: A folder is no bundle.
            RegistryError: No model of the line serves.
        """
        from connectors.defects.edge_file import open_edge_file
        from connectors.defects.models import edge_model

        self._session = open_edge_file(edge_model(address), threads=1)
        self.kinds: tuple[str, ...] = self._session.facts.kinds
        self.bits = self._session.facts.bits

    def judge(self, pixels: Pixels) -> Judgement:
        """Judge uint8 [h, w] or [h, w, 3].

        Raises:
            EdgePixelsError: For an image of a size that it does not judge.
        """
        return self._session.judge(pixels)


def odds_of(judgement: Judgement, kinds: tuple[str, ...]) -> NDArray[np.float64]:
    """Return float64 [1 + kinds]: how likely an image is good, and of each type.

    The score of a detector is a probability; one that is no number says nothing.
    """
    score = judgement.score
    defective = 0.5 if math.isnan(score) else min(max(score, 0.0), 1.0)
    each = np.array([judgement.kinds.get(kind, 0.0) for kind in kinds], np.float64)
    each = each / each.sum() if each.sum() > 0 else np.full(len(kinds), 1 / len(kinds))
    return np.concatenate([[1 - defective], defective * each])


def no_odds(kinds: tuple[str, ...]) -> NDArray[np.float64]:
    """Return the odds of an image that the detector does not judge: float64 [1 + kinds]."""
    return np.full(1 + len(kinds), 1 / (1 + len(kinds)))
