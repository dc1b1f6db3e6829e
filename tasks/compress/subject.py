"""What a plan needs of a model, whatever family it is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kernels.compression.sensitivity import LayerSensitivity
from tasks.compress.footprint import Inputs
from tasks.compress.recipe import Recipe

Say = Callable[[str], None]
"""Told what begins, for a progress bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What a compressed file loses, on items that neither training nor calibration saw.

    Attributes:
        figure: What is compared, such as ``AUROC``.
        before: Of the model as it was trained.
        after: Of the file.
        low: Lower end of the 95 % interval of ``before - after``, both on the same items.
        high: Upper end.
        items: Items judged.
        flips: Items that both decide otherwise.
        beyond: Wrong decisions of the file above what was promised.
    """

    figure: str
    before: float
    after: float
    low: float
    high: float
    items: int
    flips: int
    beyond: int = 0

    @property
    def loss(self) -> float:
        """What is lost, in the figure; below 0 where something is gained."""
        return self.before - self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A compressed file.

    Attributes:
        model: ONNX.
        facts: What was measured while making it, as plain data.
        files: Files that belong beside it.
    """

    model: bytes
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class Subject(Protocol):
    """A model with the data to calibrate it, repair it and judge it by."""

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def family(self) -> str:
        """What kind of model it is."""

    def can(self) -> Mapping[str, str]:
        """Return the methods there are -> why not, "" where it can."""

    def example(self) -> Inputs:
        """Return the inputs of one item, of the size it is used with."""

    def whole(self) -> bytes:
        """Return the float ONNX file that all is compared with."""

    def sketch(self, recipe: Recipe) -> bytes:
        """Return, within seconds, a file of the size and speed that the recipe will have.

        With 4 bits it is the smallest that can come of it: how many layers bear them is not known.

        Raises:
            CompressError: When the recipe cannot be carried out; says why.
        """

    def make(self, recipe: Recipe, say: Say, size: int = 0) -> Made:
        """Carry a recipe out, with all training and calibration.

        Args:
            recipe: What is done.
            say: Told what begins.
            size: Bytes at which no more weights go to 4 bits; 0: all go that bear it.

        Raises:
            CompressError: When it cannot be done after all; says why.
        """

    def lost(self, made: Made) -> Lost:
        """Judge what was made."""

    def layers(self, recipe: Recipe) -> Sequence[LayerSensitivity]:
        """Return what each layer of a recipe that was made loses alone in fewer bits."""
