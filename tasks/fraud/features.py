"""Model features of every transaction: the event, its entities' state, and extra columns.

Every entity column of the config gets the same list of features (``tasks.fraud.derive``), read
from the state of its kind at the moment of the event: past events, the event itself, and labels
older than the delay. Values are computed in float64 and stored as float32.

Missing values and cold starts take declared defaults (see ``derive`` for entities): a missing
extra number is 0 beside an indicator ``<column>_missing`` of 1; a missing or unseen category has
all its indicators 0, or the code -1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.spec import DEFAULT_WINDOWS, StateSpec
from tasks.fraud.derive import derive_column, derive_event, derived_names, event_names

if TYPE_CHECKING:
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.transactions import Transactions

Backend = Literal["cpu", "reference"]
Categories = Mapping[str, tuple[str, ...]]

FEATURES_VERSION = 1
"""Raised whenever a feature changes its meaning; bundles record it."""

_ONE_HOT_LIMIT = 16
"""Categorical columns with more values than this become one integer code."""

_CHUNK = 262_144
"""Rows derived at a time; bounds the memory of the intermediate columns."""


class FeatureError(ValueError):
    """Columns that cannot become features; the message names the fix."""


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """Features of all rows.

    Attributes:
        names: F feature names, unique.
        values: float32 [n, F], finite.
        categories: Categorical column -> values in the order of its codes and indicators; pass
            it back when other data is scored with the same model.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]
    categories: Categories = field(default_factory=dict)

    def column(self, name: str) -> NDArray[np.float32]:
        """Return one feature [n]."""
        return self.values[:, self.names.index(name)]

    def select(self, names: tuple[str, ...]) -> NDArray[np.float32]:
        """Return features [n, len(names)] in the order a model was trained on.

        Raises:
            FeatureError: When the set lacks one of them.
        """
        missing = sorted(set(names) - set(self.names))
        if missing:
            raise FeatureError(
                f"the data yields no feature {missing[0]!r}; the model was trained with another "
                "dataset config: score with the config of its bundle"
            )
        if names == self.names:
            return self.values
        return self.values[:, [self.names.index(n) for n in names]]


def state_specs(config: DatasetConfig) -> dict[str, StateSpec]:
    """Return what each entity kind of a config remembers (one spec per kind)."""
    return {
        kind: StateSpec(windows=DEFAULT_WINDOWS, delay=config.delay_ms, roles=len(columns))
        for kind, columns in config.kinds.items()
    }


def feature_names(config: DatasetConfig, categories: Categories) -> tuple[str, ...]:
    """Return the names of a config's features in their fixed order.

    Raises:
        FeatureError: When an extra column has the name of a derived feature.
    """
    windows = [w.name for w in DEFAULT_WINDOWS]
    names = list(event_names())
    for entity in config.entities:
        names += derived_names(entity.column, windows)
    for column in config.numeric:
        names += [column, f"{column}_missing"]
    for column in config.categorical:
        values = categories[column]
        one_hot = len(values) <= _ONE_HOT_LIMIT
        names += [f"{column}={v}" for v in values] if one_hot else [column]
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        raise FeatureError(
            f"column {repeated[0]!r} has the name of another feature; rename it in the data and "
            "in the dataset config"
        )
    return tuple(names)


