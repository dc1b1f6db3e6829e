"""Datasets and splits as files: a folder with an index, a CSV of names."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import polars as pl

from connectors.defects.annotation_files import INDEX, read_note
from connectors.files import atomic_path
from tasks.defects.data.index import Entry, index_csv, rows_of_csv
from tasks.defects.data.splits import SplitError, check_split
from tasks.defects.samples import Mask, Pixels, Sample, SampleError

MASKS = "masks"
"""Folder of a written dataset that holds the masks."""
MAX_SPLIT_BYTES = 64 << 20


def write_dataset(samples: Iterable[Sample], folder: Path) -> Path:
    """Write samples as PNG with masks and an index, whole or not at all.

    Images keep their name, with ``.png`` behind it where it ends otherwise; the mask of ``a/b.png``
    is ``masks/a/b.png``. Samples are taken one by one, so a dataset's are never in memory at once.

    Args:
        samples: What to write.
        folder: Where; absent or empty.

    Returns:
        The index. `load_dataset` of the folder gives the same samples again.

    Raises:
        SampleError: When a name leads out of the folder, is hidden, or occurs twice.
        FileExistsError: When the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} holds something already; name a new or an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    unfinished.mkdir()
    try:
        taken: set[str] = set()
        entries = [_written(sample, unfinished, taken) for sample in samples]
        (unfinished / INDEX).write_text(index_csv(entries), encoding="utf-8")
        unfinished.replace(folder)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    return folder / INDEX


def _written(sample: Sample, folder: Path, taken: set[str]) -> Entry:
    name = _file_name(sample.name)
    if name.casefold() in taken:
        raise SampleError(f"{sample.name}: {name} occurs twice; give each sample its own name")
    taken.add(name.casefold())
    _write_png(sample.pixels, folder / name)
    mask = ""
    if sample.mask is not None:
        mask = f"{MASKS}/{name}"
        _write_png(sample.mask, folder / mask)
    return Entry(name, sample.label, sample.kind, mask, sample.part, sample.boxes)


def _file_name(name: str) -> str:
    """Return the path of an image within the folder.

    Raises:
        SampleError: When it is no plain path downwards, or one of a mask.
    """
    path = PurePosixPath(name)
    parts = path.parts
    if (
        not parts
        or str(path) != name
        or path.is_absolute()
        or any(part.startswith(".") or part != part.strip() for part in parts)
        or not name.isprintable()
        or "\\" in name
        or parts[0] == MASKS
    ):
        raise SampleError(
            f"name {name[:80]!r}: give a path within the folder, not hidden, printable, and not "
            f"under {MASKS}/"
        )
    return name if name.lower().endswith(".png") else f"{name}.png"


def _write_png(pixels: Pixels | Mask, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    values = pixels if pixels.dtype != bool else pixels.astype("uint8") * 255
    with path.open("xb") as handle:
        Image.fromarray(values).save(handle, "PNG")
        handle.flush()
        os.fsync(handle.fileno())


def write_split(split: pl.DataFrame, path: Path) -> None:
    """Write a split (``name``, ``split``) as CSV, whole or not at all."""
    with atomic_path(path) as temporary:
        split.select("name", "split").write_csv(temporary)


def read_split(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    """Read a split and make sure that it fits to a dataset.

    Args:
        path: A CSV with the columns ``name`` and ``split``.
        frame: The dataset's frame.

    Raises:
        AnnotationError: When it is no such CSV; names the line.
        SplitError: When a name is strange or a group straddles.
    """
    rows = rows_of_csv(
        read_note(path.absolute(), path.name, MAX_SPLIT_BYTES), path.name, need=("name", "split")
    )
    split = pl.DataFrame(
        [(row["name"], row["split"]) for _, row in rows],
        schema={"name": pl.String, "split": pl.String},
        orient="row",
    )
    try:
        check_split(frame, split)
    except SplitError as error:
        raise SplitError(f"{path}: {error}") from error
    return split
