"""A folder as people have it, made a dataset: laid out, checked, grouped; nothing is lost.

Every image and every mask goes through the sandbox of the cleaning engine. Whatever cannot be used
is in the quarantine with its reason, and rows in = rows used + rows quarantined.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from connectors.cleaning.image_files import ImageFile, Listing, list_images, read_image_file
from connectors.cleaning.images import quarantined_images
from connectors.defects.annotation_files import Notes, OtherFiles, find_index, find_notes, read_note
from connectors.defects.dataset import (
    FRAME,
    Dataset,
    MaskSource,
    Record,
    Samples,
    content_digest,
)
from connectors.defects.drawn_masks import fit_shapes
from connectors.defects.import_checks import (
    Candidate,
    about_conversions,
    deep_bits,
    fit_boxes,
    fit_masks,
    flag_of,
    grouped,
    settle_labels,
    without_copies,
)
from connectors.defects.options import DatasetError, DatasetOptions
from connectors.defects.parts import named_parts
from tasks.cleaning.images.checks import Flag
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.cleaning.images.sandbox import Sandbox
from tasks.defects.data import index
from tasks.defects.data.annotation import Annotation
from tasks.defects.data.layout import Place, find_layout


def load_dataset(
    folder: Path, options: DatasetOptions | None = None, *, sandbox: Sandbox | None = None
) -> Dataset:
    """Make a dataset of a folder.

    Args:
        folder: Images, masks and annotations in one of the layouts of docs/reference/defects-data.
        options: What the person says of it.
        sandbox: Workers that decode, and the limits of an image; the dataset's own if None.

    Raises:
        DatasetError: When there is no usable image in it.
        ImageFolderError: When the folder cannot be read.
        LayoutError: When its layout cannot be told.
        AnnotationError: When a file that speaks of many images cannot be used.
        SandboxError: When no worker can be started.
    """
    options = options or DatasetOptions()
    listing = list_images(folder)
    others = OtherFiles(folder, listing)
    images, lost, findings = _placed(listing, others, options)
    held: dict[int, tuple[int, str]] = {}
    own = sandbox is None
    sandbox = sandbox or Sandbox()
    limits = sandbox.limits

    def read(file: ImageFile) -> bytes:
        data = read_image_file(file, limits.max_bytes)
        held[file.row] = len(data), hashlib.sha256(data).hexdigest()
        return data

    try:
        for image, outcome in sandbox.measure_all(images, lambda image: read(image.file)):
            if isinstance(outcome, ImageRefusedError):
                image.refuse(outcome.rule, outcome.observed, outcome.expected)
            else:
                image.measured = outcome
        notes = _annotated(images, others, options)
        lost |= notes.lost
        findings += notes.findings
        fit_boxes(images, options)
        findings += fit_masks(images, listing, sandbox, read, held, options)
        findings += fit_shapes(images, options)
        bits = deep_bits(images, sandbox, read)
    finally:
        if own:
            sandbox.close()  # the first sample starts it again
    settle_labels(images)
    findings += without_copies(images, options)
    findings += _parts(images, options)
    groups, said = grouped(images, options)
    used = [image for image in images if image.flag is None]
    findings += [*about_conversions(used, bits), *said]
    flagged = _flagged(images, lost, len(listing.files))
    if not used:
        raise DatasetError(_why_none(folder, flagged, others))
    records = [_record(image, held, bits) for image in used]
    if len(records) + len(flagged) != len(images) + len(lost):
        raise RuntimeError("images were lost between the listing and the dataset")
    return Dataset(
        folder=folder,
        frame=_frame(used, records, groups),
        samples=Samples(records, sandbox, own=own),
        quarantine=quarantined_images(flagged, held, folder.resolve().name, datetime.now(UTC)),
        findings=tuple(findings),
        rows_in=len(images) + len(lost),
        digest=content_digest(records),
    )


def _placed(
    listing: Listing, others: OtherFiles, options: DatasetOptions
) -> tuple[list[Candidate], dict[str, str], list[str]]:
    """Return the images with what names or an index say of them, what is lost, and sentences."""
    files = {file.name: file for file in listing.files}
    if options.index is None:
        entries = find_index(others)
        source = "index.csv"
    else:
        source = options.index.name
        entries = index.parse_index(
            read_note(options.index.absolute(), source, index.MAX_BYTES), source
        )
    skipped = Counter(w for w in listing.skipped.values() if w != "not named as an image")
    findings = [f"skipped: {n:,}, {why}" for why, n in sorted(skipped.items())]
    if entries is None:
        layout = find_layout(list(files), options.layout)
        images = [Candidate(files[place.image], place) for place in layout.places]
        lost = {name: f"a mask: {why}" for name, why in layout.lost.items()}
        return images, lost, [*layout.findings, *findings]
    images = []
    lost = {}
    for entry in entries:
        if entry.image not in files:
            lost[entry.image] = f"{source}: no image of the folder has this path"
            continue
        place = Place(entry.image, entry.label, entry.kind, entry.mask)
        note = Annotation(entry.image, entry.boxes) if entry.boxes else None
        images.append(Candidate(files[entry.image], place, entry.part, note, indexed=True))
    masks = {entry.mask for entry in entries}
    rest = len(files.keys() - {e.image for e in entries} - masks)
    findings.append(f"index: {source}, {len(entries):,} images")
    if rest:
        findings.append(f"  {rest:,} other images of the folder are not in it and left out")
    return images, lost, findings


def _annotated(images: Sequence[Candidate], others: OtherFiles, options: DatasetOptions) -> Notes:
    """Lay annotations to the images that no index speaks of."""
    if any(image.indexed for image in images):
        return Notes()
    names = [image.file.name for image in images]
    shown = options.drawn_on == "shown"  # shares of sides are of the form that they were drawn on
    sizes = {i.file.name: i.shown if shown else i.stored for i in images if i.measured is not None}
    notes = find_notes(others, names, sizes, options.annotations, options.voc_from)
    for image in images:
        image.annotation = notes.of.get(image.file.name)
        if image.file.name in notes.bad:
            image.refuse("bad-annotation", notes.bad[image.file.name], "an annotation of its form")
    nothing = sum(1 for one in notes.of.values() if not one.boxes)
    if nothing:
        notes.findings.append(f"  {nothing:,} without a box: somebody looked and found nothing")
    without = len(images) - len(notes.of)
    if notes.form and without:
        notes.findings.append(f"  {without:,} images have no annotation")
    return notes


def _parts(images: Sequence[Candidate], options: DatasetOptions) -> list[str]:
    """Find the physical parts that images show; an index's own come first."""
    names = [image.file.name for image in images]
    found, strange = named_parts(names, options.parts, options.part_pattern)
    said = []
    if options.parts is not None and strange:
        said.append(f"parts: {len(strange):,} names of {options.parts.name} are of no image here")
    for image in images:
        image.part = image.part or found.get(image.file.name, "")
    known = sum(bool(image.part) for image in images)
    if known:
        number = len({image.part for image in images} - {""})
        said.insert(0, f"parts: {number:,}, shown by {known:,} images")
    if known and known < len(images):
        said.append(f"  {len(images) - known:,} images show no known part: each its own")
    return said


