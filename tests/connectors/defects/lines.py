"""A line for tests: plates whose brightest spot says how defective they are, and what judges them.

The inspector is a real one in plain numpy, so that verdicts are known beforehand: a spot above 200
is NG, above 150 doubtful.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.cleaning.images.decode import decode
from tasks.cleaning.images.limits import ImageLimits
from tasks.defects.judgement import Judgement, Thresholds

SIDE = 24


class SpotInspector:
    """Judges by the brightest pixel; ``margin`` widens the doubtful band around 175."""

    def __init__(self, margin: float = 25.0, delay: float = 0.0) -> None:
        self.thresholds = Thresholds(175.0 - margin, 175.0 + margin)
        self.bits = 16
        self.digest = hashlib.sha256(f"spot {margin}".encode()).hexdigest()
        self._delay = delay

    def judge(self, pixels):
        time.sleep(self._delay)
        score = float(pixels.max())
        heat = (pixels.reshape(*pixels.shape[:2], -1).max(2) > 150).astype(np.float32)
        return Judgement(score, heat, self.thresholds.verdict(score), {"spot": 1.0})


class PlainDecoder:
    """The decoder of the sandbox without a process around it: starting one takes a second."""

    workers = 1
    limits = ImageLimits()

    def pixels(self, data):
        return decode(data, self.limits).pixels


PLAIN = PlainDecoder()


def plate(number: int, spot: int, *, side: int = SIDE) -> bytes:
    """A PNG unlike those of other numbers, with one spot."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(60, 100, (side, side), dtype=np.uint8)
    pixels[3:5, 3:5] = spot
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def spot_of(number: int) -> int:
    """0 to 9 in turn: 6 are good, 2 defective, 2 doubtful (of them one by a hair)."""
    return (90, 95, 100, 110, 120, 130, 220, 240, 160, 190)[number % 10]


VERDICTS = ("OK",) * 6 + ("NG",) * 2 + ("REVIEW",) * 2
FINAL = ("OK",) * 6 + ("NG",) * 2 + ("OK", "NG")
"""What a central inspector with no band says."""


def name_of(number: int) -> str:
    return f"{number:05d}.png"


def write_plates(folder: Path, numbers, *, old: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        path = folder / name_of(number)
        path.write_bytes(plate(number, spot_of(number)))
        if old:
            os.utime(path, (1_700_000_000, 1_700_000_000))
