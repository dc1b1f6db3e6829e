"""What a bundle is made from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kernels.bundle.folder import BundleError
from tasks.defects.boxes.config import FILES
from tasks.defects.samples import Pixels, rgb

Role = Literal["train", "calibration", "test"]
ROLES: tuple[Role, ...] = ("train", "calibration", "test")
EXAMPLE_IMAGES = 4
IMAGES = {"image": pl.String, "digest": pl.String, "part": pl.String, "role": pl.String}
"""Columns of ``images.csv``: name, SHA-256 of the pixels, physical part, one of `ROLES`."""


@dataclass(frozen=True, slots=True, eq=False)
class BundleParts:
    """Contents of a bundle before it is written.

    Attributes:
        dataset: Name of the line: letters, digits, ``-``, ``_`` and ``.``.
        data_digest: Digest of images and labels.
        git_commit: Commit of the code.
        edge: The edge file.
        parity: Record of how far it is from the trained net.
        detector: Weights (safetensors).
        detector_facts: Settings and provenance.
        types: Classifier of types (npz), empty if none.
        types_facts: Of `type_figures`, empty if none.
        boxes: Files of `BoxDetector.to_bytes`, empty if there is none.
        thresholds: Thresholds, promise and its assumptions.
        metrics: Figures with intervals.
        images: Frame of `IMAGES`.
        example: uint8 [n, h, w, 3]; see `example_of`.
        card: Text of ``MODEL_CARD.md``.
    """

    dataset: str
    data_digest: str
    git_commit: str
    edge: bytes
    parity: Mapping[str, Any]
    detector: bytes
    detector_facts: Mapping[str, Any]
    thresholds: Mapping[str, Any]
    metrics: Mapping[str, Any]
    images: pl.DataFrame
    example: NDArray[np.uint8]
    card: str
    types: bytes = field(default=b"", repr=False)
    types_facts: Mapping[str, Any] = field(default_factory=dict)
    boxes: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not self.dataset or set(self.dataset) - _NAME:
            raise BundleError(
                f"line name {self.dataset!r}: give letters, digits, '-', '_' and '.' only"
            )
        if dict(self.images.schema) != IMAGES:
            raise BundleError(f"images must have the columns {', '.join(IMAGES)} of strings")
        wrong = sorted(set(self.images["role"]) - set(ROLES))
        if wrong:
            raise BundleError(f"role {wrong[0]!r} of an image is not one of {', '.join(ROLES)}")
        if strange := sorted(set(self.boxes) - set(FILES)):
            raise BundleError(f"{strange[0]} is no file of a detector of boxes")
        if self.example.dtype != np.uint8 or self.example.ndim != 4 or not len(self.example):
            raise BundleError("the example must be uint8 [n, h, w, 3] with at least one image")


_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def digest_of(pixels: Pixels) -> str:
    """Return the SHA-256 of an image's size and pixels; gray ones count as RGB."""
    whole = np.ascontiguousarray(rgb(pixels))
    return hashlib.sha256(repr(whole.shape).encode() + whole.tobytes()).hexdigest()


def example_of(images: list[Pixels]) -> NDArray[np.uint8]:
    """Return up to four images that have the commonest size, uint8 [n, h, w, 3].

    Raises:
        BundleError: When there is no image.
    """
    if not images:
        raise BundleError("an example needs at least one image")
    sizes = [image.shape[:2] for image in images]
    common = max(sizes, key=sizes.count)
    chosen = [rgb(image) for image in images if image.shape[:2] == common]
    return np.stack(chosen[:EXAMPLE_IMAGES])
