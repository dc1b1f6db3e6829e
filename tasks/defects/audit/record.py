"""What goes into an audit record: facts of the run, judged test images, thresholds and promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tasks.defects.promise.cost import CostModel
from tasks.defects.promise.parts import Floats, Scored, scored
from tasks.defects.promise.thresholds import Promised
from tasks.defects.samples import Label, Sample

PNG = b"\x89PNG\r\n\x1a\n"


class Pictures(NamedTuple):
    """An image to be shown, as PNG files.

    Attributes:
        plain: The image, b"" for none.
        heat: The same with its heat map, b"" for none.
    """

    plain: bytes = b""
    heat: bytes = b""


Draw = Callable[[int], Pictures]
"""Draws the pictures of one test image by its place; called for those that are shown alone."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Where the detector comes from.

    Attributes:
        title: Name of the line, or of the detector.
        time: When the record was made, with its time zone.
        data: Folder, or name, of the data.
        data_sha256: Of all its files, by whoever read them.
        model_sha256: Of the model's file or bundle.
        split: How parts were shared out among training, calibration and test, in a sentence.
        split_sha256: Of the split's file, "" without one.
        counts: Parts and images by what they were used for.
        seeds: By what they decide.
        config: Settings, as text.
        environment: Versions, as text.
    """

    title: str
    time: str
    data: str
    data_sha256: str
    model_sha256: str
    split: str
    split_sha256: str = ""
    counts: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        for name in ("data_sha256", "model_sha256", "split_sha256"):
            digest = getattr(self, name)
            if (digest or name != "split_sha256") and not _is_digest(digest):
                raise ValueError(f"{name} is {digest!r}; give 64 hexadecimal digits")


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Test images, judged; nothing was trained, chosen or calibrated by them.

    Attributes:
        samples: The images; those without a label are not counted.
        scores: float64 [images] of the detector.
        named: Type that the detector named for each, "" for none; empty where it names none.
        like: Names of the labelled images that each looks like; empty where none are told.
    """

    samples: Sequence[Sample]
    scores: Floats
    named: Sequence[str] = ()
    like: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        object.__setattr__(self, "scores", np.asarray(self.scores, dtype=np.float64))
        if len(self.samples) != len(self.scores):
            raise ValueError(f"{len(self.scores)} scores of {len(self.samples)} images; give each")
        if self.named and len(self.named) != len(self.samples):
            raise ValueError(f"{len(self.named)} named types; give one per image, or none")
        if self.like and len(self.like) != len(self.samples):
            raise ValueError(f"{len(self.like)} lists of likes; give one per image, or none")
        labels: set[Label | None] = {sample.label for sample in self.samples}
        if not labels >= {"ok", "ng"}:
            raise ValueError("a test needs good and defective images; label some of each")

    def sides(self) -> tuple[Scored, Scored]:
        """Return the defective and the good images."""
        return scored(self.samples, self.scores.tolist())


@dataclass(frozen=True, slots=True, eq=False)
class AuditInputs:
    """Everything a record shows.

    Attributes:
        facts: Where the detector comes from.
        tested: What it said of test images.
        promised: Its thresholds, and why.
        cost: Costs on the test parts, None without.
        draw: Draws the pictures of a test image.
        notes: Remarks, one a line.
        types: How well types are named, of `type_figures`; empty where none were learned.
        boxes: How well they are found, of `box_figures`; empty where the heat map gives them.
    """

    facts: Facts
    tested: Judged
    promised: Promised
    cost: CostModel | None = None
    draw: Draw | None = None
    notes: Sequence[str] = ()
    types: Mapping[str, Any] = field(default_factory=dict)
    boxes: Mapping[str, Any] = field(default_factory=dict)


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
