"""Names and order of the features that one role of one entity yields."""

from __future__ import annotations

from kernels.entity_state.spec import StateSpec

WINDOW_FIELDS = ("n", "sum", "sumsq", "min", "max", "known", "frauds")
"""Per window; the first five from the transaction side, the last two from known labels."""

LAST_FIELDS = ("gap", "last_label", "since_fraud", "run_age", "run_length")
"""Once per role, after all windows."""


def feature_names(spec: StateSpec) -> tuple[str, ...]:
    """Return the feature names of one role slice, in the order of the feature axis.

    Per window ``w``: ``n_w``, ``sum_w``, ``sumsq_w``, ``min_w``, ``max_w`` (amounts in minor
    units, the event at hand included), ``known_w``, ``frauds_w``. Then ``gap`` (seconds since the
    entity's previous event in this role, -1 if none), ``last_label`` (-1 none), ``since_fraud``
    (seconds since the event time of the newest known fraud, -1 if none), ``run_age`` (seconds
    since the event that opened the current run of known frauds, -1 if no run) and ``run_length``.

    >>> from kernels.entity_state.spec import StateSpec, days
    >>> feature_names(StateSpec(windows=(days(7),)))[:3]
    ('n_7d', 'sum_7d', 'sumsq_7d')
    """
    windowed = (f"{field}_{window.name}" for window in spec.windows for field in WINDOW_FIELDS)
    return (*windowed, *LAST_FIELDS)
