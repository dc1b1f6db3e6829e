"""Which image a mask or an annotation belongs to, by their names alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

IMAGE_FOLDERS = frozenset(
    {"images", "image", "imgs", "img", "jpegimages", "pictures", "data", "raw", "photos"}
)
"""Folders that say nothing but that images lie in them."""
MASK_FOLDERS = frozenset(
    {"mask", "masks", "ground_truth", "groundtruth", "gt", "segmentation", "segmentations", "seg"}
    | {"segmentationclass", "segmentationobject", "label", "labels", "annotation", "annotations"}
)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
NOTE_FOLDERS = frozenset({"label", "labels", "annotation", "annotations", "xml", "xmls", "txt"})
SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
MASK_ENDINGS = ("_mask", "-mask", ".mask", "_gt", "-gt", "_seg", "_label")


def stem_of(name: str) -> str:
    """Return the name of a file without folders and suffix."""
    return PurePosixPath(name).stem


def folders_of(name: str) -> tuple[str, ...]:
    """Return the folders of a path."""
    return PurePosixPath(name).parts[:-1]


def mask_ending(name: str) -> str:
    """Return the ending that calls a file a mask, such as ``_mask``; "" without one."""
    stem = stem_of(name).lower()
    return next((end for end in MASK_ENDINGS if stem.endswith(end) and stem != end), "")


class Lookup:
    """Images by name, from the most exact way of naming one to the least.

    Args:
        images: Paths within the dataset.
    """

    def __init__(self, images: Iterable[str]) -> None:
        self._ways: tuple[dict[str, list[str]], ...] = ({}, {}, {})
        for image in images:
            for way, key in zip(self._ways, _keys(image, stem_of(image)), strict=True):
                way.setdefault(key, []).append(image)

    def of(self, name: str, ending: str = "") -> list[str]:
        """Return the images that a file belongs to: one, none, or several that none can tell apart.

        Args:
            name: Path of a mask or annotation.
            ending: What its stem has behind the image's.
        """
        stem = stem_of(name)
        stem = stem[: len(stem) - len(ending)]
        for way, key in zip(self._ways, _keys(name, stem), strict=True):
            if found := way.get(key):
                return found
        return []

    def named(self, said: str) -> list[str]:
        """Return the images that an annotation may mean by a path of its author's machine.

        Those whose path ends with it; else those of its name; else, without a suffix, of its stem.
        """
        path = PurePosixPath(said.replace("\\", "/"))
        stems = self._ways[2]
        found = stems.get(path.stem.lower(), [])
        ends = [one for one in found if _is_end(one, path)]
        names = [one for one in found if PurePosixPath(one).name.lower() == path.name.lower()]
        return (
            ends or names or ([] if _has_suffix(path) else list(stems.get(path.name.lower(), ())))
        )


def _has_suffix(path: PurePosixPath) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _is_end(image: str, path: PurePosixPath) -> bool:
    parts = tuple(part for part in path.parts if part not in {"/", "."})
    return bool(parts) and PurePosixPath(image).parts[-len(parts) :] == parts


def _keys(name: str, stem: str) -> tuple[str, str, str]:
    folders = [folder.lower() for folder in folders_of(name)]
    kept = [f for f in folders if f not in IMAGE_FOLDERS | MASK_FOLDERS | NOTE_FOLDERS]
    stem = stem.lower()
    unsplit = [f for f in kept if f not in SPLIT_FOLDERS]
    return "/".join([*kept, stem]), "/".join([*unsplit, stem]), stem
