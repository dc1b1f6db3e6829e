"""Keys of what a store keeps beside the state: embeddings and named values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from connectors.online_store.errors import StoreError
from connectors.online_store.record import entity_prefix

MAX_NAME_BYTES = 200


def embedding_prefix(model: str) -> bytes:
    """Return what the keys of a model's vectors begin with, 8 bytes made of its digest."""
    if not model:
        raise ValueError("model must be the digest of the bundle the vectors belong to")
    return blake2b(model.encode(), digest_size=8).digest()


def embedding_keys(model: str, entities: Sequence[tuple[str, str]]) -> list[bytes]:
    """Return the keys of a model's vectors by (kind, id)."""
    prefix = embedding_prefix(model)
    return [prefix + entity_prefix(kind, entity) for kind, entity in entities]


def embedding_rows(
    model: str, kind: str, ids: Sequence[str], vectors: NDArray[np.float32]
) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and bytes of every vector.

    Args:
        model: Digest of the model.
        kind: Kind of the entities.
        ids: n ids.
        vectors: float32 [n, d], finite.

    Raises:
        ValueError: When shape or values do not fit.
    """
    if vectors.ndim != 2 or len(vectors) != len(ids) or not vectors.shape[1]:
        raise ValueError(f"vectors must be [{len(ids)}, d], got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError(f"vectors of kind {kind!r} are not all finite; train the model again")
    prefix, rows = embedding_prefix(model), np.ascontiguousarray(vectors, "<f4")
    for entity, row in zip(ids, rows, strict=True):
        yield prefix + entity_prefix(kind, str(entity)), row.tobytes()


def meta_key(name: str) -> bytes:
    """Return the key of a named value.

    Raises:
        StoreError: On a name that no key can hold.
    """
    key = name.encode()
    if not 0 < len(key) <= MAX_NAME_BYTES or key.startswith(b"\0"):
        raise StoreError(f"{name!r} is no name of a value", f"Use 1 to {MAX_NAME_BYTES} bytes")
    return key
