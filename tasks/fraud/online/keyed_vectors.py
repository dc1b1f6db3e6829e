"""Entity embeddings by 64-bit key: streams and requests know an entity's key, not only its id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernels.bundle.folder import BundleError

if TYPE_CHECKING:
    from tasks.fraud.bundle import Bundle


@dataclass(frozen=True, slots=True)
class KeyedVectors:
    """Embeddings of one kind of entity.

    Attributes:
        keys: int64 [m], ``entity_key`` of the entities, ascending.
        vectors: float32 [m + 1, E]; the last one is that of entities never seen in training.
    """

    keys: NDArray[np.int64]
    vectors: NDArray[np.float32]

    @classmethod
    def of(cls, bundle: Bundle, kind: str) -> KeyedVectors:
        """Take the embeddings of a kind from a bundle; none where it has no graph part.

        Raises:
            BundleError: When two entities share a key, for which the odds are those of a
                64-bit hash: 3 in a hundred million for a million entities.
        """
        from kernels.entity_state.keys import entity_keys

        part = bundle.embeddings.kinds.get(kind)
        if part is None:
            return cls(np.empty(0, np.int64), np.zeros((1, 0), np.float32))
        keys = entity_keys(kind, part.ids.tolist())
        order = np.argsort(keys)
        if (np.diff(keys[order]) == 0).any():
            raise BundleError(
                f"{bundle.folder}: two entities of kind {kind!r} have the same 64-bit key; leave "
                "one of them out of training"
            )
        return cls(keys[order], np.vstack([part.vectors[order], part.default]))

    def lookup(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 [n, E] for keys [n]."""
        size = len(self.keys)
        if not size:
            return np.repeat(self.vectors, len(keys), axis=0)
        place = np.minimum(np.searchsorted(self.keys, keys), size - 1)
        found: NDArray[np.float32] = self.vectors[np.where(self.keys[place] == keys, place, size)]
        return found
