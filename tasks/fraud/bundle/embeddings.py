"""Entity embeddings of a bundle, as a plain ``.npz`` file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernels.bundle.arrays import load_arrays, save_arrays
from kernels.bundle.folder import BundleError

if TYPE_CHECKING:
    from tasks.fraud.transactions import Transactions


@dataclass(frozen=True, slots=True)
class EntityVectors:
    """Embeddings of one kind of entity.

    Attributes:
        ids: Original ids as strings, sorted, ``[n]``.
        vectors: float32 ``[n, E]``.
        default: float32 ``[E]``; the cold-start vector of an entity never seen.
    """

    ids: NDArray[np.str_]
    vectors: NDArray[np.float32]
    default: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Check shapes, order and finiteness."""
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.ids):
            raise BundleError(
                f"embeddings: {len(self.ids)} ids but vectors of shape {self.vectors.shape}"
            )
        if self.default.shape != (self.vectors.shape[1],):
            raise BundleError("embeddings: the default must have the width of the vectors")
        if not np.array_equal(np.unique(self.ids), self.ids):
            raise BundleError("embeddings: ids must be sorted and unique")
        if not (np.isfinite(self.vectors).all() and np.isfinite(self.default).all()):
            raise BundleError("embeddings hold NaN or infinity; train again with a lower rate")

    def lookup(self, ids: NDArray[np.str_]) -> NDArray[np.float32]:
        """Return float32 ``[m, E]`` for string ids ``[m]``; unseen ids get the default."""
        if not len(self.ids):
            return np.broadcast_to(self.default, (len(ids), len(self.default))).copy()
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        known = self.ids[place] == ids
        return np.where(known[:, None], self.vectors[place], self.default).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings of every kind of entity; empty when the model has no graph part."""

    kinds: Mapping[str, EntityVectors] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.kinds)

    @classmethod
    def build(
        cls,
        ids: Mapping[str, NDArray[np.str_]],
        vectors: Mapping[str, NDArray[np.float32]],
        default: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> Embeddings:
        """Sort by id; the default is the mean vector where none is given."""
        kinds = {}
        for kind, names in ids.items():
            text = np.asarray(names, dtype=np.str_)
            order = np.argsort(text, kind="stable")
            values = np.ascontiguousarray(vectors[kind][order], dtype=np.float32)
            mean = values.mean(axis=0) if len(values) else np.zeros(values.shape[1], np.float32)
            cold = default[kind] if default else mean
            kinds[kind] = EntityVectors(text[order], values, np.asarray(cold, dtype=np.float32))
        return cls(kinds)

    def for_transactions(self, tx: Transactions) -> NDArray[np.float32]:
        """Return float32 ``[n, C, E]``: one vector per transaction and entity column."""
        parts = []
        for column, codes in tx.entities.items():
            kind = tx.kinds[column]
            if kind not in self.kinds:
                raise BundleError(f"the bundle has no embeddings of kind {kind!r}")
            parts.append(self.kinds[kind].lookup(tx.index[kind])[codes])
        return np.stack(parts, axis=1)

    def save(self, path: Path) -> None:
        """Write ``embeddings.npz``."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for kind, part in self.kinds.items():
            arrays |= {
                f"{kind}.ids": part.ids,
                f"{kind}.vectors": part.vectors,
                f"{kind}.default": part.default,
            }
        save_arrays(path, arrays)

    @classmethod
    def load(cls, content: bytes) -> Embeddings:
        """Read the bytes of ``embeddings.npz``."""
        arrays = load_arrays(content, "embeddings.npz")
        kinds = {}
        for kind in sorted({name.rsplit(".", 1)[0] for name in arrays}):
            try:
                ids, vectors, default = (
                    arrays[f"{kind}.{part}"] for part in ("ids", "vectors", "default")
                )
            except KeyError as error:
                raise BundleError(f"embeddings.npz lacks {error}") from error
            kinds[kind] = EntityVectors(
                ids.astype(np.str_), vectors.astype(np.float32), default.astype(np.float32)
            )
        return cls(kinds)
