"""A run over a folder of images: measure in the sandbox, check, publish.

The clean rows are a list of the good files with what was measured on them; the images stay where
they are, unless copies are asked for.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from connectors.cleaning.image_files import ImageFile, Listing, list_images, read_image_file
from connectors.cleaning.outputs import OutputFormat, OutputWriter, outputs
from connectors.files import atomic_path
from tasks.cleaning.images.checks import (
    CheckedImages,
    Flag,
    ImageCheckConfig,
    Outcome,
    check_images,
)
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.cleaning.images.features import FEATURES
from tasks.cleaning.images.likeness import hashes, twins
from tasks.cleaning.images.limits import ImageLimits
from tasks.cleaning.images.page import MAX_SHOWN, ImagePage, ShownImage, build_image_page
from tasks.cleaning.images.reference import (
    SPOILT_IMAGES,
    ImageReference,
    ImageReferenceError,
    learn_reference,
)
from tasks.cleaning.images.sandbox import MeasuredImage, Sandbox
from tasks.cleaning.quarantine import QUARANTINE_SCHEMA

REPORT, RUN = "report.html", "run.json"
MAX_PAYLOAD = 1 << 20
"""Larger files stand in their quarantine record as JSON with size and SHA-256."""
MAX_REFERENCE_BYTES = 256 << 20
BATCH = 256
FACTS = ("format", "mode", "kind", "bits", "width", "height", "orientation", "transparent")
SCHEMA: dict[str, Any] = {
    "row": pl.Int64,
    "file": pl.String,
    "bytes": pl.Int64,
    "sha256": pl.String,
    "pixels_sha256": pl.String,
    "hash": pl.String,
    "format": pl.String,
    "mode": pl.String,
    "kind": pl.String,
    "bits": pl.Int64,
    "width": pl.Int64,
    "height": pl.Int64,
    "orientation": pl.Int64,
    "transparent": pl.Float64,
    "p": pl.Float64,
    **dict.fromkeys(FEATURES, pl.Float64),
    "copy": pl.String,
}
"""Columns of the clean rows; ``hash`` is in hexadecimal, ``p`` is null without a reference."""


@dataclass(frozen=True, slots=True)
class ImageRun:
    """What a run published.

    Attributes:
        counts: ``rows_in``, ``clean``, ``quarantined`` and ``quarantined:RULE``.
        checked: What the checks said, row = place in the listing.
        skipped: Entries that are no image files of the folder -> why.
        reference_images: Images of the reference; 0 without one.
    """

    counts: dict[str, int]
    checked: CheckedImages
    skipped: dict[str, str]
    reference_images: int


def learn_from_folder(
    folder: Path, *, limits: ImageLimits | None = None, config: ImageCheckConfig | None = None
) -> ImageReference:
    """Learn a reference from a folder of good images; copies and broken files are left out.

    Raises:
        ImageFolderError: When the folder cannot be read.
        ImageReferenceError: When fewer than 20 different images remain.
    """
    limits, config = limits or ImageLimits(), config or ImageCheckConfig()
    files = list_images(folder).files
    every = -(-len(files) // SPOILT_IMAGES)
    with Sandbox(limits) as sandbox:
        measured = [
            one
            for _, one in sandbox.measure_all(
                files,
                lambda file: read_image_file(file, limits.max_bytes),
                faults=lambda file: file.row % every == 0,
            )
            if isinstance(one, MeasuredImage)
        ]
    repeats = twins([one.facts["digest"] for one in measured], _small(measured), config.likeness)
    return learn_reference([one for i, one in enumerate(measured) if i not in repeats])


def load_reference(path: Path, *, config: ImageCheckConfig | None = None) -> ImageReference:
    """Learn a reference from a folder, or read one from a file."""
    return learn_from_folder(path, config=config) if path.is_dir() else read_reference(path)


def read_reference(path: Path) -> ImageReference:
    """Read a reference that `write_reference` wrote.

    Raises:
        ImageReferenceError: When it is too large, damaged or of another version.
    """
    if path.stat().st_size > MAX_REFERENCE_BYTES:
        raise ImageReferenceError(f"{path}: too large to be a reference; learn it again")
    return ImageReference.from_json(path.read_text(encoding="utf-8", errors="replace"), str(path))


def write_reference(reference: ImageReference, path: Path) -> None:
    """Write a reference as JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(reference.to_json(), encoding="utf-8")


