"""The annotation files of a folder: found, read within limits, and laid to their images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from connectors.cleaning.image_files import ImageFile, Listing, read_image_file
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.defects.data import coco, index, voc, yolo
from tasks.defects.data.annotation import Annotation, AnnotationError
from tasks.defects.data.layout import LayoutError
from tasks.defects.data.pairing import Lookup, stem_of

AnnotationForm = Literal["auto", "none", "voc", "coco", "yolo"]
INDEX = "index.csv"
NAMES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names", "labels.txt")
"""Files that may hold the names of YOLO's types, the best first."""
LOOKED_AT = 20
"""Texts of an image's name that are looked at to see whether they hold boxes."""
Sizes = Mapping[str, tuple[int, int]]


@dataclass(slots=True)
class Notes:
    """What the annotation files of a folder say.

    Attributes:
        form: ``voc``, ``coco``, ``yolo``, or "" without any.
        of: Image -> its annotation.
        bad: Image -> why its annotation cannot be used.
        lost: Annotation -> why it belongs to no image.
        findings: What was concluded, for people.
    """

    form: str = ""
    of: dict[str, Annotation] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def add(self, image: str, annotation: Annotation, file: str) -> None:
        """Lay an annotation to an image that has none yet."""
        if image in self.of:
            self.bad[image] = f"{file}: {image} is annotated twice; keep one"
        self.of[image] = annotation


class OtherFiles:
    """The files of a folder that are no images, read as image files are: no link is followed.

    Args:
        root: The folder.
        listing: What lies in it.
    """

    def __init__(self, root: Path, listing: Listing) -> None:
        self._root = root.resolve()
        self.names = [n for n, why in listing.skipped.items() if why == "not named as an image"]

    def ending(self, *suffixes: str) -> list[str]:
        """Return the files with one of the suffixes."""
        return [name for name in self.names if name.lower().endswith(suffixes)]

    def read(self, name: str, most: int) -> bytes:
        """Return the bytes of a file.

        Raises:
            AnnotationError: When it is too large, a link, no file, or cannot be read.
        """
        return read_note(self._root / name, name, most)


def read_note(path: Path, name: str, most: int) -> bytes:
    """Return the bytes of an annotation file; links and pipes are refused.

    Raises:
        AnnotationError: When it cannot be read, or is larger than ``most``.
    """
    try:
        return read_image_file(ImageFile(0, path, name), most)
    except ImageRefusedError as error:
        raise AnnotationError(name, 0, f"{error.observed}; {error.expected}") from error


def find_notes(
    files: OtherFiles, images: Sequence[str], sizes: Sizes, form: AnnotationForm, start: int | None
) -> Notes:
    """Read the annotations of a folder.

    Args:
        files: The folder's files.
        images: Its images.
        sizes: Width and height of each image that decodes, of the form that was drawn on.
        form: Which form they have; ``auto`` takes the one that there is.
        start: What VOC's pixels count from; None finds out.

    Raises:
        AnnotationError: When a file that speaks of many images cannot be read.
        LayoutError: When there are annotations of several forms.
    """
    if form == "none":
        return Notes()
    lookup = Lookup(images)
    readers: dict[str, Callable[[], Notes]] = {
        "voc": lambda: _voc(files, lookup, start),
        "coco": lambda: _coco(files, lookup),
        "yolo": lambda: _yolo(files, lookup, sizes, certain=form == "yolo"),
    }
    if form != "auto":
        return readers[form]()
    found = [notes for read in readers.values() if (notes := read()).form]
    if len(found) > 1:
        forms = ", ".join(notes.form for notes in found)
        raise LayoutError(f"annotations of several forms ({forms}); say which: --annotations FORM")
    return found[0] if found else Notes()


def find_index(files: OtherFiles) -> list[index.Entry] | None:
    """Return what the folder's ``index.csv`` says; None where there is none with such a header.

    Raises:
        AnnotationError: When it cannot be used.
    """
    if INDEX not in files.names:
        return None
    data = files.read(INDEX, index.MAX_BYTES)
    header = data.partition(b"\n")[0].lower().removeprefix(b"\xef\xbb\xbf")
    names = {name.strip(b' \r"') for name in header.split(b",")}
    return index.parse_index(data, INDEX) if {b"image", b"label"} <= names else None


