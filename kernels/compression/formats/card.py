"""The card beside an exported file: what it takes and gives, its makers, how it decided."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernels.compression.export import ExportConfig
from kernels.compression.formats.protocol import Arrays, FormatError
from kernels.plain_data import finite

VERSION = 1
SUFFIX = ".card.json"
HELD_SUFFIX = ".held.npz"
MAX_CARD_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The card of one exported file.

    Attributes:
        format: Name of the format.
        file: Its name.
        digests: Name of each file -> SHA-256; of a folder, of all in it.
        size: Bytes of all of them.
        inputs: ``{"name", "dtype", "shape"}`` of each; a free size is its name.
        outputs: The same.
        free: Input -> axis -> (name, least, largest).
        version: Operator set or version of the format.
        producers: Program -> version.
        parity: Decisions, flips, max_rel and what they were held against; or why it was not run.
        latency: Engine -> median and p99 in CPU ms on one thread, both in turns.
        notes: What a user must know.
    """

    format: str
    file: str
    digests: Mapping[str, str]
    size: int
    inputs: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]
    free: Mapping[str, Mapping[str, Sequence[Any]]]
    version: str
    producers: Mapping[str, str]
    parity: Mapping[str, Any]
    latency: Mapping[str, Mapping[str, float]]
    notes: Sequence[str]

    @property
    def config(self) -> ExportConfig:
        """Names and free sizes."""
        free = {
            name: {int(axis): (str(one[0]), int(one[1]), int(one[2])) for axis, one in axes.items()}
            for name, axes in self.free.items()
        }
        return ExportConfig(
            inputs=tuple(str(one["name"]) for one in self.inputs),
            outputs=tuple(str(one["name"]) for one in self.outputs),
            dynamic=free,
        )

    def to_json(self) -> str:
        """Return the card as JSON."""
        plain = {"card": VERSION, **asdict(self)}
        return json.dumps(finite(plain, str), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Card:
        """Return the card beside a file, after the file's digests were checked.

        Raises:
            FormatError: When one of them is missing, broken, or not the other's.
        """
        beside = card_path(path)
        if not path.exists():
            raise FormatError(f"{path}: there is no such file")
        if not beside.is_file() or beside.stat().st_size > MAX_CARD_BYTES:
            raise FormatError(f"{path}: no card {beside.name} lies beside it; copy it along")
        try:
            told = json.loads(beside.read_text(encoding="utf-8"))
            version = told.pop("card")
            card = cls(**told)
            names = {Path(name).name == name for name in card.digests}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(f"{beside}: is no card ({error!r}); export again") from error
        if version != VERSION or names != {True} or card.file != path.name:
            raise FormatError(f"{beside}: is no card of {path.name} that this program reads")
        for name, digest in card.digests.items():
            one = path.with_name(name)
            if not one.exists() or digest_of(one) != digest:
                raise FormatError(
                    f"{one}: is not as it was exported; copy it anew, or export again"
                )
        return card


def card_path(path: Path) -> Path:
    """Return where the card of a file lies: ``net.onnx`` -> ``net.onnx.card.json``."""
    return path.with_name(path.name + SUFFIX)


def held_path(path: Path) -> Path:
    """Return where the held inputs and the answers to them lie."""
    return path.with_name(path.name + HELD_SUFFIX)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of names and contents of all in a folder."""
    if path.is_dir():
        whole = hashlib.sha256()
        for each in sorted(p for p in path.rglob("*") if p.is_file()):
            whole.update(f"{each.relative_to(path).as_posix()} {digest_of(each)}\n".encode())
        return whole.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all in a folder."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size


def tensors_told(
    arrays: Arrays, free: Mapping[str, Mapping[int, tuple[str, int, int]]] | None = None
) -> list[dict[str, Any]]:
    """Return name, dtype and shape of each array, free sizes by their names."""
    free = free or {}
    return [
        {
            "name": name,
            "dtype": str(one.dtype),
            "shape": [
                free.get(name, {}).get(axis, (int(size),))[0] for axis, size in enumerate(one.shape)
            ],
        }
        for name, one in arrays.items()
    ]
