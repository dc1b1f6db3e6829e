"""An inspector whose boxes are drawn by a detector of boxes, learned from labelled ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.defects.inspect.added import AddingInspector
from connectors.defects.inspect.inspector import Inspector
from tasks.defects.bundle.bundle import DefectBundle
from tasks.defects.judgement import Judgement
from tasks.defects.samples import Pixels

if TYPE_CHECKING:
    from tasks.defects.boxes.detector import BoxDetector


class BoxedInspector(AddingInspector):
    """Judges as another inspector, and draws the boxes of what is not OK."""

    def __init__(self, inspector: Inspector, boxes: BoxDetector, digest: str) -> None:
        """Put both together.

        Args:
            inspector: Decides and names.
            boxes: Draws.
            digest: Of the files of the detector of boxes.
        """
        super().__init__(inspector, digest)
        self._boxes = boxes

    def _add(self, said: Judgement, pixels: Pixels) -> Judgement:
        from tasks.defects.boxes.verdict import boxed

        return boxed(said, self._boxes.judge([pixels])[0], self._boxes.config.told)


def with_boxes(inspector: Inspector, bundle: DefectBundle) -> Inspector:
    """Return an inspector that draws boxes as a bundle does, where that has a detector of them."""
    boxes = bundle.boxes()
    if boxes is None:
        return inspector
    digest = " ".join(bundle.manifest.files[name].sha256 for name in bundle.box_files)
    return BoxedInspector(inspector, boxes, digest)
