"""A fitted detector: judges images, and goes into bytes and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from models.defect_net import DefectNetShape
from tasks.defects.detect.config import DetectConfig, DetectError
from tasks.defects.detect.metrics import resized
from tasks.defects.detect.scorer import ScorerShape, SurfaceScorer
from tasks.defects.detect.stored import StoredKind, reading
from tasks.defects.edge.tiles import tiles
from tasks.defects.judgement import Heat, Judgement, Thresholds
from tasks.defects.samples import Pixels, rgb

LEAST_SIDE = 8
WEIGHTS, FACTS = "scorer.safetensors", "detector.json"
_STORED = StoredKind("a detector", "surface-detector/4", WEIGHTS, FACTS, 64 * 2**20)


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """Judges images of one line.

    Attributes:
        scorer: The deployable part, in evaluation mode.
        config: How it was fitted.
        provenance: JSON facts of the fit: counts, digest of the samples, held-out figures.
        thresholds: Where the verdicts part; without them every verdict is REVIEW.
    """

    scorer: SurfaceScorer
    config: DetectConfig
    provenance: Mapping[str, Any] = field(default_factory=dict)
    thresholds: Thresholds | None = None

    def judge(self, images: Sequence[Pixels]) -> list[Judgement]:
        """Judge images of any sizes, each at its own scale.

        Args:
            images: uint8 [h, w] or [h, w, 3] each; sides of at least 8. Above `DetectConfig.side`
                an image is judged in overlapping tiles, and its score is that of the worst one.

        Raises:
            DetectError: An image that cannot be judged; says which place and why.
        """
        return [self._judge(place, pixels) for place, pixels in enumerate(images)]

    def _judge(self, place: int, pixels: Pixels) -> Judgement:
        check_pixels(pixels, f"image {place}")
        height, width = pixels.shape[:2]
        heat = np.zeros((height, width), dtype=np.float32)
        best = -1.0
        kinds: dict[str, float] = {}
        for window in tiles(height, width, self.config.side):
            score, part, types = self._look(pixels[window])
            heat[window] = np.maximum(heat[window], part)
            if score > best:
                best, kinds = score, types
        verdict = self.thresholds.verdict(best) if self.thresholds else "REVIEW"
        return Judgement(best, heat, verdict, kinds)

    @torch.inference_mode()
    def _look(self, pixels: Pixels) -> tuple[float, Heat, dict[str, float]]:
        found = self.scorer(tensor_of(pixels)[None])
        heat = resized(found.heat[0, 0].numpy(), pixels.shape[:2])
        types = dict(zip(self.scorer.kinds, found.kinds[0].tolist(), strict=True))
        return float(found.score[0]), heat, types

    def to_bytes(self) -> dict[str, bytes]:
        """Return the files of the detector by name: safetensors and JSON."""
        from safetensors.torch import save

        state = {name: one.contiguous() for name, one in self.scorer.state_dict().items()}
        limits = self.thresholds
        facts = {
            "format": _STORED.format,
            "shape": asdict(self.scorer.shape),
            "size": self.scorer.size,
            "config": asdict(self.config),
            "thresholds": None if limits is None else limits.to_json(),
            "provenance": dict(self.provenance),
        }
        return {WEIGHTS: save(state), FACTS: json.dumps(facts, indent=1, allow_nan=False).encode()}

    @classmethod
    def from_bytes(cls, files: Mapping[str, bytes]) -> Detector:
        """Return the detector of `to_bytes`.

        Raises:
            DetectError: Not such files; says what is wrong.
        """
        from safetensors.torch import load

        with reading(files, _STORED) as facts:
            scorer = SurfaceScorer(_shape_of(facts), facts["size"] and tuple(facts["size"]))
            scorer.load_state_dict(load(files[WEIGHTS]))
            limits = facts["thresholds"]
            return cls(
                scorer.eval(),
                DetectConfig(**facts["config"]),
                facts["provenance"],
                None if limits is None else Thresholds.from_json(limits),
            )


def _shape_of(facts: Mapping[str, Any]) -> ScorerShape:
    given: dict[str, Any] = dict(facts["shape"])
    given |= {"net": DefectNetShape.from_json(given["net"]), "kinds": tuple(given["kinds"])}
    return ScorerShape(**given)


def tensor_of(pixels: Pixels) -> torch.Tensor:
    """Return float [3, h, w] in [0, 1] of uint8 [h, w] or [h, w, 3]."""
    whole = torch.from_numpy(np.ascontiguousarray(rgb(pixels))).permute(2, 0, 1)
    return whole.to(torch.float32) / 255


def check_pixels(pixels: Pixels, name: str) -> None:
    """Raise `DetectError` for pixels that cannot be judged."""
    shape = pixels.shape
    if pixels.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)):
        raise DetectError(f"{name}: {pixels.dtype} {shape}; give uint8 [h, w] or [h, w, 3]")
    if min(shape[:2]) < LEAST_SIDE:
        raise DetectError(f"{name}: {shape[:2]} pixels; sides must be at least {LEAST_SIDE}")