def _flagged(
    images: Sequence[Candidate], lost: Mapping[str, str], listed: int
) -> list[tuple[ImageFile, Flag]]:
    """Return what is set aside: images, and behind all files what belongs to no image."""
    flagged = [(image.file, image.flag) for image in images if image.flag is not None]
    for row, (name, why) in enumerate(sorted(lost.items()), listed):
        # A stranger may have written the name: there is no path to it that could be opened.
        file = ImageFile(row, Path(), name, trouble="no-image: not looked for")
        flagged.append((file, flag_of("no-image", why, "an image it belongs to")))
    return flagged


def _why_none(folder: Path, flagged: Sequence[tuple[ImageFile, Flag]], others: OtherFiles) -> str:
    if flagged:
        file, flag = flagged[0]
        return (
            f"{folder}: none of {len(flagged):,} images can be used; the first, {file.name}: "
            f"{flag.rule.name}, {flag.observed}"
        )
    rest = f", {len(others.names):,} other files" if others.names else ""
    return f"{folder}: no image in it{rest}; give a folder of PNG, JPEG, BMP, TIFF or WebP"


def _record(image: Candidate, held: Mapping[int, tuple[int, str]], bits: int) -> Record:
    return Record(
        file=image.file,
        sha256=held[image.file.row][1],
        label=image.label,
        kind=image.kind,
        part=image.part,
        boxes=image.boxes,
        mask=image.mask,
        bits=bits if image.measured and image.measured.facts["bits"] > 8 else 8,
    )


def _frame(
    used: Sequence[Candidate], records: Sequence[Record], groups: Mapping[str, int]
) -> pl.DataFrame:
    rows = [
        {
            "name": image.file.name,
            "label": image.label,
            "kind": image.kind,
            "part": image.part,
            "group": groups[image.file.name],
            "split": image.place.split,
            "mask": image.mask.file.name if isinstance(image.mask, MaskSource) else "",
            "boxes": len(image.boxes),
            "width": image.shown[0],
            "height": image.shown[1],
            "bits": record.bits,
            "orientation": image.orientation,
            "sha256": record.sha256,
            "pixels_sha256": image.measured.facts["digest"] if image.measured else "",
        }
        for image, record in zip(used, records, strict=True)
    ]
    return pl.DataFrame(rows, schema=FRAME)
