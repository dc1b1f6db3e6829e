"""The model's features of a few rows, with everything that never changes worked out beforehand.

Same values as ``tasks.fraud.features.build_features``, bit for bit. A request has one row, and for
one row looking up names and windows takes longer than the arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.jit import compiled
from kernels.entity_state.spec import DEFAULT_WINDOWS
from tasks.fraud.derive import DAY_MS, HOUR_MS, NIGHT_ENDS, derived_names, event_names
from tasks.fraud.derive_rows import derive_rows
from tasks.fraud.features import categorical_features, feature_names, numeric_features

if TYPE_CHECKING:
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.features import Categories
    from tasks.fraud.online.rows import OnlineRows


class FeatureRows:
    """Makes feature rows of one dataset config.

    Attributes:
        names: F feature names in order.
    """

    def __init__(self, config: DatasetConfig, categories: Categories) -> None:
        self.names = feature_names(config, categories)
        self._columns = len(config.entities)
        self._derived = len(derived_names("", [w.name for w in DEFAULT_WINDOWS]))
        self._lengths = np.array([w.length for w in DEFAULT_WINDOWS], np.float64)
        self._unit = 10.0**config.decimals
        self._places = [
            {value: code for code, value in enumerate(categories[name])}
            for name in config.categorical
        ]

    def __call__(self, rows: OnlineRows) -> NDArray[np.float32]:
        """Return float32 [n, F]."""
        n, columns, fields = rows.state.shape
        out = np.empty((n, len(self.names)), np.float32)
        _event_rows(rows.amount, rows.time, self._unit, out)
        derived = np.empty((n * columns, self._derived))
        derive_rows(
            rows.state.reshape(n * columns, fields),
            np.repeat(rows.amount, columns),
            np.repeat(rows.time, columns),
            self._lengths,
            self._unit,
            derived,
        )
        first = len(event_names())
        at = first + columns * self._derived
        out[:, first:at] = derived.reshape(n, columns * self._derived)
        for i in range(rows.numeric.shape[1]):
            out[:, at : at + 2] = numeric_features(rows.numeric[:, i])
            at += 2
        for place, values in zip(self._places, rows.categorical, strict=True):
            code = np.array([place.get(v, -1) if v is not None else -1 for v in values], np.int64)
            part = categorical_features(code, len(place))
            out[:, at : at + part.shape[1]] = part
            at += part.shape[1]
        return out


@compiled
def _event_rows(
    amount: NDArray[np.int64], time: NDArray[np.int64], unit: float, out: NDArray[np.float32]
) -> None:
    """Fill the first columns of ``out``; see ``tasks.fraud.derive.derive_event``."""
    for i in range(len(amount)):
        hour = (time[i] % DAY_MS) // HOUR_MS
        out[i, 0] = amount[i] / unit
        out[i, 1] = 1.0 if (time[i] // DAY_MS + 3) % 7 >= 5 else 0.0
        out[i, 2] = 1.0 if hour < NIGHT_ENDS else 0.0
        out[i, 3] = hour
