"""Opening and writing of an inspection bundle, and the check that it judges as it did."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kernels.bundle.arrays import load_arrays, save_arrays
from kernels.bundle.folder import (
    BundleError,
    bundle_digest,
    read_json,
    read_manifest,
    read_verified,
    write_sealed,
)
from tasks.defects.boxes.config import FILES
from tasks.defects.bundle.manifest import Manifest
from tasks.defects.bundle.parts import IMAGES, BundleParts
from tasks.defects.edge.session import EdgeSession
from tasks.defects.judgement import Thresholds
from tasks.defects.samples import Pixels, Sample

if TYPE_CHECKING:
    from tasks.defects.boxes.detector import BoxDetector
    from tasks.defects.classify.found import FoundTypes
    from tasks.defects.detect.detector import Detector
    from tasks.defects.detect.explain import DefectExplanation

EDGE, TYPES, TYPES_FACTS = "edge.onnx", "types.npz", "types.json"
DETECTOR, DETECTOR_FACTS = "detector.safetensors", "detector.json"
SCORE_TOLERANCE = 1e-3
"""Int8 kernels of other CPUs round otherwise; scores are of the order of 1."""


class DefectBundle:
    """A loaded, verified bundle.

    Attributes:
        folder: Where it lies.
        manifest: Its manifest.
        digest: SHA-256 of the manifest.
        thresholds: Where the verdicts part.
        promise: The thresholds with what was promised and assumed, as plain data.
        metrics: Figures with intervals.
        images: Frame of image, digest, part and role.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Verify every file; use ``DefectBundle.load``."""
        self.folder, self.manifest = folder, manifest
        self.digest = bundle_digest(folder)
        for name in manifest.files:
            read_verified(folder, manifest, name)
        self.promise: dict[str, Any] = read_json(folder, manifest, "thresholds.json")
        self.thresholds = Thresholds.from_json([self.promise["ok_below"], self.promise["ng_from"]])
        self.metrics: dict[str, Any] = read_json(folder, manifest, "metrics.json")
        self.images = pl.read_csv(
            io.BytesIO(read_verified(folder, manifest, "images.csv")), schema=IMAGES
        )
        self._session: EdgeSession | None = None

    @classmethod
    def load(cls, folder: Path, *, digest: str = "") -> DefectBundle:
        """Open a bundle after checking names, sizes and hashes of everything in it.

        Args:
            folder: The bundle's folder.
            digest: SHA-256 the manifest must have (kept in the registry); empty: not checked.

        Raises:
            BundleError: On anything missing, added, altered or not readable.
        """
        folder = Path(folder)
        try:
            return cls(folder, read_manifest(folder, Manifest.from_json, digest=digest))
        except (KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise BundleError(f"{folder}: a file of the bundle lacks {error}") from error

    def read(self, name: str) -> bytes:
        """Return a verified file."""
        return read_verified(self.folder, self.manifest, name)

    def session(self) -> EdgeSession:
        """Return the edge model, opened once."""
        if self._session is None:
            self._session = EdgeSession(self.read(EDGE))
        return self._session

    def types(self) -> FoundTypes | None:
        """Return the classifier of types, None where none was learned.

        Raises:
            BundleError: It was written by another version.
        """
        from tasks.defects.classify.found import FoundTypes
        from tasks.defects.classify.pack import TypesFileError, unpacked

        if TYPES not in self.manifest.files:
            return None
        facts = read_json(self.folder, self.manifest, TYPES_FACTS)
        try:
            return FoundTypes(
                unpacked(self.read(TYPES)),
                facts["view"],
                facts["left_out"],
                facts["chosen_by"],
                facts["decides"],
            )
        except TypesFileError as error:
            raise BundleError(f"{self.folder / TYPES}: {error}") from error

    def detector(self) -> Detector:
        """Return the float detector, which the central machine runs.

        Raises:
            BundleError: It was written by another version.
        """
        from tasks.defects.detect.config import DetectError
        from tasks.defects.detect.detector import FACTS, WEIGHTS, Detector

        files = {WEIGHTS: self.read(DETECTOR), FACTS: self.read(DETECTOR_FACTS)}
        try:
            return Detector.from_bytes(files)
        except DetectError as error:
            raise BundleError(f"{self.folder / DETECTOR}: {error}") from error

    def explain(self, pixels: Pixels, good: Sequence[Sample] = ()) -> DefectExplanation:
        """Explain the float detector's score of an image, with the bundle's thresholds.

        The edge file rounds to int8: its score may differ in the third place.

        Args:
            pixels: uint8 [h, w] or [h, w, 3].
            good: Good images among which similar patches are looked for.

        Raises:
            BundleError: The detector was written by another version.
            DetectError: An image that cannot be judged.
        """
        from tasks.defects.detect.explain import explain_defects

        detector = replace(self.detector(), thresholds=self.thresholds)
        return explain_defects(detector, pixels, good)

    def boxes(self) -> BoxDetector | None:
        """Return the detector of boxes, None where none was fitted.

        Raises:
            BundleError: Its files are incomplete, or of another version.
        """
        from tasks.defects.boxes.detector import BoxDetector
        from tasks.defects.detect.config import DetectError

        files = {name: self.read(name) for name in self.box_files}
        try:
            return BoxDetector.from_bytes(files) if files else None
        except DetectError as error:
            raise BundleError(f"{self.folder / FILES[0]}: {error}") from error

    @property
    def box_files(self) -> tuple[str, ...]:
        """Names of the files of the detector of boxes, none where none was fitted."""
        return tuple(name for name in FILES if name in self.manifest.files)

    def score(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the edge model's scores float64 [n] of images uint8 [n, h, w, 3]."""
        session = self.session()
        return np.array([session.judge(image).score for image in images], dtype=np.float64)

    def example(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Return a few images uint8 [n, h, w, 3] and the scores that they must get."""
        arrays = load_arrays(self.read("example.npz"), "example.npz")
        return (
            np.asarray(arrays["images"], dtype=np.uint8),
            np.asarray(arrays["scores"], dtype=np.float64),
        )

    def self_check(self) -> float:
        """Score the example; return the largest difference from the scores kept in the bundle.

        Raises:
            BundleError: When it exceeds ``SCORE_TOLERANCE``: another runtime computes otherwise.
        """
        images, expected = self.example()
        difference = float(np.abs(self.score(images) - expected).max(initial=0.0))
        if not difference <= SCORE_TOLERANCE:
            raise BundleError(
                f"{self.folder}: example scores differ by {difference:.2g} from those at training"
            )
        return difference


def write_bundle(folder: Path, parts: BundleParts) -> DefectBundle:
    """Write a bundle beside ``folder``, check that it loads and scores, then move it into place.

    Raises:
        BundleError: When the edge file cannot be run, or the detector of boxes not be opened.
    """

    def check(draft: Path) -> None:
        bundle = DefectBundle.load(draft)
        bundle.self_check()
        bundle.boxes()

    def write(draft: Path) -> Manifest:
        _write_files(draft, parts)
        return Manifest(
            dataset=parts.dataset,
            data_digest=parts.data_digest,
            git_commit=parts.git_commit,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    write_sealed(folder, write, check)
    return DefectBundle.load(folder)


def _write_files(draft: Path, parts: BundleParts) -> None:
    contents = {EDGE: parts.edge, DETECTOR: parts.detector}
    if parts.types:
        contents[TYPES] = parts.types
    contents |= parts.boxes
    for name, content in contents.items():
        (draft / name).write_bytes(content)
    texts = {
        "parity.json": parts.parity,
        DETECTOR_FACTS: parts.detector_facts,
        "thresholds.json": parts.thresholds,
        "metrics.json": parts.metrics,
    } | ({TYPES_FACTS: parts.types_facts} if parts.types else {})
    for name, value in texts.items():
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
        (draft / name).write_text(text + "\n", encoding="utf-8")
    (draft / "images.csv").write_text(parts.images.write_csv(), encoding="utf-8")
    (draft / "MODEL_CARD.md").write_text(parts.card, encoding="utf-8")
    session = EdgeSession(parts.edge)
    scores = [session.judge(image).score for image in parts.example]
    save_arrays(
        draft / "example.npz",
        {"images": parts.example, "scores": np.array(scores, dtype=np.float64)},
    )
