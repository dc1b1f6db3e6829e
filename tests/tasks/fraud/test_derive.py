"""The compiled derivation against the same definition written with whole arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.entity_state.fields import feature_names
from kernels.entity_state.spec import DEFAULT_WINDOWS, StateSpec, days
from tasks.fraud.derive import DAY_MS, NEVER, derive_column, derived_names


def by_arrays(
    state: np.ndarray,
    fields: tuple,
    windows: dict,
    amount: np.ndarray,
    time: np.ndarray,
    decimals: int,
) -> np.ndarray:
    """Return the derived features of one entity column.

    Args:
        state: float64 [m, F] raw state of the column's entity, current event included.
        fields: The F field names.
        windows: Window name -> length in milliseconds, ascending.
        amount: [m] int64 minor units of the event at hand.
        time: [m] int64 epoch milliseconds.
        decimals: Decimal places of the currency.

    Returns:
        float64 [m, G] in the order of ``derived_names``.
    """
    raw = {name: state[:, i] for i, name in enumerate(fields)}
    unit = 10.0**decimals
    now = amount / unit
    past = {w: _Past(raw, w, now, unit) for w in windows}
    longest = list(windows)[-1]
    reference = past[longest]
    columns: list = []
    for w in windows:
        columns += past[w].columns()
    for w in list(windows)[:-1]:
        scale = windows[longest] / windows[w]
        columns += [
            past[w].n / reference.n * scale,
            past[w].before / np.maximum(reference.before, 1.0),
            past[w].highest / np.maximum(reference.before, 1.0),
        ]
    columns += [past[w].z for w in list(windows)[1:] or windows]
    columns += [reference.before, reference.deviation, raw[f"frauds_{longest}"]]
    gap, since, age = (
        np.where(raw[d] < 0, NEVER, raw[d]) for d in ("gap", "since_fraud", "run_age")
    )
    columns += [gap, raw["last_label"], since, age, _run_days(raw["run_age"], time)]
    columns.append(raw["run_length"])
    return np.stack(columns, axis=-1)


class _Past:
    """One window of one column, seen without and with the event at hand."""

    def __init__(self, raw: dict, window: str, now: np.ndarray, unit: float) -> None:
        self.n = np.maximum(raw[f"n_{window}"], 1.0)
        total = raw[f"sum_{window}"] / unit
        squares = raw[f"sumsq_{window}"] / unit**2
        self.mean = total / self.n
        earlier = np.maximum(self.n - 1.0, 1.0)
        cold = self.n < 2
        # One major unit as floor keeps ratios of tiny averages finite and comparable.
        self.before = np.where(cold, now, (total - now) / earlier)
        variance = np.where(cold, 0.0, (squares - now * now) / earlier - self.before**2)
        self.deviation = np.sqrt(np.maximum(variance, 1.0))
        self.z = (now - self.before) / self.deviation
        self.ratio = now / np.maximum(self.before, 1.0)
        self.highest = np.maximum(raw[f"max_{window}"] / unit, now)
        self.of_max = now / np.maximum(self.highest, 1.0)
        self.known = raw[f"known_{window}"]
        self.risk = raw[f"frauds_{window}"] / np.maximum(self.known, 1.0)

    def columns(self) -> list:
        """Features of the window in the order of ``derived_names``."""
        return [self.n, self.mean, self.ratio, self.of_max, self.known, self.risk]


def _run_days(age: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Calendar days since the current run of known frauds began (``NEVER`` / 1 d if none)."""
    start = time - np.round(np.maximum(age, 0.0) * 1000.0).astype(np.int64)
    count = (time // DAY_MS - start // DAY_MS).astype(np.float64)
    return np.where(age < 0, NEVER / 86_400.0, count)


WINDOW_SETS = [(days(7),), DEFAULT_WINDOWS]


@pytest.mark.parametrize("windows", WINDOW_SETS)
@given(seed=st.integers(0, 10_000), decimals=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_compiled_is_the_definition(windows, seed, decimals):
    rng = np.random.default_rng(seed)
    fields = feature_names(StateSpec(windows=windows))
    m = 40
    state = np.empty((m, len(fields)))
    for i, name in enumerate(fields):
        whole = rng.integers(0, 6, m).astype(float)
        wide = rng.integers(-1, 10**7, m).astype(float)
        state[:, i] = whole if name[:2] in ("n_", "kn", "fr", "ru", "la") else wide
    amount = rng.integers(0, 10**6, m)
    time = rng.integers(-(10**12), 2 * 10**12, m)
    lengths = {w.name: w.length for w in windows}
    got = derive_column(state, lengths, amount, time, decimals)
    wanted = by_arrays(state, fields, lengths, amount, time, decimals)
    assert got.shape[1] == len(derived_names("x", list(lengths)))
    np.testing.assert_allclose(got, wanted, rtol=1e-13, atol=0)
