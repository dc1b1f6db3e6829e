"""What is checked on the images of a folder on their way into a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from connectors.cleaning.image_files import ImageFile, Listing
from connectors.defects.dataset import DrawnMask, MaskSource
from connectors.defects.options import DatasetOptions
from tasks.cleaning.images.checks import COPY, NEAR_COPY, UNIFORM, Flag
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.cleaning.images.likeness import twins
from tasks.cleaning.images.reference import uniform
from tasks.cleaning.images.sandbox import MeasuredImage, Sandbox
from tasks.cleaning.quarantine import Rule
from tasks.defects.data.annotation import Annotation
from tasks.defects.data.groups import group_ids, mixed_groups
from tasks.defects.data.layout import Place
from tasks.defects.data.masks import MaskError, MaskFacts, fitted, mask_facts, usual_threshold
from tasks.defects.data.settle import Conflict, Seen, copies, fitted_box, settled
from tasks.defects.data.turns import stored_size, turned_box
from tasks.defects.samples import Box, Label

VERSION = "defects-data/1"
Given = TypeVar("Given")
Found = TypeVar("Found")


@dataclass(slots=True)
class Candidate:
    """An image on its way into the dataset; `flag` says why it will not be in it."""

    file: ImageFile
    place: Place
    part: str = ""
    annotation: Annotation | None = None
    indexed: bool = False
    measured: MeasuredImage | None = None
    boxes: tuple[Box, ...] = ()
    mask: MaskSource | DrawnMask | None = None
    marked: int | None = None
    label: Label | None = None
    kind: str = ""
    flag: Flag | None = None

    @property
    def orientation(self) -> int:
        """EXIF's, 1 where it is none; what a worker says is looked at before it is believed."""
        said = self.measured.facts.get("orientation") if self.measured else 1
        return said if isinstance(said, int) and 1 <= said <= 8 else 1

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height of the image upright."""
        facts = self.measured.facts if self.measured else {"width": 0, "height": 0}
        return facts["width"], facts["height"]

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the image as it is stored."""
        return stored_size(*self.shown, self.orientation)

    def refuse(self, rule: str, observed: str, expected: str, *, warning: bool = False) -> None:
        """Set the image aside, unless it is already."""
        if self.flag is None:
            self.flag = flag_of(rule, observed, expected, warning=warning)


def fit_boxes(images: Iterable[Candidate], options: DatasetOptions) -> None:
    """Turn boxes upright and fit them to their image."""
    for image in images:
        note = image.annotation
        if note is None or image.measured is None or image.flag is not None:
            continue
        said = note.size
        if said is not None and said not in {image.stored, image.shown}:
            sizes = f"annotated at {said[0]} x {said[1]}, image {image.shown[0]} x {image.shown[1]}"
            image.refuse("annotation-size", sizes, "boxes of the image's own size")
            continue
        turn = not image.indexed and drawn_on_stored(image, said, options)
        try:
            image.boxes = tuple(
                fitted_box(
                    turned_box(box, image.orientation, *image.stored) if turn else box, *image.shown
                )
                for box in note.boxes
            )
        except Conflict as error:
            image.refuse(error.rule, error.observed, error.expected)


def drawn_on_stored(
    image: Candidate, size: tuple[int, int] | None, options: DatasetOptions
) -> bool:
    """Say whether something of this size was drawn on the stored form of a turned image."""
    if options.drawn_on != "auto" or size is None:
        return options.drawn_on != "shown"
    shape = [size[0] * side[1] == size[1] * side[0] for side in (image.stored, image.shown)]
    return shape[0] or not shape[1]


