"""The form of every net that judges images: what is trained, exported, and run on the edge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class Scores(NamedTuple):
    """What a scorer says of a batch.

    Attributes:
        score: float [n], the higher, the more likely defective.
        heat: float [n, 1, h / 4, w / 4] in [0, 1], where it looks defective.
        kinds: float [n, len(kinds)], probabilities of the types.
    """

    score: Tensor
    heat: Tensor
    kinds: Tensor


class Scorer(nn.Module, ABC):
    """Judges images; holds all it needs as parameters and buffers, so that it can be exported.

    Attributes:
        kinds: Names of the types, in the order of `Scores.kinds`; the last is ``unknown``.
        size: Height and width that images are brought to, None where they keep their own.
    """

    def __init__(self, kinds: tuple[str, ...], size: tuple[int, int] | None) -> None:
        super().__init__()
        self.kinds, self.size = kinds, size

    @abstractmethod
    def forward(self, pixels: Tensor) -> Scores:
        """Judge float [n, 3, h, w] in [0, 1], in evaluation mode without any randomness."""
