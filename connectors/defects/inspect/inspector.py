"""What judges images here: any model with thresholds, by one small interface."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tasks.cleaning.images.decode import Pixels as DecodedPixels
from tasks.cleaning.images.limits import ImageLimits
from tasks.defects.contours import boxes_of_heat
from tasks.defects.judgement import Judgement, Thresholds
from tasks.defects.samples import Box, Pixels

MAX_BOXES = 50
"""Boxes told of one image; the best come first."""


class Inspector(Protocol):
    """Judges one image at a time; may be called from one thread at a time."""

    @property
    def thresholds(self) -> Thresholds:
        """Where its verdicts part."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the model in hexadecimal: says which one judged."""
        ...

    @property
    def bits(self) -> int:
        """Bits in use of deep images: they are brought to the upper eight of these."""
        ...

    def judge(self, pixels: Pixels) -> Judgement:
        """Judge uint8 [h, w] or [h, w, 3]."""
        ...


class Decoder(Protocol):
    """Makes pixels of files: `tasks.cleaning.images.sandbox.Sandbox`."""

    workers: int
    limits: ImageLimits

    def pixels(self, data: bytes) -> DecodedPixels:
        """Decode one image; raises `ImageRefusedError`."""
        ...


class EdgeInspector:
    """An edge file, run by ONNX Runtime alone.

    Attributes:
        digest: SHA-256 of the file.
        thresholds: As they stand in it.
        bits: As they stand in it.
    """

    def __init__(self, model: bytes, *, threads: int = 2) -> None:
        """Load a file.

        Raises:
            EdgeFileError: It is no edge file that can be run.
        """
        from tasks.defects.edge.session import EdgeSession

        self._session = EdgeSession(model, threads=threads)
        self.digest = hashlib.sha256(model).hexdigest()
        self.thresholds = self._session.facts.thresholds
        self.bits = self._session.facts.bits

    def judge(self, pixels: Pixels) -> Judgement:
        """Judge uint8 [h, w] or [h, w, 3]."""
        said = self._session.judge(pixels)
        return replace(said, boxes=boxes_of_heat(said.heat, said.kind))


def open_inspector(path: Path, *, threads: int = 2, typed: bool = True) -> Inspector:
    """Return the inspector of an edge file, of a bundle's folder, or of a golden sample's.

    Args:
        path: The file, or the folder.
        threads: Cores that one image is judged on.
        typed: Whether a bundle's classifier of types names what is found, and its detector of
            boxes draws them, where it has those; else, and where the file stands alone, the file's
            prototypes and the contours of its heat map do.

    Raises:
        EdgeFileError: There is no such file, or it is no edge file that can be run.
        BundleError: The folder is neither.
    """
    from connectors.defects.edge_file import read_edge_file
    from tasks.defects.edge.format import EdgeFileError

    if path.is_dir():
        return _of_folder(path, threads, typed=typed)
    model, _ = read_edge_file(path)
    try:
        return EdgeInspector(model, threads=threads)
    except EdgeFileError as error:
        raise EdgeFileError(f"{path}: {error}") from error


def _of_folder(folder: Path, threads: int, *, typed: bool) -> Inspector:
    from connectors.defects.golden import is_golden
    from connectors.defects.inspect.boxed import with_boxes
    from connectors.defects.inspect.typed import with_types
    from tasks.defects.bundle.bundle import EDGE, DefectBundle

    if is_golden(folder):
        from connectors.defects.inspect.golden import GoldenInspector

        return GoldenInspector(folder)
    bundle = DefectBundle.load(folder)
    edge = EdgeInspector(bundle.read(EDGE), threads=threads)
    return with_boxes(with_types(edge, bundle), bundle) if typed else edge


@dataclass(frozen=True, slots=True)
class Opinion:
    """A judgement as it is kept and sent: JSON only, without the heat map.

    Attributes:
        verdict: OK, NG or REVIEW.
        score: The higher, the more likely defective.
        kind: The likeliest type of defect, "" where none is known.
        kinds: Type -> probability.
        boxes: ``[left, top, right, bottom, kind, score]``, best first.
        thresholds: ``[ok_below, ng_from]``.
        model: Digest of the model.
        like: Names of the labelled images it looks like, likest first.
    """

    verdict: str
    score: float
    kind: str
    kinds: dict[str, float]
    boxes: tuple[tuple[float, float, float, float, str, float], ...]
    thresholds: tuple[float, float]
    model: str
    like: tuple[str, ...] = ()

    @staticmethod
    def of(judgement: Judgement, inspector: Inspector) -> Opinion:
        """Take over a judgement as numbers that JSON can hold.

        A score that is no number is sent to a person as the largest; probabilities of which one is
        none are left out.
        """
        finite = bool(np.isfinite(judgement.score))
        named = all(np.isfinite(p) for p in judgement.kinds.values())
        limit = float(np.finfo(np.float32).max)
        thresholds = inspector.thresholds
        return Opinion(
            verdict=judgement.verdict if finite else "REVIEW",
            score=float(judgement.score) if finite else limit,
            kind=judgement.kind if named else "",
            kinds={k: round(float(p), 6) for k, p in judgement.kinds.items()} if named else {},
            boxes=tuple(_box(box) for box in judgement.boxes[:MAX_BOXES]),
            thresholds=(_finite(thresholds.ok_below, limit), _finite(thresholds.ng_from, limit)),
            model=inspector.digest,
            like=judgement.like,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "verdict": self.verdict,
            "score": self.score,
            "kind": self.kind,
            "kinds": self.kinds,
            "boxes": [list(box) for box in self.boxes],
            "thresholds": list(self.thresholds),
            "model": self.model,
            "like": list(self.like),
        }


def _box(box: Box) -> tuple[float, float, float, float, str, float]:
    left, top, right, bottom = (
        round(float(edge), 2) for edge in (box.left, box.top, box.right, box.bottom)
    )
    score = float(box.score) if np.isfinite(box.score) else 0.0
    return left, top, right, bottom, box.kind, round(score, 6)


def _finite(value: float, limit: float) -> float:
    return float(np.clip(value, -limit, limit))
