"""The scoring function of the stream: a pandas UDF in a process of its own, one thread."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pyflink.table.udf import ScalarFunction

if TYPE_CHECKING:
    import pandas as pd
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

    def eval(self, *given: pd.Series) -> pd.Series:
        """Return float64 scores of a batch.

        Args:
            given: model, time, amount, state, then ``columns``.
        """
        import pandas as pd

        model, columns = given[0], [series.to_numpy() for series in given[1:]]
        stamps = model.unique()
        if len(stamps) == 1:
            return pd.Series(self._scores(stamps[0], columns))
        scores = np.empty(len(model))
        for stamp in stamps:
            rows = (model == stamp).to_numpy()
            scores[rows] = self._scores(stamp, [column[rows] for column in columns])
        return pd.Series(scores)

    def _scores(self, stamp: str, columns: list[Any]) -> Any:
        from tasks.fraud.online.decode import decode_rows

        try:
            model = self._model(stamp)
            extras = dict(zip(self.columns, columns[3:], strict=True))
            time, amount = (column.astype(np.int64) for column in columns[:2])
            rows = decode_rows(
                model.bundle.config, model.layout, time, amount, columns[2], **extras
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


def import_numba() -> None:
    """Import numba with the true ``print``: a worker of PyFlink replaces it, numba looks it up."""
    import builtins

    replaced = builtins.print
    keeper = getattr(replaced, "__self__", None)
    builtins.print = getattr(keeper, "_print", replaced)
    try:
        import numba  # noqa: F401
    finally:
        builtins.print = replaced