def clean_folder(
    folder: Path,
    out: Path,
    reference: ImageReference | None = None,
    *,
    config: ImageCheckConfig | None = None,
    limits: ImageLimits | None = None,
    kind: OutputFormat = "parquet",
    copy: bool = False,
    now: datetime | None = None,
) -> ImageRun:
    """Check the images of a folder and publish the results.

    Args:
        folder: Images, also in folders within it.
        out: Folder of the results; not looked into where it lies in ``folder``.
        reference: Good images of the line; without it only what is certain is set aside.
        config: How images are checked.
        limits: What one image may cost.
        kind: Format of the clean rows.
        copy: Publish copies of the good files, too; all lie in one folder.
        now: The present, for records.

    Raises:
        ImageFolderError: When the folder cannot be read.
        OutputError: When the results cannot be published.
        SandboxError: When no worker can be started.
    """
    limits, config = limits or ImageLimits(), config or ImageCheckConfig()
    now = now or datetime.now(UTC)
    listing = list_images(folder, leave_out=out)
    held: dict[int, tuple[int, str]] = {}

    def read(file: ImageFile) -> bytes:
        data = read_image_file(file, limits.max_bytes)
        held[file.row] = len(data), hashlib.sha256(data).hexdigest()
        return data

    with Sandbox(limits) as sandbox:
        outcomes = [one for _, one in sandbox.measure_all(listing.files, read)]
        checked = check_images([f.name for f in listing.files], outcomes, reference, config)
        counts = _counts(listing, checked)
        page = _page(folder, listing, checked, counts, reference, sandbox, now)
    run = ImageRun(counts, checked, listing.skipped, reference.images if reference else 0)
    with outputs(out, folder.name, kind) as writer:
        for start in range(0, max(len(listing.files), 1), BATCH):
            files = listing.files[start : start + BATCH]
            clean = _clean(files, outcomes, checked, held)
            if copy:
                clean = _copied(clean, listing, writer, limits)
            aside = quarantined_images(_flagged(files, checked), held, folder.name, now)
            writer.write(clean, aside, len(files))
        writer.attach(RUN).write_text(_record(run, folder, config, now), encoding="utf-8")
        writer.attach(REPORT).write_text(build_image_page(page), encoding="utf-8")
    return run


def _counts(listing: Listing, checked: CheckedImages) -> dict[str, int]:
    aside = len(checked.flags)
    by_rule = Counter(flag.rule.name for flag in checked.flags.values())
    return {
        "rows_in": len(listing.files),
        "clean": len(listing.files) - aside,
        "quarantined": aside,
        **{f"quarantined:{rule}": number for rule, number in sorted(by_rule.items())},
    }


def _clean(
    files: Sequence[ImageFile],
    outcomes: Sequence[Outcome],
    checked: CheckedImages,
    held: dict[int, tuple[int, str]],
) -> pl.DataFrame:
    rows = []
    kept = [(file, outcomes[file.row]) for file in files if file.row not in checked.flags]
    good = [(file, one) for file, one in kept if isinstance(one, MeasuredImage)]
    marks = hashes(_small([one for _, one in good]))
    for (file, one), mark in zip(good, marks, strict=True):
        size, digest = held[file.row]
        rows.append(
            {
                "row": file.row,
                "file": file.name,
                "bytes": size,
                "sha256": digest,
                "pixels_sha256": one.facts["digest"],
                "hash": f"{int(mark):016x}",
                "p": checked.p[file.row],
                **{name: one.facts.get(name) for name in FACTS},
                **one.features,
            }
        )
    return pl.DataFrame(rows, schema=SCHEMA)


def _copied(
    clean: pl.DataFrame, listing: Listing, writer: OutputWriter, limits: ImageLimits
) -> pl.DataFrame:
    """Publish copies of the good files; returns the rows with the names of the copies."""
    names = []
    for row, digest in clean.select("row", "sha256").iter_rows():
        file = listing.files[row]
        data = read_image_file(file, limits.max_bytes)
        if hashlib.sha256(data).hexdigest() != digest:
            raise OSError(f"{file.path} was changed while it was being cleaned; run it again")
        names.append(f"{row:06d}{file.path.suffix.lower()}")
        writer.attach(names[-1]).write_bytes(data)
    return clean.with_columns(pl.Series("copy", names, pl.String))


