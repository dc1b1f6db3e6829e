"""A fitted detector of boxes: judges images, and goes into bytes and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.defect_net import DefectNetShape
from tasks.defects.boxes.config import FACTS, TYPES, WEIGHTS, BoxConfig
from tasks.defects.boxes.fusion import non_maximum_suppression, weighted_box_fusion
from tasks.defects.boxes.iou import Edges
from tasks.defects.boxes.scorer import CELL, BoxScorer, BoxShape
from tasks.defects.classify.descriptors import Cache
from tasks.defects.classify.fit import TypeClassifier
from tasks.defects.classify.pack import packed, unpacked
from tasks.defects.detect.detector import check_pixels, tensor_of
from tasks.defects.detect.stored import StoredKind, reading
from tasks.defects.samples import Box, Pixels

_STORED = StoredKind("a detector of boxes", "box-detector/1", WEIGHTS, FACTS, 64 * 2**20)
_MIRRORED: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
"""Axes along which each view of [n, 3, h, w] is turned around."""


class ImageProposals(NamedTuple):
    """What the scorer proposes in one image, all views together.

    Attributes:
        edges: float64 [n, 4] in pixels of the image.
        score: float64 [n].
        kind: int64 [n].
    """

    edges: Edges
    score: NDArray[np.float64]
    kind: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class BoxDetector:
    """Finds boxes in images of one line.

    Attributes:
        scorer: The net, in evaluation mode.
        types: Says what type the whole image shows; None where only one is known.
        config: How it was fitted.
        provenance: JSON facts of the fit.
    """

    scorer: BoxScorer
    types: TypeClassifier | None
    config: BoxConfig
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def judge(self, images: Sequence[Pixels], cache: Cache | None = None) -> list[list[Box]]:
        """Return the boxes of each image, best first, in its own pixels.

        Args:
            images: uint8 [h, w] or [h, w, 3] each, of any size from 8 pixels; those longer than
                `BoxConfig.side` are brought down to it.
            cache: Descriptors of `tasks.defects.classify.descriptors.describe` by digest.

        Raises:
            DetectError: An image that cannot be judged; says which place and why.
        """
        for place, pixels in enumerate(images):
            check_pixels(pixels, f"image {place}")
        factors = self.evidence(images, cache)
        return [
            self.merge(self.propose(pixels), factor, pixels.shape[:2])
            for pixels, factor in zip(images, factors, strict=True)
        ]

    def evidence(self, images: Sequence[Pixels], cache: Cache | None = None) -> NDArray[np.float64]:
        """Return what the whole of each image says of each type, [n, kinds]; 1 says nothing."""
        kinds = self.scorer.shape.kinds
        if self.types is None or not self.config.evidence:
            return np.ones((len(images), len(kinds)))
        even = 1 / len(kinds)  # of a type that no whole image was labelled as
        judged = self.types.judge(images, cache)
        each = [[one.probabilities.get(kind, even) for kind in kinds] for one in judged]
        found = np.array(each, np.float64).reshape(len(images), len(kinds))
        return np.asarray(found**self.config.evidence)

    @torch.inference_mode()
    def propose(self, pixels: Pixels) -> ImageProposals:
        """Return what the scorer proposes in one image, before anything is put together."""
        small, zooms = brought(pixels, self.config.side)
        views = _MIRRORED if self.config.flips else _MIRRORED[:1]
        batch = torch.cat([small.flip(axes) if axes else small for axes in views])
        found = self.scorer(batch)
        edges = found.edges.double()
        height, width = small.shape[-2:]
        for view, axes in enumerate(views):
            for axis, length in ((3, width), (2, height)):
                if axis in axes:
                    low = 3 - axis
                    first, last = edges[view, :, low].clone(), edges[view, :, low + 2].clone()
                    edges[view, :, low], edges[view, :, low + 2] = length - last, length - first
        whole = edges.flatten(0, 1).numpy() / np.array(zooms * 2)
        return ImageProposals(
            whole, found.score.double().flatten().numpy(), found.kind.flatten().numpy()
        )

    def merge(
        self, proposals: ImageProposals, factor: NDArray[np.float64], size: tuple[int, ...]
    ) -> list[Box]:
        """Return one box for each group of proposals.

        Args:
            proposals: Of one image.
            factor: float64 [kinds], what each score is multiplied by.
            size: Height and width of the image.
        """
        views = len(_MIRRORED) if self.config.flips else 1
        edges = np.clip(proposals.edges, 0, np.array([size[1], size[0]] * 2))
        sound = (edges[:, 2:] - edges[:, :2]).min(axis=1, initial=np.inf) >= 1
        sound &= proposals.score * factor[proposals.kind] >= self.config.least
        found: list[Box] = []
        for place, kind in enumerate(self.scorer.shape.kinds):
            mine = sound & (proposals.kind == place)
            if not mine.any():
                continue
            means, scores = weighted_box_fusion(
                edges[mine], proposals.score[mine], self.config.nms_iou, views
            )
            for one in non_maximum_suppression(means, scores, self.config.nms_iou):
                score = float(scores[one] * factor[place])
                if score >= self.config.least:
                    left, top, right, bottom = means[one].tolist()
                    found.append(Box(left, top, right, bottom, kind, score))
        return sorted(found, key=lambda box: -box.score)[: self.config.most]

    def to_bytes(self) -> dict[str, bytes]:
        """Return the files of the detector by name: safetensors, JSON and the types' npz."""
        from safetensors.torch import save

        state = {name: one.contiguous() for name, one in self.scorer.state_dict().items()}
        facts = {
            "format": _STORED.format,
            "shape": asdict(self.scorer.shape),
            "config": asdict(self.config),
            "provenance": dict(self.provenance),
        }
        found = {WEIGHTS: save(state), FACTS: json.dumps(facts, indent=1).encode()}
        return found if self.types is None else found | {TYPES: packed(self.types)}

    @classmethod
    def from_bytes(cls, files: Mapping[str, bytes]) -> BoxDetector:
        """Return the detector of `to_bytes`.

        Raises:
            DetectError: Not such files; says what is wrong.
        """
        from safetensors.torch import load

        with reading(files, _STORED) as facts:
            scorer = BoxScorer(_shape_of(facts))
            scorer.load_state_dict(load(files[WEIGHTS]))
            types = unpacked(files[TYPES]) if TYPES in files else None
            return cls(scorer.eval(), types, BoxConfig(**facts["config"]), facts["provenance"])


def brought(pixels: Pixels, side: int) -> tuple[torch.Tensor, tuple[float, float]]:
    """Return float [1, 3, h, w] in [0, 1] for the scorer, and its zooms along x and y.

    The longest side is at most ``side``; right and bottom borders are repeated until both sides
    are multiples of `CELL`.
    """
    whole = tensor_of(pixels)[None]
    height, width = pixels.shape[:2]
    size = height, width
    if (zoom := side / max(size)) < 1:
        size = max(CELL, round(height * zoom)), max(CELL, round(width * zoom))
        whole = functional.interpolate(
            whole, size=size, mode="bilinear", antialias=True, align_corners=False
        )
    padded = functional.pad(whole, (0, -size[1] % CELL, 0, -size[0] % CELL), mode="replicate")
    return padded, (size[1] / width, size[0] / height)


def _shape_of(facts: Mapping[str, Any]) -> BoxShape:
    given: dict[str, Any] = dict(facts["shape"])
    return BoxShape(
        **given | {"net": DefectNetShape.from_json(given["net"]), "kinds": tuple(given["kinds"])}
    )
