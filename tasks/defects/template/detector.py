"""A fitted golden sample: judges images, and goes into bytes and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.defects.detect.config import DetectError
from tasks.defects.detect.detector import check_pixels
from tasks.defects.detect.stored import StoredKind, reading
from tasks.defects.judgement import UNKNOWN, Judgement, Thresholds
from tasks.defects.samples import Box, Mask, Pixels, rgb
from tasks.defects.template.align import Field, aligned, inside, laid, put_back
from tasks.defects.template.config import AlignError, TemplateConfig
from tasks.defects.template.difference import Planes, beyond, relit

ARRAYS, FACTS = "template.safetensors", "template.json"
_STORED = StoredKind("a golden sample", "golden-sample/1", ARRAYS, FACTS, 256 * 2**20)
MISSING, EXTRA = "missing", "extra"
_HIGHEST = 9
"""Pixels whose mean is the score, so that one odd pixel decides nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class TemplateDetector:
    """Judges images of one print.

    Attributes:
        golden: float32 [h, w, c] in [0, 1], c 1 (gray) or 3.
        spread: float32 [h, w, c], spread of good images about it.
        ink: bool [h, w], where there is print.
        polarity: 1 where print is brighter than the ground, -1 where darker.
        config: How images are compared.
        provenance: JSON facts of the fit.
        thresholds: Where the verdicts part; without them every verdict is REVIEW.
    """

    golden: Planes
    spread: Planes
    ink: Mask
    polarity: float
    config: TemplateConfig
    provenance: Mapping[str, Any] = field(default_factory=dict)
    thresholds: Thresholds | None = None

    def judge(self, images: Sequence[Pixels]) -> list[Judgement]:
        """Judge images.

        The score is the difference in spreads of good images; types are ``missing`` (print that is
        not there) and ``extra`` (what should not be there).

        Args:
            images: uint8 [h, w] or [h, w, 3] each, at the scale of the golden sample.

        Raises:
            AlignError: An image that cannot be laid on the golden sample; says why.
            DetectError: An image that cannot be judged at all.
        """
        return [self._judge(pixels, f"image {place}") for place, pixels in enumerate(images)]

    def _judge(self, pixels: Pixels, name: str) -> Judgement:
        check_pixels(pixels, name)
        planes = planes_of(pixels, self.golden.shape[2])
        found = aligned(planes.mean(axis=2), self.golden.mean(axis=2), self.config)
        if found.alike < self.config.alike or not inside(
            found.pose, self.config, self.golden.shape
        ):
            raise AlignError(
                f"{name} is no image of this product, or too far off its place: the details agree "
                f"by {found.alike:.2f}, at least {self.config.alike} is wanted; check the product "
                "and the camera, or allow more shift, turn and zoom"
            )
        shape = self.golden.shape[:2]
        own = np.stack([laid(planes[..., c], found.pose, shape) for c in range(planes.shape[2])], 2)
        excess = self.excess(own)
        strongest = np.take_along_axis(excess, np.abs(excess).argmax(2)[..., None], 2)[..., 0]
        lost = self.ink & (np.sign(strongest) == -self.polarity)
        maps = {
            kind: np.nan_to_num(put_back(one.astype(np.float32), found.pose, pixels.shape[:2]))
            for kind, one in (
                (MISSING, np.where(lost, np.abs(strongest), 0)),
                (EXTRA, np.where(lost, 0, np.abs(strongest))),
            )
        }
        return self._told(maps)

    def excess(self, own: Planes) -> Planes:
        """Return differences beyond what is allowed, in spreads, of an image in its place.

        Args:
            own: float32 [h, w, c] on the golden sample, NaN where it ends.
        """
        wide = self.config.light * max(self.golden.shape[:2]) / 2
        found = np.zeros(self.golden.shape, dtype=np.float32)
        for c in range(self.golden.shape[2]):
            lit = relit(self.golden[..., c], own[..., c], wide)
            apart = np.nan_to_num(beyond(own[..., c], lit, self.config.edge))
            found[..., c] = apart / self.spread[..., c]
        return found

    def _told(self, maps: Mapping[str, Field]) -> Judgement:
        whole = np.maximum(*maps.values())
        flat = np.partition(whole.ravel(), -_HIGHEST)[-_HIGHEST:]
        score = float(flat.mean())
        # Half at the limit, and never quite 1.
        limit = self.config.spreads
        heat = (whole / (whole + limit)).astype(np.float32)
        mass = {kind: float(np.maximum(one - limit, 0).sum()) for kind, one in maps.items()}
        total = sum(mass.values())
        kinds = {kind: one / total if total else 0.0 for kind, one in mass.items()}
        kinds[UNKNOWN] = 0.0 if total else 1.0
        boxes = [box for kind, one in maps.items() for box in self._boxes(one, heat, kind)]
        boxes.sort(key=lambda box: -box.score)
        verdict = self.thresholds.verdict(score) if self.thresholds else "REVIEW"
        return Judgement(score, heat, verdict, kinds, tuple(boxes))

    def _boxes(self, one: Field, heat: Field, kind: str) -> list[Box]:
        named, count = ndimage.label(one > self.config.spreads, structure=np.ones((3, 3)))
        sizes = ndimage.sum_labels(named > 0, named, range(1, count + 1))
        found = []
        for place, (rows, columns) in enumerate(ndimage.find_objects(named)):
            if sizes[place] >= self.config.least:
                inner = named[rows, columns] == place + 1
                score = float(heat[rows, columns][inner].max())
                left, right = float(columns.start), float(columns.stop)
                found.append(Box(left, float(rows.start), right, float(rows.stop), kind, score))
        return found

    def to_bytes(self) -> dict[str, bytes]:
        """Return the files of the detector by name: safetensors and JSON."""
        from safetensors.numpy import save

        arrays = {"golden": self.golden, "spread": self.spread, "ink": self.ink.astype(np.uint8)}
        limits = self.thresholds
        facts = {
            "format": _STORED.format,
            "config": asdict(self.config),
            "polarity": self.polarity,
            "thresholds": None if limits is None else limits.to_json(),
            "provenance": dict(self.provenance),
        }
        packed = save({name: np.ascontiguousarray(one) for name, one in arrays.items()})
        return {ARRAYS: packed, FACTS: json.dumps(facts, indent=1, allow_nan=False).encode()}

    @classmethod
    def from_bytes(cls, files: Mapping[str, bytes]) -> TemplateDetector:
        """Return the detector of `to_bytes`.

        Raises:
            DetectError: Not such files; says what is wrong.
        """
        from safetensors.numpy import load

        with reading(files, _STORED) as facts:
            golden, spread, ink = _arrays_of(load(files[ARRAYS]))
            limits = facts["thresholds"]
            return cls(
                golden,
                spread,
                ink,
                float(facts["polarity"]),
                TemplateConfig(**facts["config"]),
                facts["provenance"],
                None if limits is None else Thresholds.from_json(limits),
            )


def _arrays_of(arrays: Mapping[str, NDArray[np.generic]]) -> tuple[Planes, Planes, Mask]:
    golden, spread = (arrays[name].astype(np.float32) for name in ("golden", "spread"))
    ink = arrays["ink"].astype(np.bool_)
    shape = golden.shape
    if len(shape) != 3 or shape[2] not in (1, 3) or spread.shape != shape:
        raise DetectError(f"the golden sample has {shape}, its spread {spread.shape}")
    if ink.shape != shape[:2] or not (np.isfinite(golden).all() and (spread > 0).all()):
        raise DetectError("the golden sample holds numbers that are none")
    return golden, spread, ink


def planes_of(pixels: Pixels, count: int) -> Planes:
    """Return float32 [h, w, count] in [0, 1] of an image, gray (1) or in colour (3)."""
    if count == 3:
        found = rgb(pixels)
    else:
        gray = pixels if pixels.ndim == 2 else pixels @ np.array([0.299, 0.587, 0.114])
        found = gray[..., None]
    return np.asarray(found, np.float32) / np.float32(255)
