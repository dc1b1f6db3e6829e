"""Intermediate results of a job on disk: each step's files in a folder named by its inputs.

``<root>/<step>/<key>/`` is complete when ``done.json`` is there; the key is a hash of everything
the step depends on. So a repeated or resumed run finds what is finished, and a half-written
folder is never trusted. Arrays are plain ``.npy`` and ``.npz``; nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kernels.bundle.arrays import load_arrays, save_arrays

if TYPE_CHECKING:
    from tasks.fraud.features import FeatureSet
    from tasks.fraud.transactions import Transactions

DONE = "done.json"
_ROWS = ("event_id", "time", "amount", "label", "label_time")
_MAPS = ("entities", "index", "numeric", "categorical", "categories")


class WorkspaceError(RuntimeError):
    """An intermediate result that is missing or unreadable."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one step keeps its files.

    Attributes:
        folder: The folder.
        key: Hash of the step's inputs.
    """

    folder: Path
    key: str

    @property
    def done(self) -> bool:
        """Whether the step finished."""
        return (self.folder / DONE).is_file()

    @property
    def checkpoints(self) -> Path:
        """Where the step's training loops keep their position; gone once the step is done."""
        return self.folder.with_name(f"{self.key}.checkpoints")

    def record(self) -> dict[str, Any]:
        """Return what the step reported."""
        try:
            record = json.loads((self.folder / DONE).read_text(encoding="utf-8"))
            return {**record, "folder": str(self.folder)}  # the home may have been moved
        except (OSError, json.JSONDecodeError) as error:
            raise WorkspaceError(
                f"{self.folder} holds no finished step: {error}; run the flow again"
            ) from error


def place_of(root: Path, step: str, inputs: Mapping[str, Any]) -> Place:
    """Return the place of a step with these inputs (JSON data, digests instead of paths)."""
    text = json.dumps(inputs, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:20]
    return Place(root / step / key, key)


def fill(place: Place, work: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Run ``work`` in a draft folder and move it into place when it has finished.

    Args:
        place: Where the result belongs; a finished one is returned as it is.
        work: Writes its files into the folder it is given; returns JSON data to report.

    Returns:
        What ``work`` reported, with ``folder`` added.
    """
    if place.done:
        return place.record()
    place.folder.parent.mkdir(parents=True, exist_ok=True)
    draft = place.folder.parent / f".{place.key}-{secrets.token_hex(4)}"
    try:
        draft.mkdir(mode=0o700)  # in here: Ctrl-C may come at any moment after it
        text = json.dumps({**work(draft), "folder": str(place.folder)}, allow_nan=False)
        (draft / DONE).write_text(text, encoding="utf-8")
        _sync(draft)
        if (place.folder / DONE).is_file():  # another run was faster; its files may be in use
            shutil.rmtree(draft)
            return place.record()
        shutil.rmtree(place.folder, ignore_errors=True)
        draft.rename(place.folder)
        shutil.rmtree(place.checkpoints, ignore_errors=True)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return place.record()


def _sync(folder: Path) -> None:
    """Force the files of a folder to the disk, so that its name never outlives their content."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())


@cache
def source_digest() -> str:
    """Return a hash of the code that makes results, so that changed code is not served old ones.

    Read once: what counts is the code this process has loaded.
    """
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for folder in ("connectors", "kernels", "models", "tasks"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


def save_transactions(folder: Path, tx: Transactions) -> None:
    """Write transactions as ``transactions.npz``."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(tx, name) for name in _ROWS}
    for part in _MAPS:
        for name, values in getattr(tx, part).items():
            array = np.asarray(values)
            arrays[f"{part}:{name}"] = array.astype(np.str_) if array.dtype.hasobject else array
    for column, kind in tx.kinds.items():
        arrays[f"kinds:{column}"] = np.asarray(kind)
    if tx.event_names is not None:
        arrays |= _pack_texts("event_names", tx.event_names)
    # The order of entity columns means something (it is the config's); archives sort by name.
    arrays["order"] = np.asarray(list(tx.entities))
    save_arrays(folder / "transactions.npz", arrays)


def load_transactions_file(folder: Path) -> Transactions:
    """Read what ``save_transactions`` wrote."""
    from tasks.fraud.transactions import Transactions

    path = folder / "transactions.npz"
    try:
        arrays = load_arrays(path.read_bytes(), path.name)
    except OSError as error:
        raise WorkspaceError(f"{path} is missing; run the flow again") from error
    maps: dict[str, Any] = {part: {} for part in (*_MAPS, "kinds")}
    for key, value in arrays.items():
        part, _, name = key.partition(":")
        if part in maps:
            maps[part][name] = str(value) if part == "kinds" else value
    rows: dict[str, Any] = {name: arrays[name] for name in _ROWS}
    maps["entities"] = {str(c): maps["entities"][str(c)] for c in arrays["order"]}
    return Transactions(**rows, **maps, event_names=_unpack_texts("event_names", arrays))


def _pack_texts(name: str, texts: NDArray[np.object_]) -> dict[str, NDArray[Any]]:
    """Return texts as UTF-8 and where each one ends: one long text does not widen the others."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
    return {f"{name}:utf8": np.frombuffer(b"".join(encoded), np.uint8), f"{name}:ends": ends}


def _unpack_texts(name: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.object_] | None:
    """Read what ``_pack_texts`` wrote; None where it wrote nothing."""
    if f"{name}:ends" not in arrays:
        return None
    data = arrays[f"{name}:utf8"].tobytes()
    ends = arrays[f"{name}:ends"].tolist()
    texts = np.empty(len(ends), np.object_)
    texts[:] = [data[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
    return texts


def save_features(folder: Path, features: FeatureSet) -> None:
    """Write features as ``features.npy`` and ``features.json``."""
    np.save(folder / "features.npy", features.values, allow_pickle=False)
    header = {"names": features.names, "categories": dict(features.categories)}
    (folder / "features.json").write_text(json.dumps(header), encoding="utf-8")


def load_features(folder: Path) -> FeatureSet:
    """Open features; the table is mapped into memory, not read."""
    from tasks.fraud.features import FeatureSet

    try:
        header = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        values = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise WorkspaceError(f"{folder} holds no features: {error}; run the flow again") from error
    categories = {c: tuple(v) for c, v in header["categories"].items()}
    return FeatureSet(tuple(header["names"]), values, categories)