def _voc(files: OtherFiles, lookup: Lookup, start: int | None) -> Notes:
    notes = Notes()
    held: list[tuple[str, str]] = []
    renamed = 0
    for file in files.ending(".xml"):
        try:
            data = files.read(file, voc.MAX_BYTES)
            if b"<annotation" not in data[:65_536]:
                continue
            annotation = voc.parse_voc(data, file)
        except AnnotationError as error:
            _one(notes, file, lookup.of(file), str(error))
            continue
        # Names in files are often those of before a renaming: the file's own name comes first.
        owners = lookup.of(file) or lookup.named(annotation.image)
        if len(owners) != 1:
            _one(notes, file, owners, f"{file}: belongs to {_several(owners, annotation.image)}")
            continue
        notes.add(owners[0], annotation, file)
        held.append((owners[0], file))
        renamed += bool(annotation.image) and owners[0] not in lookup.named(annotation.image)
    if not held and not notes.bad:
        return Notes(lost=notes.lost)
    notes.form = "voc"
    boxes = [box for one in notes.of.values() for box in one.boxes]
    from_zero = start == 0 or (start is None and any(-1 in (b.left, b.top) for b in boxes))
    if from_zero:
        for image, file in held:
            try:
                notes.of[image] = voc.counted_from_zero(notes.of[image], file)
            except AnnotationError as error:
                notes.bad[image] = str(error)
    why = "0, for a corner is at 0" if start is None else "0, as told"
    notes.findings.append(
        f"annotations: VOC, {len(boxes):,} boxes in {len(held):,} files; "
        f"pixels count from {why if from_zero else 1}"
    )
    if renamed:
        notes.findings.append(f"  {renamed:,} of them name another image: their own name counts")
    return notes


def _coco(files: OtherFiles, lookup: Lookup) -> Notes:
    notes = Notes()
    number = boxes = 0
    for file in files.ending(".json"):
        data = files.read(file, coco.MAX_BYTES)
        if b'"images"' not in data or b'"annotations"' not in data:
            continue
        number += 1
        for i, annotation in enumerate(coco.parse_coco(data, file)):
            owners = lookup.named(annotation.image)
            if len(owners) == 1:
                notes.add(owners[0], annotation, file)
                boxes += len(annotation.boxes)
            else:
                what = _several(owners, annotation.image)
                _one(notes, f"{file}#images[{i}]", owners, f"{file}: images[{i}]: {what}")
    if number:
        notes.form = "coco"
        notes.findings.append(
            f"annotations: COCO, {boxes:,} boxes of {len(notes.of):,} images in {number} files"
        )
    return notes


def _yolo(files: OtherFiles, lookup: Lookup, sizes: Sizes, *, certain: bool) -> Notes:
    notes = Notes()
    texts = [
        (name, owners)
        for name in files.ending(".txt")
        if PurePosixPath(name).name.lower() not in NAMES and (owners := lookup.of(name))
    ]
    if not texts or not (certain or _are_boxes(files, [name for name, _ in texts])):
        return notes
    notes.form = "yolo"
    names_file = _names_file(files)
    names = (
        yolo.parse_names(files.read(names_file, yolo.MAX_BYTES), names_file) if names_file else []
    )
    boxes = 0
    for file, owners in texts:
        if len(owners) > 1:
            _one(notes, file, owners, f"{file}: belongs to {_several(owners, stem_of(file))}")
        elif owners[0] in sizes:  # others are quarantined for themselves
            try:
                data = files.read(file, yolo.MAX_BYTES)
                annotation = yolo.parse_yolo(data, file, names, sizes[owners[0]])
            except AnnotationError as error:
                notes.bad[owners[0]] = str(error)
                continue
            notes.add(owners[0], annotation, file)
            boxes += len(annotation.boxes)
    kinds = (
        f"types by {names_file}" if names else f"types are numbers: no {' or '.join(NAMES[::3])}"
    )
    notes.findings.append(f"annotations: YOLO, {boxes:,} boxes in {len(notes.of):,} files; {kinds}")
    return notes


def _are_boxes(files: OtherFiles, names: Sequence[str]) -> bool:
    """Say whether texts hold numbers as YOLO's do, by the first line of some of them."""
    like = unlike = 0
    for name in names[:LOOKED_AT]:
        try:
            fields = files.read(name, yolo.MAX_BYTES).partition(b"\n")[0].split()
        except AnnotationError:
            continue
        numbers = all(field.replace(b".", b"", 1).lstrip(b"-").isdigit() for field in fields[:5])
        like += not fields or (len(fields) >= 5 and numbers)
        unlike += bool(fields) and not (len(fields) >= 5 and numbers)
    return like > unlike


def _names_file(files: OtherFiles) -> str:
    found = [name for name in files.names if PurePosixPath(name).name.lower() in NAMES]
    order = {name: place for place, name in enumerate(NAMES)}
    return min(
        found,
        key=lambda n: (len(PurePosixPath(n).parts), order[PurePosixPath(n).name.lower()], n),
        default="",
    )


def _one(notes: Notes, file: str, owners: Iterable[str], why: str) -> None:
    """Note that an annotation cannot be used: at its images, or where it has none, at itself."""
    owners = list(owners)
    for image in owners:
        notes.bad[image] = why
    if not owners:
        notes.lost[file] = why


def _several(owners: Sequence[str], said: str) -> str:
    if not owners:
        return f"no image of the folder ({said[:80]!r})"
    return f"several images: {', '.join(owners[:3])}"
