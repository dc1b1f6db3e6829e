"""Batches out of Parquet shards: shuffled, by index, without holding the data in memory.

The order of an epoch follows from seed and epoch alone: shards are put in a random order, every few
neighbours of it are mixed row by row. Any batch can be asked for at any time, so that a run that
goes on needs to know nothing but its step. Pictures are rows, too: bytes in a column, decoded by
the function you give.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsConfig:
    """How batches are drawn from shards.

    Attributes:
        rows: Rows of a batch.
        seed: Seed of the order.
        shuffle: Mix rows; else shards and rows come as they are.
        mixed: Shards that are mixed with each other; they are in memory together.
        columns: Columns to read; empty: all.
        drop_last: Leave out the rows at the end of an epoch that do not fill a batch.
    """

    rows: int
    seed: int = 0
    shuffle: bool = True
    mixed: int = 4
    columns: tuple[str, ...] = ()
    drop_last: bool = True

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.rows < 1 or self.mixed < 1:
            raise ValueError("shards.rows and shards.mixed must be at least 1")


class ShardError(ValueError):
    """Shards that cannot be read, or hold too little."""


@dataclass(frozen=True, slots=True)
class _Epoch:
    """Order of an epoch: groups of shards, and where each group's rows begin."""

    groups: list[list[int]]
    starts: NDArray[np.int64]


class ShardedBatches(Generic[Batch]):
    """Batches by index from Parquet files.

    Attributes:
        per_epoch: Batches of an epoch.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        config: ShardsConfig,
        decode: Callable[[pa.Table], Batch] | None = None,
    ) -> None:
        """Read the footers of the shards.

        Args:
            paths: Parquet files; their order counts.
            config: How batches are drawn.
            decode: Makes a batch of a table of ``config.rows`` rows; by default a dict of tensors,
                one per column.

        Raises:
            ShardError: When a file cannot be read, or all together hold no batch.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._paths, self._config = [Path(p) for p in paths], config
        self._decode: Callable[[Any], Any] = decode or to_tensors
        self._sizes = np.zeros(len(self._paths), np.int64)
        for i, path in enumerate(self._paths):
            try:
                metadata = pq.read_metadata(path)
            except (OSError, pa.ArrowInvalid) as error:
                raise ShardError(f"shard {path} cannot be read: {error}") from error
            missing = set(config.columns) - set(metadata.schema.to_arrow_schema().names)
            if missing:
                raise ShardError(f"shard {path} lacks the columns {', '.join(sorted(missing))}")
            self._sizes[i] = metadata.num_rows
        total = int(self._sizes.sum())
        self.per_epoch = total // config.rows if config.drop_last else -(-total // config.rows)
        if not self.per_epoch:
            raise ShardError(
                f"{len(self._paths)} shards hold {total} rows, fewer than one batch of "
                f"{config.rows}; give more data or smaller batches"
            )
        # Two groups: a batch may begin in one and end in the next.
        self._tables: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._lock = Lock()

    def __call__(self, index: int) -> Batch:
        """Return batch ``index``, counted over all epochs."""
        import pyarrow as pa

        number, place = divmod(index, self.per_epoch)
        epoch = self._epoch(number)
        start = place * self._config.rows
        stop = min(start + self._config.rows, int(epoch.starts[-1]))
        parts = []
        while start < stop:
            group = int(np.searchsorted(epoch.starts, start, side="right")) - 1
            first = int(epoch.starts[group])
            end = min(stop, int(epoch.starts[group + 1]))
            parts.append(self._group(number, group, epoch).slice(start - first, end - start))
            start = end
        found: Batch = self._decode(pa.concat_tables(parts))
        return found

    def _epoch(self, number: int) -> _Epoch:
        order = np.arange(len(self._paths))
        if self._config.shuffle:
            order = np.random.default_rng([self._config.seed, number]).permutation(order)
        mixed = self._config.mixed if self._config.shuffle else 1
        groups = [order[i : i + mixed].tolist() for i in range(0, len(order), mixed)]
        sizes = [int(self._sizes[group].sum()) for group in groups]
        return _Epoch(groups, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    def _group(self, number: int, group: int, epoch: _Epoch) -> pa.Table:
        """Return the rows of a group in their order; the last two asked for are kept."""
        key = (number, group)
        with self._lock:
            if key not in self._tables:
                self._tables[key] = self._read(number, group, epoch)
                while len(self._tables) > 2:
                    self._tables.popitem(last=False)
            self._tables.move_to_end(key)
            return self._tables[key]

    def _read(self, number: int, group: int, epoch: _Epoch) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = list(self._config.columns) or None
        tables = [pq.read_table(self._paths[i], columns=columns) for i in epoch.groups[group]]
        table = pa.concat_tables(tables)
        if not self._config.shuffle:
            return table
        rng = np.random.default_rng([self._config.seed, number, group])
        return table.take(pa.array(rng.permutation(len(table)))).combine_chunks()


def to_tensors(table: pa.Table) -> dict[str, torch.Tensor]:
    """Return every column as a tensor; lists of equal length become rows of a matrix.

    Raises:
        ShardError: For a column that is not made of numbers, or lacks values.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if column.null_count:
            raise ShardError(
                f"column {name} lacks {column.null_count} values; give a decode function"
            )
        is_matrix = False
        while pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
            lengths = pc.min_max(pc.list_value_length(column)).as_py()
            if lengths["min"] != lengths["max"]:
                raise ShardError(f"lists of column {name} differ in length; give a decode function")
            column, is_matrix = column.flatten(), True
        try:
            # A copy: the table's own memory cannot be written to, and others see it.
            tensor = torch.from_numpy(np.array(column.to_numpy(zero_copy_only=False)))
        except TypeError as error:
            raise ShardError(
                f"column {name} of type {column.type} is no numbers; give a decode function"
            ) from error
        found[name] = tensor.reshape(len(table), -1) if is_matrix else tensor
    return found
