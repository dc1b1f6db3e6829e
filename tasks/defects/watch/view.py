"""What a watch keeps of one part's image: a few numbers and a small gray picture."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np

from tasks.cleaning.images.features import gray_of
from tasks.defects.samples import Pixels
from tasks.defects.watch.camera import SIDE, small_gray
from tasks.defects.watch.exposure import PERCENTILES, brightness


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One image of a part; learnt from or looked at in place of its pixels.

    Attributes:
        score: The model's.
        brightness: As `exposure.brightness` gives it, of the whole image.
        small: uint8 [SIDE, SIDE], for the camera.
        unknown: Whether a defect of unknown type was found.
    """

    score: float
    brightness: dict[str, float]
    small: Pixels
    unknown: bool = False

    @classmethod
    def of(cls, pixels: Pixels, score: float, *, unknown: bool = False) -> View:
        """Return the view of an image, uint8 [h, w] or [h, w, 3]."""
        gray = gray_of(pixels).astype(np.uint8, copy=False)
        return cls(float(score), brightness(gray), small_gray(gray), unknown)

    def state(self) -> tuple[str, bytes]:
        """Return numbers as JSON, and the small image: some 16 kB."""
        numbers = {"score": self.score, "unknown": self.unknown, **self.brightness}
        return json.dumps(numbers, allow_nan=False), self.small.tobytes()

    @classmethod
    def restored(cls, numbers: str, small: bytes) -> View:
        """Return the view of a state.

        Raises:
            ValueError: It is none.
        """
        try:
            said = json.loads(numbers)
            levels = {
                name: float(said[name]) for name in (f"brightness_p{q:02d}" for q in PERCENTILES)
            }
            score, unknown = float(said["score"]), bool(said["unknown"])
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"no view of an image ({error!r}); learn the watch anew") from error
        if len(small) != SIDE * SIDE or not all(map(math.isfinite, (score, *levels.values()))):
            raise ValueError("a view of an image is damaged; learn the watch anew")
        return cls(score, levels, np.frombuffer(small, np.uint8).reshape(SIDE, SIDE), unknown)
