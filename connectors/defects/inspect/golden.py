"""A golden sample on the line."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np

from connectors.defects.golden import open_golden
from tasks.defects.judgement import UNKNOWN, Judgement, Thresholds
from tasks.defects.samples import DEEPEST, Pixels
from tasks.defects.template.config import AlignError
from tasks.defects.template.detector import EXTRA, MISSING

logger = logging.getLogger(__name__)


class GoldenInspector:
    """Compares images with a golden sample.

    Attributes:
        thresholds: As they were promised.
        digest: SHA-256 of the folder's manifest.
        bits: In use of deep images.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder that `make_golden` wrote.

        Raises:
            BundleError: It is none.
        """
        self._detector, self.digest = open_golden(folder)
        limits = self._detector.thresholds
        self.thresholds: Thresholds = limits or Thresholds(-math.inf, math.inf)
        self.bits = int(self._detector.provenance.get("bits", DEEPEST))

    def judge(self, pixels: Pixels) -> Judgement:
        """Judge uint8 [h, w] or [h, w, 3].

        What cannot be laid on the golden sample goes to a person: its score is no number.
        """
        try:
            return self._detector.judge([pixels])[0]
        except AlignError as error:
            logger.warning("%s", error)
            heat = np.zeros(pixels.shape[:2], dtype=np.float32)
            kinds = {MISSING: 0.0, EXTRA: 0.0, UNKNOWN: 1.0}
            return Judgement(math.nan, heat, "REVIEW", kinds)
