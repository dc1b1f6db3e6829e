"""How a folder is read as a dataset."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from connectors.defects.annotation_files import AnnotationForm
from tasks.cleaning.images.likeness import LikenessConfig
from tasks.defects.data.layout import LayoutOptions


class DatasetError(ValueError):
    """A folder that gives no dataset; says why and how to mend it."""


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """How a folder is read, where what is found out would be wrong.

    Attributes:
        layout: What names of folders and files mean.
        annotations: Form of the annotation files; ``auto`` takes the one that there is.
        index: A CSV that says what belongs to the dataset, with paths within the folder; the
            folder's own ``index.csv`` if None.
        voc_from: What VOC's pixels count from, 0 or 1; None finds out.
        drawn_on: Whether boxes and masks of images with an EXIF turn were drawn on the ``stored``
            or the ``shown`` form; ``auto`` goes by the sizes that they say, else stored.
        mask_threshold: Level, 1 to 255, from which a mask's pixel is on the defect; None finds out.
        resize_masks: Whether a mask of the same shape but of another size is brought to the
            image's.
        parts: A CSV that says which images show one part.
        part_pattern: A regular expression that finds the part in an image's path.
        copies: Whether images with equal pixels are set ``aside`` but for one, or ``kept``.
        near_copies: Whether images that are nearly the same are a ``group``, or set ``aside`` but
            for one, or are ``kept`` apart. Where every part is named and over a quarter are near
            copies, parts look alike by nature, and names count alone.
        likeness: When two images are nearly the same.
    """

    layout: LayoutOptions = field(default_factory=LayoutOptions)
    annotations: AnnotationForm = "auto"
    index: Path | None = None
    voc_from: Literal[0, 1] | None = None
    drawn_on: Literal["auto", "stored", "shown"] = "auto"
    mask_threshold: int | None = None
    resize_masks: bool = False
    parts: Path | None = None
    part_pattern: str = ""
    copies: Literal["aside", "kept"] = "aside"
    near_copies: Literal["group", "aside", "kept"] = "group"
    likeness: LikenessConfig = field(default_factory=LikenessConfig)

    def __post_init__(self) -> None:
        """Refuse what does not exist, naming the choices."""
        choices: dict[str, tuple[object, ...]] = {
            "annotations": ("auto", "none", "voc", "coco", "yolo"),
            "voc_from": (None, 0, 1),
            "drawn_on": ("auto", "stored", "shown"),
            "copies": ("aside", "kept"),
            "near_copies": ("group", "aside", "kept"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                listed = ", ".join(map(str, allowed))
                raise DatasetError(f"{name} is {getattr(self, name)!r}; choose of {listed}")
        if self.mask_threshold is not None and not 1 <= self.mask_threshold <= 255:
            raise DatasetError(f"mask_threshold is {self.mask_threshold}; give 1 to 255")
