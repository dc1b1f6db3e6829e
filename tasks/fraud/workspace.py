"""Transactions and features on disk, between the steps of the fraud job.

Arrays are plain ``.npy`` and ``.npz``; nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kernels.bundle.arrays import load_arrays, save_arrays
from tasks.workspace import WorkspaceError

if TYPE_CHECKING:
    from tasks.fraud.features import FeatureSet
    from tasks.fraud.transactions import Transactions

_ROWS = ("event_id", "time", "amount", "label", "label_time")
_MAPS = ("entities", "index", "numeric", "categorical", "categories")


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
