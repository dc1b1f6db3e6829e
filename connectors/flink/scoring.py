"""The scoring function of the stream: a pandas UDF in a process of its own, one thread."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pyflink.table.udf import ScalarFunction

from connectors.flink.worker import import_numba, keep_arrow_columns, keep_freed_memory

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyflink.table.udf import FunctionContext

    from tasks.fraud.online.model import OnlineModel

logger = logging.getLogger(__name__)


class Score(ScalarFunction):  # type: ignore[misc]  # pyflink has no types
    """Calibrated fraud probabilities of rows, by the model each row is stamped with.

    A model that cannot be loaded gives NaN for its rows: rules alone decide about them, the job
    goes on, and the log says why. Models are looked for again with every batch, so that a mended
    one is used.
    """

    def __init__(self, models: str, columns: tuple[str, ...]) -> None:
        """Keep where models lie; they are loaded in the worker.

        Args:
            models: Folder of model folders, named as the rows are stamped.
            columns: Names of the byte and text columns the rows bring, see ``optional_columns``.
        """
        self.models = models
        self.columns = columns
        self._loaded: dict[str, OnlineModel] = {}

    def open(self, function_context: FunctionContext) -> None:
        """Keep native libraries to one thread: the machine's cores belong to all operators."""
        del function_context
        import os

        os.environ["OMP_NUM_THREADS"] = "1"
        import_numba()
        keep_freed_memory()
        keep_arrow_columns()

    def eval(self, *given: pa.Array | pd.Series) -> pd.Series:
        """Return float64 scores of a batch.

        Args:
            given: model, time, amount, state, then ``columns``.
        """
        import pandas as pd
        import pyarrow as pa
        import pyarrow.compute as pc

        model, *columns = [c if isinstance(c, pa.Array) else pa.array(c) for c in given]
        stamps = model.unique().to_pylist()
        if len(stamps) == 1:
            return pd.Series(self._scores(stamps[0], columns))
        scores = np.empty(len(model))
        for stamp in stamps:
            rows = pc.equal(model, stamp)
            scores[rows.to_numpy(zero_copy_only=False)] = self._scores(
                stamp, [column.filter(rows) for column in columns]
            )
        return pd.Series(scores)

    def _scores(self, stamp: str, columns: list[pa.Array]) -> Any:
        from tasks.fraud.online.decode import decode_rows

        try:
            model = self._model(stamp)
            time, amount, state = columns[:3]
            extras = dict(zip(self.columns, columns[3:], strict=True))
            texts = extras.pop("categorical", None)
            rows = decode_rows(
                model.bundle.config,
                model.layout,
                time.to_numpy(),
                amount.to_numpy(),
                joined_bytes(state),
                categorical=texts.to_pylist() if texts is not None else (),
                **{name: joined_bytes(column) for name, column in extras.items()},
            )
            return model.score(rows)
        except Exception:  # whatever is wrong with a model must not stop the stream
            logger.exception("model %s cannot score; rules alone decide", stamp)
            return np.full(len(columns[0]), np.nan)

    def _model(self, stamp: str) -> OnlineModel:
        found = self._loaded.get(stamp)
        if found is None:
            from tasks.fraud.bundle import Bundle
            from tasks.fraud.online.model import OnlineModel

            found = OnlineModel(Bundle.load(Path(self.models) / stamp))
            # Two at most: rows of the model before may still be on their way.
            self._loaded = {**dict(list(self._loaded.items())[-1:]), stamp: found}
            logger.info("model %s loaded", stamp)
        return found


def joined_bytes(column: pa.Array) -> memoryview:
    """Return the values of a column of bytes one after the other, without a copy.

    Raises:
        ValueError: When a value is missing.
    """
    import pyarrow as pa

    if column.null_count:
        raise ValueError(f"{column.null_count} of {len(column)} values of a column are missing")
    if not len(column):
        return memoryview(b"")
    _, places, values = column.cast(pa.binary()).buffers()
    ends = np.frombuffer(places, np.int32)[column.offset : column.offset + len(column) + 1]
    return memoryview(values)[ends[0] : ends[-1]]
