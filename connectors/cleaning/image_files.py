"""The image files of a folder: in one order, without leaving the folder, each read once at most."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tasks.cleaning.images.decode import ImageRefusedError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp"}
    | {".gif", ".heic", ".heif", ".avif", ".jp2"}
)
"""File names that promise an image; those of formats that are not decoded are quarantined."""
MAX_FILES = 200_000


class ImageFolderError(ValueError):
    """A folder that cannot be looked through; says what, where and how to mend it."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    r"""A file that its name says to be an image.

    Attributes:
        row: Place in the sorted listing of the folder's image files.
        path: Where it is.
        name: Path within the folder; bytes that are no UTF-8 are written as ``\xff``.
        trouble: Why it must not be read, "" else.
    """

    row: int
    path: Path
    name: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a folder.

    Attributes:
        files: Image files, sorted by the bytes of their path.
        skipped: Path within the folder -> why it is no image of it, in the same order.
    """

    files: tuple[ImageFile, ...]
    skipped: dict[str, str]


def list_images(folder: Path, *, leave_out: Path | None = None) -> Listing:
    """List the image files of a folder and of the folders in it.

    Links are never followed. Hidden entries, other files and links to files of the folder are
    skipped by name; image names that lead elsewhere, or are no UTF-8, are listed with the trouble.

    Args:
        folder: Where to look.
        leave_out: A folder in it that is not looked into, such as that of the results.

    Raises:
        ImageFolderError: When it is no folder, cannot be read, or holds too many files.
    """
    if not folder.is_dir():
        raise ImageFolderError(f"{folder} is no folder; name the folder that holds the images")
    root = folder.resolve()
    without = None if leave_out is None else leave_out.resolve()
    found: list[tuple[bytes, Path, str]] = []
    skipped: dict[bytes, str] = {}

    def failed(error: OSError) -> None:
        if isinstance(error, FileNotFoundError) and Path(error.filename) != root:
            return  # a folder in it that was deleted meanwhile
        raise ImageFolderError(f"{error.filename}: {error.strerror}; ask for the right to read it")

    for here, folders, names in os.walk(root, onerror=failed):
        place = Path(here)
        for name in list(folders):
            inner = place / name
            why = "a link to a folder" if inner.is_symlink() else ""
            why = "hidden" if name.startswith(".") else why
            why = "the folder of the results" if inner == without else why
            if why:
                skipped[_within(inner, root)] = why
                folders.remove(name)
        for name in names:
            path = place / name
            why, trouble = _looked_at(path, root)
            if why:
                skipped[_within(path, root)] = why
            else:
                found.append((_within(path, root), path, trouble))
        if len(found) > MAX_FILES:
            raise ImageFolderError(
                f"{folder}: more than {MAX_FILES:,} images; clean its folders one by one"
            )
    found.sort()
    files = (
        ImageFile(row, path, _text(within), trouble or _bad_name(within))
        for row, (within, path, trouble) in enumerate(found)
    )
    return Listing(tuple(files), {_text(name): skipped[name] for name in sorted(skipped)})


def read_image_file(file: ImageFile, max_bytes: int) -> bytes:
    """Return the bytes of a file.

    Raises:
        ImageRefusedError: When it must not or cannot be read, or is too large.
    """
    if file.trouble:
        rule, _, observed = file.trouble.partition(": ")
        raise ImageRefusedError(rule, observed, "a file of this folder with a name in UTF-8")
    try:
        # A link or a pipe put there since must neither be followed nor waited for.
        descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as handle:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ImageRefusedError("unreadable", "no regular file", "a file")
            data = handle.read(max_bytes + 1)
    except OSError as error:
        raise ImageRefusedError(
            "unreadable", error.strerror or str(error), "a file that can be read"
        ) from error
    if len(data) > max_bytes:
        size = f"{max(status.st_size, len(data)):,} bytes"
        raise ImageRefusedError("too-large", size, f"≤ {max_bytes:,}")
    return data


def _looked_at(path: Path, root: Path) -> tuple[str, str]:
    """Return why a file is skipped, and what trouble one has that is not."""
    if path.name.startswith("."):
        return "hidden", ""
    if path.suffix.lower() not in SUFFIXES:
        return "not named as an image", ""
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        return "", f"unreadable: {error.strerror}"
    if stat.S_ISLNK(mode):
        return _link(path, root)
    return ("", "") if stat.S_ISREG(mode) else ("", "unreadable: no regular file")


def _link(path: Path, root: Path) -> tuple[str, str]:
    try:
        inside = path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):
        return "", "link: a link that leads nowhere"
    if inside:
        return "a link to a file of the folder", ""
    return "", "link: a link out of the folder"


def _within(path: Path, root: Path) -> bytes:
    return os.fsencode(path.relative_to(root))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _bad_name(name: bytes) -> str:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return "bad-name: a name that is no UTF-8"
    return ""
