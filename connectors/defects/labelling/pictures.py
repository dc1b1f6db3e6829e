"""The images of a folder as the page shows them: decoded in the sandbox, bounded, made anew."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from connectors.cleaning.image_files import ImageFile, list_images, read_image_file
from connectors.defects.labelling.detector import Detector
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.cleaning.images.sandbox import Sandbox
from tasks.defects.data.layout import find_layout
from tasks.defects.judgement import Heat, Judgement
from tasks.defects.samples import Pixels, eight_bits

SHOWN = 1_280
"""Pixels of the longer side on the page; larger images are brought to it."""
KEPT = 24
"""Pictures kept for the next time."""


class Pictures:
    """The images of a folder, by their place in the listing; used from any thread.

    Args:
        folder: Where they lie.
        sandbox: Decodes them.
        detector: Says where an image looks defective; None where nobody knows.

    Attributes:
        files: Those that may be read; masks of others are no images.
        kinds: Types of defects that folders or files are named after.
        detector: As given.
        troubles: Name -> why it is not shown.

    Raises:
        ImageFolderError: When the folder cannot be read.
        LayoutError: When every image would be a mask.
    """

    def __init__(self, folder: Path, sandbox: Sandbox, detector: Detector | None = None) -> None:
        self.kinds: tuple[str, ...] = ()
        listed = list_images(folder).files
        if listed:
            found = find_layout([file.name for file in listed]).places
            images = {place.image for place in found}
            listed = tuple(file for file in listed if file.name in images)
            self.kinds = tuple(dict.fromkeys(place.kind for place in found if place.kind))
        self.files: tuple[ImageFile, ...] = tuple(file for file in listed if not file.trouble)
        self.troubles: dict[str, str] = {file.name: file.trouble for file in listed if file.trouble}
        self.places: Mapping[str, int] = {file.name: i for i, file in enumerate(self.files)}
        self._sandbox, self.detector = sandbox, detector
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._sizes: dict[int, tuple[int, int]] = {}

    @property
    def has_heat(self) -> bool:
        """Whether maps of defects can be shown."""
        return self.detector is not None

    def pixels(self, place: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Return one image as it is.

        Raises:
            ImageRefusedError: When it cannot be used; it is among the troubles from then on.
        """
        file = self.files[place]
        try:
            data = read_image_file(file, self._sandbox.limits.max_bytes)
            pixels = self._sandbox.pixels(data)
        except ImageRefusedError as error:
            with self._lock:
                self.troubles[file.name] = str(error)
            raise
        with self._lock:
            self._sizes[place] = pixels.shape[1], pixels.shape[0]
        return pixels

    def size(self, place: int) -> tuple[int, int]:
        """Return width and height.

        Raises:
            ImageRefusedError: As `pixels`.
        """
        if place not in self._sizes:
            self.pixels(place)
        return self._sizes[place]

    def image(self, place: int) -> bytes:
        """Return one image as PNG, at most 1,280 pixels a side.

        Raises:
            ImageRefusedError: As `pixels`.
        """
        return self._once(("image", place), lambda: _png(to_8_bits(self.pixels(place))))

    def thumbnail(self, place: int) -> bytes:
        """Return one image as PNG, at most 160 pixels a side.

        Raises:
            ImageRefusedError: As `pixels`.
        """
        file = self.files[place]
        limit = self._sandbox.limits.max_bytes
        return self._once(
            ("thumbnail", place), lambda: self._sandbox.thumbnail(read_image_file(file, limit))
        )

    def heat(self, place: int) -> bytes:
        """Return where one image looks defective as PNG to be laid over it.

        Raises:
            ImageRefusedError: As `pixels`.
            LookupError: When nobody knows.
        """

        def drawn() -> bytes:
            judgement = self.judged(self.pixels(place))
            if judgement is None:
                raise LookupError("no detector is there that judges this image")
            return _png(heat_colours(judgement.heat))

        return self._once(("heat", place), drawn)

    def judged(self, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Judgement | None:
        """Return what the detector says of pixels; None without one, or where it judges no such."""
        if self.detector is None:
            return None
        try:
            return self.detector.judge(eight_bits(pixels, self.detector.bits))
        except ValueError:  # a size that it does not judge
            return None

    def _once(self, key: tuple[str, int], make: Callable[[], bytes]) -> bytes:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made


def to_8_bits(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Pixels:
    """Return an image in 8 bits; one of 16 from its darkest to its brightest thousandth."""
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, np.uint8)
    low, high = np.quantile(pixels, [0.001, 0.999])
    spread = np.clip((pixels - low) / max(high - low, 1.0), 0, 1)
    return np.asarray(np.rint(255 * spread), np.uint8)


def heat_colours(heat: Heat) -> NDArray[np.uint8]:
    """Return uint8 [h, w, 4]: nothing where it is 0, through yellow to red where it is 1."""
    value = np.clip(np.nan_to_num(heat), 0, 1)
    colours = np.zeros((*value.shape, 4), np.uint8)
    colours[..., 0] = 255
    colours[..., 1] = np.rint(230 * (1 - value))
    colours[..., 3] = np.rint(190 * np.sqrt(value))
    return colours


def digest(pixels: NDArray[np.generic]) -> str:
    """Return the SHA-256 of an image's pixels and form."""
    form = f"{pixels.shape}{pixels.dtype}".encode()
    return hashlib.sha256(form + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((SHOWN, SHOWN), Image.Resampling.BOX)
    held = io.BytesIO()
    picture.save(held, "PNG", compress_level=1)
    return held.getvalue()
