"""An inspector whose defects are named by a classifier of types, learned from few labels."""

from __future__ import annotations

import hashlib

from connectors.defects.inspect.inspector import Inspector
from tasks.defects.bundle.bundle import TYPES, DefectBundle
from tasks.defects.classify.found import FoundTypes
from tasks.defects.judgement import Judgement, Thresholds
from tasks.defects.samples import Pixels


class TypedInspector:
    """Judges as another inspector, and names the type of what is not OK.

    Attributes:
        thresholds: Of the other inspector.
        digest: SHA-256 over both.
        bits: Of the other inspector.
    """

    def __init__(self, inspector: Inspector, types: FoundTypes, digest: str) -> None:
        """Put both together.

        Args:
            inspector: Decides.
            types: Names.
            digest: SHA-256 of the types' file.
        """
        self._inspector, self._types = inspector, types
        self.thresholds: Thresholds = inspector.thresholds
        self.bits = inspector.bits
        self.digest = hashlib.sha256(f"{inspector.digest} {digest}".encode()).hexdigest()

    def judge(self, pixels: Pixels) -> Judgement:
        """Judge uint8 [h, w] or [h, w, 3]."""
        said = self._inspector.judge(pixels)
        if said.verdict == "OK":
            return said
        return self._types.named(pixels, said)


def with_types(inspector: Inspector, bundle: DefectBundle) -> Inspector:
    """Return an inspector that names what it finds as a bundle does, where that knows types."""
    types = bundle.types()
    if types is None:
        return inspector
    return TypedInspector(inspector, types, bundle.manifest.files[TYPES].sha256)
