"""A folder of plain files that a manifest vouches for: what is published of any model.

A bundle is data only: ONNX graphs, plain arrays, CSV, JSON, TOML and Markdown. Nothing in it can
run code when it is opened, and nothing is opened before its size and SHA-256 agree with the
manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar

MANIFEST = "manifest.json"
MAX_FILE_BYTES = 4 * 1024**3
MAX_TEXT_BYTES = 64 * 1024**2
SUFFIXES = frozenset({".onnx", ".npz", ".csv", ".json", ".toml", ".md", ".txt", ".safetensors"})


class BundleError(ValueError):
    """A bundle that must not be used; the message says which file and why."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size and SHA-256 of one file of the bundle.

    Attributes:
        sha256: Lower-case hex digest.
        size: Bytes.
    """

    sha256: str
    size: int


class BundleManifest(Protocol):
    """Contents of ``manifest.json``: a frozen dataclass with at least the files."""

    @property
    def files(self) -> Mapping[str, FileEntry]:
        """Path inside the bundle -> size and hash, every file but the manifest itself."""

    def to_json(self) -> str:
        """Return the text of ``manifest.json``, so that equal bundles have equal texts."""


M = TypeVar("M", bound=BundleManifest)


def parse_files(data: Mapping[str, Any]) -> dict[str, FileEntry]:
    """Return the entry of each file from the JSON object ``files`` of a manifest.

    Raises:
        KeyError: When there is none.
        TypeError: When an entry has other fields.
    """
    return {str(name): FileEntry(**entry) for name, entry in data["files"].items()}


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file as lower-case hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def list_files(folder: Path) -> dict[str, Path]:
    """Return relative POSIX path -> path of every file below ``folder`` but the manifest.

    Raises:
        BundleError: On links, devices and files of a kind no bundle holds.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(f"{folder}: {name} is a link or special file; bundles hold none")
        if path.is_dir() or name == MANIFEST:
            continue
        if path.suffix not in SUFFIXES:
            raise BundleError(
                f"{folder}: {name} does not belong in a bundle, which holds "
                f"{', '.join(sorted(SUFFIXES))}"
            )
        found[name] = path
    return found


def seal(folder: Path, manifest: M) -> M:
    """Hash every file, write ``manifest.json`` last and return the completed manifest."""
    entries = {
        name: FileEntry(digest_file(path), path.stat().st_size)
        for name, path in list_files(folder).items()
    }
    # Every manifest is a dataclass, which a protocol cannot say.
    sealed: M = replace(manifest, files=entries)  # type: ignore[type-var]
    (folder / MANIFEST).write_text(sealed.to_json(), encoding="utf-8")
    return sealed


def write_sealed(
    folder: Path, write: Callable[[Path], BundleManifest], check: Callable[[Path], object]
) -> None:
    """Write a bundle beside its place, check it, then move it there in one step.

    Args:
        folder: Its place; what lies there is replaced.
        write: Writes all files into a draft folder; returns the manifest without them.
        check: Opens and tries the sealed draft; what it raises leaves ``folder`` as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".{folder.name}-{secrets.token_hex(4)}"
    try:
        draft.mkdir(mode=0o700)  # in here: Ctrl-C may come at any moment after it
        seal(draft, write(draft))
        check(draft)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(draft, folder)  # noqa: PTH105 - replaces within one file system, atomically
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def bundle_digest(folder: Path) -> str:
    """Return the SHA-256 of the manifest, which stands for the whole bundle."""
    return digest_file(folder / MANIFEST)


def read_manifest(folder: Path, parse: Callable[[str, Path], M], *, digest: str = "") -> M:
    """Read the manifest and check the list of files, but not yet their contents.

    Args:
        folder: The bundle.
        parse: ``(text, path) -> manifest``; raises ``BundleError``.
        digest: Expected SHA-256 of the manifest, as kept in the registry; empty: not checked.

    Raises:
        BundleError: Missing manifest, another digest, a file too many or too few, unsafe names.
    """
    path = folder / MANIFEST
    if not path.is_file() or path.is_symlink():
        raise BundleError(f"{folder} holds no {MANIFEST}; give the folder that 'train' wrote")
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise BundleError(f"{path} is larger than {MAX_TEXT_BYTES} bytes")
    if digest and digest_file(path) != digest:
        raise BundleError(f"{path} is not the manifest that was registered; fetch the model again")
    manifest = parse(path.read_text(encoding="utf-8"), path)
    for name in manifest.files:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name:
            raise BundleError(f"{path}: file name {name!r} leads outside the bundle")
    present = set(list_files(folder))
    missing, extra = sorted(set(manifest.files) - present), sorted(present - set(manifest.files))
    if missing:
        raise BundleError(f"{folder}: {missing[0]} is missing; the copy is incomplete")
    if extra:
        raise BundleError(f"{folder}: {extra[0]} is not in the manifest; remove it or train again")
    return manifest


def read_verified(folder: Path, manifest: BundleManifest, name: str) -> bytes:
    """Return the bytes of a file, which are the bytes that were hashed.

    Raises:
        BundleError: On a size or SHA-256 that differs from the manifest.
    """
    entry = manifest.files.get(name)
    if entry is None:
        raise BundleError(f"{folder}: the bundle has no {name}")
    limit = MAX_TEXT_BYTES if name.endswith((".json", ".toml", ".md")) else MAX_FILE_BYTES
    path = folder / name
    size = path.stat().st_size
    if size != entry.size or size > limit:
        raise BundleError(f"{path}: {size} bytes, the manifest says {entry.size}; fetch it again")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(f"{path}: contents differ from the manifest; fetch it again")
    return content


def read_json(folder: Path, manifest: BundleManifest, name: str) -> Any:
    """Return a verified, parsed JSON file of the bundle."""
    try:
        return json.loads(read_verified(folder, manifest, name))
    except json.JSONDecodeError as error:
        raise BundleError(f"{folder / name} is no JSON: {error}") from error