def fit_masks(
    images: Sequence[Candidate],
    listing: Listing,
    sandbox: Sandbox,
    read: Callable[[ImageFile], bytes],
    held: dict[int, tuple[int, str]],
    options: DatasetOptions,
) -> list[str]:
    """Check the masks and lay them to their images."""
    files = {file.name: file for file in listing.files}
    wanted = [image for image in images if image.place.mask and image.flag is None]

    def one(image: Candidate) -> tuple[MaskFacts, bool] | ImageRefusedError:
        if image.place.mask not in files:
            return ImageRefusedError("missing", image.place.mask[:200], "a mask of the folder")
        try:
            data = read(files[image.place.mask])
            turned = image.orientation != 1 and sandbox.measure(data).facts["orientation"] != 1
            return mask_facts(sandbox.pixels(data)), turned
        except ImageRefusedError as error:
            return error

    found: list[tuple[Candidate, MaskFacts, bool]] = []
    for image, outcome in zip(wanted, _each(one, wanted, sandbox.workers), strict=True):
        if isinstance(outcome, ImageRefusedError):
            observed = f"{image.place.mask}: {outcome.observed}"
            image.refuse(f"mask-{outcome.rule}", observed, outcome.expected)
        else:
            found.append((image, *outcome))
    threshold = options.mask_threshold or usual_threshold(facts for _, facts, _ in found)
    counts: Counter[str] = Counter()
    for image, facts, upright in found:
        size = facts.width, facts.height
        # One with a turn of its own has been turned by decoding.
        turn = not image.indexed and not upright and drawn_on_stored(image, size, options)
        try:
            fitted(facts, *(image.stored if turn else image.shown), resize=options.resize_masks)
        except MaskError as error:
            image.refuse("mask-unfit", f"{image.place.mask}: {error}", "a mask of the image's size")
            continue
        marked = facts.marked(threshold)
        counts["soft"] += facts.soft and threshold != 1
        counts["resized"] += size not in {image.stored, image.shown}
        counts["large"] += 2 * marked > facts.width * facts.height
        if not marked and (image.place.label == "ng" or image.boxes):
            counts["empty"] += 1
            continue
        file = files[image.place.mask]
        orientation = image.orientation if turn else 1
        image.mask = MaskSource(file, held[file.row][1], threshold, orientation)
        image.marked = marked
    return _about_masks(counts, len(found), threshold, told=options.mask_threshold is not None)


def _about_masks(counts: Counter[str], number: int, threshold: int, *, told: bool) -> list[str]:
    if not number:
        return []
    why = "as told" if told else "numbers of types" if threshold == 1 else "half of white"
    says = {
        "soft": "have soft or noisy edges",
        "resized": "were brought to the size of their image",
        "large": "mark more than half of their image: are they inverted?",
        "empty": "of defective images mark nothing: taken as not drawn",
    }
    return [
        f"masks: {number:,}, a pixel is on the defect from level {threshold} ({why})",
        *(f"  {counts[name]:,} {text}" for name, text in says.items() if counts[name]),
    ]


def deep_bits(
    images: Sequence[Candidate], sandbox: Sandbox, read: Callable[[ImageFile], bytes]
) -> int:
    """Return how many bits the 16-bit images use: 16 only where a camera does not use fewer."""

    def highest(image: Candidate) -> int:
        try:
            return int(sandbox.pixels(read(image.file)).max())
        except ImageRefusedError as error:
            image.refuse(error.rule, error.observed, error.expected)
            return 0

    deep = [
        image
        for image in images
        if image.flag is None and image.measured and image.measured.facts["bits"] > 8
    ]
    most = max(_each(highest, deep, sandbox.workers), default=0)
    return next((bits for bits in (8, 10, 12, 14) if most < 1 << bits), 16)


def settle_labels(images: Iterable[Candidate]) -> None:
    """Bring together what is said of each image; black and white ones say nothing."""
    for image in images:
        if image.measured is not None and uniform(image.measured):
            image.refuse(UNIFORM, "one level all over", "an image with something on it")
        boxes = None if image.annotation is None else image.boxes
        try:
            image.label, image.kind = settled(
                image.place.label, image.place.kind, boxes, image.marked
            )
        except Conflict as error:
            image.refuse(error.rule, error.observed, error.expected)


