"""The model's features of a few rows, with everything that never changes worked out beforehand.

Same values as ``tasks.fraud.features.build_features``, bit for bit. A request has one row, and for
one row looking up names and windows takes longer than the arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.spec import DEFAULT_WINDOWS
from kernels.jit import compiled
from tasks.fraud.derive import DAY_MS, HOUR_MS, NIGHT_ENDS, derived_names, event_names
from tasks.fraud.derive_rows import derive_rows
from tasks.fraud.features import categorical_features, feature_names, numeric_features

if TYPE_CHECKING:
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.features import Categories
    from tasks.fraud.online.rows import OnlineRows


_EVENT = len(event_names())


class FeatureRows:
    """Makes feature rows of one dataset config.

    Attributes:
        names: F feature names in order.
    """

    def __init__(self, config: DatasetConfig, categories: Categories) -> None:
        self.names = feature_names(config, categories)
        self._derived = len(derived_names("", [w.name for w in DEFAULT_WINDOWS]))
        self._first = _EVENT + len(config.entities) * self._derived
        self._lengths = np.array([w.length for w in DEFAULT_WINDOWS], np.float64)
        self._unit = 10.0**config.decimals
        self._places = [
            {value: code for code, value in enumerate(categories[name])}
            for name in config.categorical
        ]

    def __call__(self, rows: OnlineRows) -> NDArray[np.float32]:
        """Return float32 [n, F]."""
        out = np.empty((len(rows), len(self.names)), np.float32)
        _fill(rows.state, rows.amount, rows.time, self._lengths, self._unit, self._derived, out)
        at = self._first
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
def _fill(
    state: NDArray[np.float64],
    amount: NDArray[np.int64],
    time: NDArray[np.int64],
    lengths: NDArray[np.float64],
    unit: float,
    width: int,
    out: NDArray[np.float32],
) -> None:
    """Fill the features of the event and its entities; see ``derive_event``, ``derive_rows``.

    numba's cache knows this file's time stamp, not that of ``derive_rows``: whoever changes that
    must change this file too (features 1).
    """
    n, columns = state.shape[0], state.shape[1]
    derived = np.empty((columns, width))
    amounts, times = np.empty(columns, np.int64), np.empty(columns, np.int64)
    for i in range(n):
        hour = (time[i] % DAY_MS) // HOUR_MS
        out[i, 0] = amount[i] / unit
        out[i, 1] = 1.0 if (time[i] // DAY_MS + 3) % 7 >= 5 else 0.0
        out[i, 2] = 1.0 if hour < NIGHT_ENDS else 0.0
        out[i, 3] = hour
        amounts[:], times[:] = amount[i], time[i]
        derive_rows(state[i], amounts, times, lengths, unit, derived)
        for c in range(columns):
            for k in range(width):
                out[i, _EVENT + c * width + k] = derived[c, k]
