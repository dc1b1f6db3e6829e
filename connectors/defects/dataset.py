"""A dataset in a folder: a table of what is known, and samples that are decoded when asked for."""

from __future__ import annotations

import hashlib
import json
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import polars as pl
import pyarrow as pa

from connectors.cleaning.image_files import ImageFile, read_image_file
from tasks.cleaning.images.sandbox import Sandbox
from tasks.defects.data.masks import binary_mask
from tasks.defects.data.shapes import Shape, drawn
from tasks.defects.data.turns import turned
from tasks.defects.samples import DEEPEST, Box, Label, Mask, Sample, eight_bits

FRAME: dict[str, Any] = {
    "name": pl.String,  # path within the folder
    "label": pl.String,  # ok, ng, null
    "kind": pl.String,
    "part": pl.String,
    "group": pl.Int64,
    "split": pl.String,  # by a folder of that name, ""
    "mask": pl.String,  # path within the folder, "" without one or where an annotation draws it
    "boxes": pl.Int64,
    "width": pl.Int64,  # upright
    "height": pl.Int64,
    "bits": pl.Int64,
    "orientation": pl.Int64,  # EXIF's, undone in the samples
    "sha256": pl.String,
    "pixels_sha256": pl.String,
}
"""Columns of a dataset's frame."""
CACHE_BYTES = 256 << 20


class ChangedFileError(OSError):
    """A file is no longer what was checked when the dataset was loaded."""


@dataclass(frozen=True, slots=True)
class MaskSource:
    """A mask's file, and how it is read.

    Attributes:
        file: Where it is.
        sha256: Of its bytes when it was checked.
        threshold: Level from which a pixel is on the defect.
        orientation: EXIF's of the image whose stored form it was drawn on, else 1.
    """

    file: ImageFile
    sha256: str
    threshold: int
    orientation: int


@dataclass(frozen=True, slots=True, eq=False)
class DrawnMask:
    """A mask by what an annotation draws.

    Attributes:
        shapes: Outlines and runs of all defects.
        width: Of the image that they were drawn on.
        height: Of the same.
        orientation: EXIF's of the image whose stored form it was drawn on, else 1.
        sha256: Of the shapes.
    """

    shapes: tuple[Shape, ...]
    width: int
    height: int
    orientation: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """An image of a dataset, checked, not decoded.

    Attributes:
        file: Where it is.
        sha256: Of its bytes when it was checked.
        label: ``ok``, ``ng`` or None.
        kind: Type of the defect, "".
        part: The physical part, "".
        boxes: In pixels of the image as it is shown.
        mask: Its mask, None without one.
        bits: Bits of a pixel that its line uses: above 8 the upper eight are taken.
    """

    file: ImageFile
    sha256: str
    label: Label | None = None
    kind: str = ""
    part: str = ""
    boxes: tuple[Box, ...] = ()
    mask: MaskSource | DrawnMask | None = None
    bits: int = 8


class Samples(Sequence[Sample]):
    """The images of a dataset, decoded in the sandbox when they are asked for.

    The latest are kept, up to a number of bytes; any thread may ask. Workers are started by the
    first image; own ones end with `close`, or with this object.

    Args:
        records: The images.
        sandbox: Workers that decode.
        own: Whether they end with these samples.
        cache_bytes: Bytes of samples that are kept.
    """

    def __init__(
        self,
        records: Sequence[Record],
        sandbox: Sandbox,
        *,
        own: bool = True,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.records = tuple(records)
        self._sandbox, self._own = sandbox, own
        self._kept: OrderedDict[int, Sample] = OrderedDict()
        self._held, self._most = 0, cache_bytes
        self._lock = threading.Lock()
        if own:
            weakref.finalize(self, sandbox.close)

    def close(self) -> None:
        """End the worker and forget the samples; a later call would start it again."""
        with self._lock:
            self._kept.clear()
            self._held = 0
        if self._own:
            self._sandbox.close()

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, place: int) -> Sample: ...

    @overload
    def __getitem__(self, place: slice) -> list[Sample]: ...

    def __getitem__(self, place: int | slice) -> Sample | list[Sample]:
        """Decode one image, or a list of them.

        Raises:
            ChangedFileError: When a file was changed since the dataset was loaded.
            ImageRefusedError: When it is gone.
        """
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
        sample = self._decoded(self.records[place])
        with self._lock:
            if place not in self._kept:
                self._kept[place] = sample
                self._held += _bytes(sample)
            while self._held > self._most and self._kept:
                self._held -= _bytes(self._kept.popitem(last=False)[1])
        return sample

    def _decoded(self, record: Record) -> Sample:
        pixels = self._pixels(record.file, record.sha256)
        pixels = eight_bits(pixels, record.bits)
        mask: Mask | None = None
        if isinstance(record.mask, DrawnMask):
            marked = drawn(record.mask.shapes, record.mask.width, record.mask.height)
            mask = np.ascontiguousarray(turned(marked, record.mask.orientation))
        elif record.mask is not None:
            found = self._pixels(record.mask.file, record.mask.sha256)
            height, width = pixels.shape[:2]
            upright = turned(cast("Any", found), record.mask.orientation)
            mask = binary_mask(upright, record.mask.threshold, width, height)
        return Sample(
            record.file.name,
            pixels,
            record.label,
            record.kind,
            mask,
            record.boxes,
            record.part,
        )

    def _pixels(self, file: ImageFile, sha256: str) -> Any:
        data = read_image_file(file, self._sandbox.limits.max_bytes)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ChangedFileError(f"{file.path} was changed since it was checked; load it again")
        return self._sandbox.pixels(data)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A folder of images, checked.

    Attributes:
        folder: Where it is.
        frame: One row per usable image with the columns of `FRAME`, by name.
        samples: The same images, decoded when asked for.
        quarantine: Records of what cannot be used (`QUARANTINE_SCHEMA`).
        findings: What was concluded from the folder, for people.
        rows_in: Images, and annotations or masks without one: used and quarantined together.
        digest: SHA-256 of the content: see `content_digest`.
    """

    folder: Path
    frame: pl.DataFrame
    samples: Samples
    quarantine: pa.Table
    findings: tuple[str, ...]
    rows_in: int
    digest: str

    @property
    def bits(self) -> int:
        """Bits in use of its deep images, `DEEPEST` where it has none."""
        deep = self.frame.filter(pl.col("bits") > 8)["bits"]
        return int(deep[0]) if len(deep) else DEEPEST  # one camera: the same of all

    def subset(self, names: Iterable[str]) -> list[Sample]:
        """Return the samples of names, decoded, in the order of the names.

        Raises:
            KeyError: When a name is not in the dataset.
        """
        places = {name: place for place, name in enumerate(self.frame["name"])}
        return [self.samples[places[name]] for name in names]

    def close(self) -> None:
        """End the worker that decodes."""
        self.samples.close()


def content_digest(records: Iterable[Record]) -> str:
    """Return the SHA-256 of what was learnt from, in hexadecimal.

    It covers the bytes of images and masks, labels, types, parts and boxes; neither names, nor the
    folder, nor the order count. It is that of the sorted lines of JSON, one per image.
    """
    lines = sorted(
        json.dumps(
            [
                record.sha256,
                record.label,
                record.kind,
                record.part,
                record.mask.sha256 if record.mask else "",
                [[b.left, b.top, b.right, b.bottom, b.kind] for b in record.boxes],
            ]
        )
        for record in records
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _bytes(sample: Sample) -> int:
    return sample.pixels.nbytes + (0 if sample.mask is None else sample.mask.nbytes)
