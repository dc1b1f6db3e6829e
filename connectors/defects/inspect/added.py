"""An inspector that adds to what another one says of images that are not OK."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

from connectors.defects.inspect.inspector import Inspector
from tasks.defects.judgement import Judgement, Thresholds
from tasks.defects.samples import Pixels


class AddingInspector(ABC):
    """Decides as another inspector.

    Attributes:
        thresholds: Of the other inspector.
        digest: SHA-256 over both.
        bits: Of the other inspector.
    """

    def __init__(self, inspector: Inspector, digest: str) -> None:
        """Take the inspector that decides, and the digest of what adds to it."""
        self._inspector = inspector
        self.thresholds: Thresholds = inspector.thresholds
        self.bits = inspector.bits
        self.digest = hashlib.sha256(f"{inspector.digest} {digest}".encode()).hexdigest()

    def judge(self, pixels: Pixels) -> Judgement:
        """Judge uint8 [h, w] or [h, w, 3]."""
        said = self._inspector.judge(pixels)
        return said if said.verdict == "OK" else self._add(said, pixels)

    @abstractmethod
    def _add(self, said: Judgement, pixels: Pixels) -> Judgement:
        """Return the judgement of an image that is not OK, with what is added."""