def about_conversions(images: Sequence[Candidate], bits: int) -> list[str]:
    """Say what decoding did to images that are not plain, and what it left aside."""
    facts = [image.measured.facts for image in images if image.measured]
    profiles = Counter((f["profile_use"], f["profile"]) for f in facts)
    uses = {
        "applied": "were brought to sRGB by their colour profile",
        "broken": "have a broken colour profile, which is left aside",
        "unfit": "have a colour profile of other pixels or for 16 bits, which is left aside",
    }
    counts = {
        "were turned upright by EXIF": sum(image.orientation != 1 for image in images),
        f"have 16 bits, {bits} in use: the upper 8 of those are taken": sum(
            f["bits"] > 8 for f in facts
        ),
        "are CMYK, brought to RGB without a profile": sum(
            f["mode"] == "CMYK" and f["profile_use"] != "applied" for f in facts
        ),
        "have transparent pixels, laid over black": sum(bool(f.get("transparent")) for f in facts),
        **{f"{uses[use]}: {name}": n for (use, name), n in sorted(profiles.items()) if use in uses},
    }
    said = [f"images: {n:,} {what}" for what, n in counts.items() if n]
    sizes = Counter(image.shown for image in images)
    if len(sizes) > 1:
        (width, height), n = sizes.most_common(1)[0]
        least, most = min(map(min, sizes)), max(map(max, sizes))
        said.append(
            f"images: {len(sizes):,} sizes, sides of {least} to {most}; "
            f"{n:,} have {width} x {height}"
        )
    return said


def without_copies(images: Sequence[Candidate], options: DatasetOptions) -> list[str]:
    """Set copies aside, and all copies of a picture with two labels."""
    used = [image for image in images if image.flag is None and image.measured]
    seen = [
        Seen(
            image.file.name,
            image.measured.facts["digest"] if image.measured else "",
            image.label,
            image.kind,
            (image.mask is not None) + bool(image.boxes),
        )
        for image in used
    ]
    conflicts, repeats = copies(seen)
    for place, error in conflicts.items():
        used[place].refuse(error.rule, error.observed, error.expected)
    if options.copies == "aside":
        for place, first in repeats.items():
            what = f"the pixels of {used[first].file.name}"
            used[place].refuse(COPY, what, "pictures that occur once", warning=True)
        return []
    return [f"copies: {len(repeats):,} kept, as told"] if repeats else []


MOST_ALIKE = 0.25
"""Share of near copies above which parts simply look alike (print), if people named the parts."""


def grouped(
    images: Sequence[Candidate], options: DatasetOptions
) -> tuple[dict[str, int], list[str]]:
    """Return the group of each image that stays, and sentences; near copies may be set aside."""
    # Copies that were set aside still tie the parts that they show.
    used = [
        image
        for image in images
        if image.measured and (image.flag is None or image.flag.rule.name == COPY)
    ]
    measured = [image.measured for image in used if image.measured]
    small = np.array([one.small for one in measured], np.uint8).reshape(-1, 64, 64)
    alike = twins([one.facts["digest"] for one in measured], small, options.likeness)
    said = []
    if options.near_copies == "aside":
        for place, twin in alike.items():
            if not twin.exact:
                what = f"{used[twin.of].file.name}, {twin.position}"
                used[place].refuse(NEAR_COPY, what, "pictures that occur once", warning=True)
    ties = {place: twin.of for place, twin in alike.items() if twin.exact}
    near = len(alike) - len(ties)
    words = {"group": "grouped with it", "aside": "set aside", "kept": "kept apart, as told"}
    does = words[options.near_copies]
    if options.near_copies == "group":
        if near > MOST_ALIKE * len(used) and all(image.part for image in used):
            does = "kept apart: the parts are named, and so many look alike that likeness is none"
        else:
            ties = {place: twin.of for place, twin in alike.items()}
    if near:
        said.append(
            f"near copies: {near:,} images are nearly another one, turned or mirrored too; {does}"
        )
    ids = group_ids([image.part for image in used], ties)
    stay = [(image, group) for image, group in zip(used, ids, strict=True) if image.flag is None]
    mixed = mixed_groups([group for _, group in stay], [image.label for image, _ in stay])
    said.append(f"groups: {len({group for _, group in stay}):,} of {len(stay):,} images")
    if mixed:
        said.append(f"  {len(mixed):,} of them hold good and defective images alike")
    return {image.file.name: group for image, group in stay}, said


def flag_of(rule: str, observed: str, expected: str, *, warning: bool = False) -> Flag:
    """Return why something is set aside."""
    return Flag(Rule(rule, expected, "warning" if warning else "error", VERSION), observed)


def _each(
    function: Callable[[Given], Found], items: Sequence[Given], workers: int
) -> Iterable[Found]:
    with ThreadPoolExecutor(workers, thread_name_prefix="masks") as pool:
        return list(pool.map(function, items))
