"""From raw entity state to model features: ratios, z-scores, risks. Pure functions over arrays.

Batch, stream and API call the same function, so a feature is defined once. Every entity column
gets the same list; nothing here knows what an entity is. Raw state fields come in the order of
``kernels.entity_state.feature_names``.

Cold start: a quantity that does not exist yet takes a declared default, so an unseen entity is
scored like any other: durations become ``NEVER`` seconds, averages of the past become the amount
at hand (ratio 1, z-score 0), risks 0, and ``last_label`` stays -1 (no label known).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

NEVER = 1e9
"""Seconds that stand for "has not happened" (about 32 years)."""

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
NIGHT_ENDS = 7
"""Hours 0..6 count as night, as in the Fraud Detection Handbook."""


def event_names() -> tuple[str, ...]:
    """Return the names of the features of the event itself."""
    return ("amount", "weekend", "night", "hour")


def derive_event(amount: NDArray[np.int64], time: NDArray[np.int64], decimals: int) -> Float:
    """Return amount and calendar features.

    Args:
        amount: [m] int64 minor units.
        time: [m] int64 epoch milliseconds (UTC calendar).
        decimals: Decimal places of the currency.

    Returns:
        float64 [m, 4] in the order of ``event_names``.
    """
    hour = (time % DAY_MS) // HOUR_MS
    weekday = (time // DAY_MS + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    columns = (amount / 10.0**decimals, weekday >= 5, hour < NIGHT_ENDS, hour)
    return np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=-1)


def derived_names(column: str, windows: Sequence[str]) -> tuple[str, ...]:
    """Return the feature names of one entity column.

    Args:
        column: Entity column; becomes the prefix, for example ``payer.mean_7d``.
        windows: Window names in ascending length, as in the state spec.
    """
    names = []
    for w in windows:
        names += [f"n_{w}", f"mean_{w}", f"ratio_{w}", f"of_max_{w}", f"known_{w}", f"risk_{w}"]
    longest = windows[-1]
    for w in windows[:-1]:
        names += [f"rate_{w}_{longest}", f"level_{w}_{longest}", f"peak_{w}_{longest}"]
    names += [f"z_{w}" for w in windows[1:] or windows]
    names += [f"before_{longest}", f"spread_{longest}", f"frauds_{longest}"]
    names += ["gap", "last_label", "since_fraud", "run_age", "run_days", "run_length"]
    return tuple(f"{column}.{name}" for name in names)


def derive_column(
    state: Float,
    windows: Mapping[str, int],
    amount: NDArray[np.int64],
    time: NDArray[np.int64],
    decimals: int,
) -> Float:
    """Return the derived features of one entity column.

    Args:
        state: float64 [m, F] raw state of the column's entity, current event included, in the
            order of ``kernels.entity_state.feature_names`` for these windows.
        windows: Window name -> length in milliseconds, ascending.
        amount: [m] int64 minor units of the event at hand.
        time: [m] int64 epoch milliseconds.
        decimals: Decimal places of the currency.

    Returns:
        float64 [m, G] in the order of ``derived_names``.
    """
    from tasks.fraud.derive_rows import derive_rows

    out = np.empty((len(state), len(derived_names("", list(windows)))))
    lengths = np.array(list(windows.values()), np.float64)
    derive_rows(np.ascontiguousarray(state), amount, time, lengths, 10.0**decimals, out)
    return out