def quarantined_images(
    flagged: Iterable[tuple[ImageFile, Flag]],
    held: Mapping[int, tuple[int, str]],
    source: str,
    now: datetime,
) -> pa.Table:
    """Return the quarantine records of files.

    Args:
        flagged: Files, and why they are set aside.
        held: Row of a file -> bytes and SHA-256 of what was judged, where it could be read.
        source: Name of their folder.
        now: When they are set aside.
    """
    records = [
        {
            "payload": _payload(file, held.get(file.row)),
            "source": f"{source}/{file.name}",
            "row": file.row,
            "rule": flag.rule.name,
            "column": "",
            "observed": flag.observed,
            "expected": flag.rule.expected,
            "severity": flag.rule.severity,
            "detector_version": flag.rule.detector_version,
            "confidence": flag.rule.confidence,
            "time": now,
        }
        for file, flag in flagged
    ]
    return pa.Table.from_pylist(records, schema=QUARANTINE_SCHEMA)


def _flagged(
    files: Sequence[ImageFile], checked: CheckedImages
) -> Iterator[tuple[ImageFile, Flag]]:
    for file in files:
        flag = checked.flags.get(file.row)
        if flag is not None:
            yield file, flag


def _payload(file: ImageFile, known: tuple[int, str] | None) -> bytes:
    """Return the bytes of a file; a reference where they are many, changed or out of reach."""
    if known is not None and known[0] <= MAX_PAYLOAD:
        try:
            data = read_image_file(file, MAX_PAYLOAD)
        except ImageRefusedError:
            data = None
        if data is not None and hashlib.sha256(data).hexdigest() == known[1]:
            return data
    said: dict[str, Any] = {"file": file.name}
    if known is not None:
        said |= {"bytes": known[0], "sha256": known[1]}
    return json.dumps(said, ensure_ascii=False).encode()


def _page(
    folder: Path,
    listing: Listing,
    checked: CheckedImages,
    counts: dict[str, int],
    reference: ImageReference | None,
    sandbox: Sandbox,
    now: datetime,
) -> ImagePage:
    shown: list[ShownImage] = []
    for file, flag in _flagged(listing.files, checked):
        if len(shown) == MAX_SHOWN:
            break
        picture = ""
        try:
            small = sandbox.thumbnail(read_image_file(file, sandbox.limits.max_bytes))
            picture = base64.b64encode(small).decode()
        except ImageRefusedError:
            pass
        shown.append(
            ShownImage(file.name, flag.rule.name, flag.observed, flag.rule.expected, picture)
        )
    by_rule = {k.partition(":")[2]: n for k, n in counts.items() if k.startswith("quarantined:")}
    return ImagePage(
        source=folder.name,
        time=f"{now:%d %B %Y %H:%M} UTC".lstrip("0"),
        files=counts["rows_in"],
        clean=counts["clean"],
        by_rule=sorted(by_rule.items(), key=lambda one: (-one[1], one[0])),
        shown=shown,
        promise=promise(checked.promised, reference.images if reference else 0),
        not_judged=sorted(checked.not_judged.items()),
        skipped=len(listing.skipped),
    )


def promise(share: float | None, images: int) -> str:
    """Say in a sentence what the reference promises; "" without one."""
    if share is None:
        return ""
    return (
        f"At most {100 * share:.2g} % of good images are set aside by the reference of {images:,} "
        "images, if new good ones are like them"
    )


def _record(run: ImageRun, folder: Path, config: ImageCheckConfig, now: datetime) -> str:
    return json.dumps(
        {
            "source": folder.name,
            "time": now.isoformat(),
            "counts": run.counts,
            "alpha": config.alpha,
            "promised": run.checked.promised,
            "reference_images": run.reference_images,
            "not_judged": run.checked.not_judged,
            "skipped": run.skipped,
        }
    )


def _small(images: Sequence[MeasuredImage]) -> NDArray[np.uint8]:
    return np.array([one.small for one in images], np.uint8).reshape(-1, 64, 64)
