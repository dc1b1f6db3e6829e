"""Past-only graph: which earlier rows an entity took part in, and a sampler over them.

Rows stand in event order, so "before row i" means "in the past of row i" and no edge can run from
the future to the past. One `TemporalGraph` holds the rows of one entity column as a compressed
sparse row (CSR) structure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TemporalGraph:
    """Rows of every entity of one column, ascending.

    Attributes:
        starts: int64 [entities + 1]; entity e owns ``rows[starts[e]:starts[e + 1]]``.
        rows: int32 [n], row numbers grouped by entity, ascending within each.
    """

    starts: Rows
    rows: NDArray[np.int32]

    @classmethod
    def build(cls, keys: NDArray[np.int32], n_entities: int) -> TemporalGraph:
        """Group rows by entity.

        Args:
            keys: int32 [n] entity code of each row, rows in event order.
            n_entities: Number of codes.

        Raises:
            ValueError: For codes out of range.
        """
        if keys.size and (keys.min() < 0 or keys.max() >= n_entities):
            raise ValueError(
                f"entity codes must lie in 0..{n_entities - 1}, got {keys.min()}..{keys.max()}"
            )
        starts = np.zeros(n_entities + 1, np.int64)
        np.cumsum(np.bincount(keys, minlength=n_entities), out=starts[1:])
        return cls(starts, np.argsort(keys, kind="stable").astype(np.int32))

    def most_recent(self, entities: Rows, before: Rows, fan_out: int) -> NDArray[np.int32]:
        """Return the last rows of each entity that lie before a row.

        Args:
            entities: int64 [m] entity codes.
            before: int64 [m]; only rows with a smaller number count.
            fan_out: Rows per entity.

        Returns:
            int32 [m, fan_out], most recent first, -1 where there are fewer.
        """
        _check(fan_out)
        out = np.full((len(entities), fan_out), -1, np.int32)
        _most_recent(self.starts, self.rows, entities, before, out)
        return out


def _check(fan_out: int) -> None:
    if fan_out < 1:
        raise ValueError(f"fan_out must be at least 1, got {fan_out}")


@compiled
def _end(starts: Rows, rows: NDArray[np.int32], entity: int, before: int) -> int:
    """Return the position after the entity's last row below ``before``."""
    low, high = int(starts[entity]), int(starts[entity + 1])
    while low < high:
        middle = (low + high) // 2
        if rows[middle] < before:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _most_recent(
    starts: Rows, rows: NDArray[np.int32], entities: Rows, before: Rows, out: NDArray[np.int32]
) -> None:
    for i in range(len(entities)):
        end = _end(starts, rows, entities[i], before[i])
        for k in range(min(out.shape[1], end - starts[entities[i]])):
            out[i, k] = rows[end - 1 - k]