def build_features(
    tx: Transactions,
    config: DatasetConfig,
    *,
    backend: Backend = "cpu",
    categories: Categories | None = None,
) -> FeatureSet:
    """Compute every feature of every transaction from its past.

    Args:
        tx: Checked transactions in the order (time, event_id).
        config: What the columns mean.
        backend: ``cpu`` or ``reference`` (slow, for tests).
        categories: Values of the categorical columns as the model knows them; None: those of
            ``tx``.

    Returns:
        The features; a row depends on earlier rows and on labels older than the delay, never on
        what follows. (The code of a category with many values is its place among all values of
        ``tx`` unless ``categories`` are given, as they are wherever a trained model scores.)
    """
    known = categories
    if known is None:
        known = {c: tuple(str(v) for v in tx.categories[c]) for c in config.categorical}
    names = feature_names(config, known)
    values = np.empty((len(tx), len(names)), dtype=np.float32)
    position = len(event_names())
    for part in _chunks(len(tx)):
        values[part, :position] = derive_event(tx.amount[part], tx.time[part], config.decimals)
    places = _places(config, position)
    for column, state in _slices(tx, config, backend):
        start = places[column]
        for part in _chunks(len(tx)):
            derived = derive_state(state[part], tx.amount[part], tx.time[part], config)
            values[part, start : start + derived.shape[1]] = derived
    position += len(config.entities) * _derived_width()
    extras = [numeric_features(tx.numeric[c]) for c in config.numeric]
    extras += [_categorical(tx, c, known[c]) for c in config.categorical]
    for extra in extras:
        values[:, position : position + extra.shape[1]] = extra
        position += extra.shape[1]
    return FeatureSet(names, values, known)


def derive_state(
    state: NDArray[np.float64],
    amount: NDArray[np.int64],
    time: NDArray[np.int64],
    config: DatasetConfig,
) -> NDArray[np.float64]:
    """Return the derived features [m, G] of one entity column's raw state [m, fields].

    Stream and API call it on the rows at hand, so a feature has one definition.
    """
    windows = {w.name: w.length for w in DEFAULT_WINDOWS}
    return derive_column(state, windows, amount, time, config.decimals)


def _slices(
    tx: Transactions, config: DatasetConfig, backend: Backend
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield column and raw state, one kind in memory at a time."""
    from kernels.entity_state import entity_features

    for kind, spec in state_specs(config).items():
        columns = config.kinds[kind]
        block, _ = entity_features(
            tx.time,
            tx.event_id,
            tx.amount,
            tx.label,
            tx.label_time,
            np.stack([tx.entities[c] for c in columns], axis=1),
            spec=spec,
            n_entities=len(tx.index[kind]),
            backend=backend,
        )
        for role, column in enumerate(columns):
            yield column, block[:, role]


def _derived_width() -> int:
    return len(derived_names("", [w.name for w in DEFAULT_WINDOWS]))


def _places(config: DatasetConfig, first: int) -> dict[str, int]:
    """First feature position of every entity column."""
    width = _derived_width()
    return {e.column: first + i * width for i, e in enumerate(config.entities)}


def _chunks(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _CHUNK):
        yield slice(start, min(start + _CHUNK, rows))


def numeric_features(value: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return value and missing indicator, float32 [n, 2]; infinities count as missing."""
    limit = float(np.finfo(np.float32).max)
    present = np.isfinite(value) & (np.abs(value) <= limit)
    pair: NDArray[np.float32] = np.stack([np.where(present, value, 0.0), ~present], axis=1).astype(
        np.float32
    )
    return pair


def _categorical(tx: Transactions, column: str, values: tuple[str, ...]) -> NDArray[np.float32]:
    """Indicators of few values, or one code; missing and unseen ones are 0 or -1."""
    place = {value: i for i, value in enumerate(values)}
    table = np.array([place.get(str(v), -1) for v in tx.categories[column]] + [-1], dtype=np.int64)
    code = table[tx.categorical[column]]  # a missing code -1 reads the last entry
    return categorical_features(code, len(values))


def categorical_features(code: NDArray[np.int64], values: int) -> NDArray[np.float32]:
    """Return indicators of few values, or one code, float32 [n, values or 1].

    Args:
        code: int64 [n], place among the values the model knows; -1 for missing or unseen.
        values: How many it knows.
    """
    if values > _ONE_HOT_LIMIT:
        return code.astype(np.float32)[:, None]
    indicators: NDArray[np.float32] = (code[:, None] == np.arange(values)).astype(np.float32)
    return indicators
