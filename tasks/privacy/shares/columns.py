"""Splits an encoding by columns, so that each party encodes its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.privacy.encoding import Encoding
from tasks.privacy.shares.plan import PlanError

Places = NDArray[np.intp]


def split_encoding(
    encoding: Encoding, first: Sequence[str]
) -> tuple[tuple[Encoding, Encoding], tuple[Places, Places]]:
    """Return both parties' encodings, and where their inputs lie among all inputs.

    Args:
        encoding: Of all columns.
        first: Columns of party 0, in the order in which it keeps them; the rest are party 1's.

    Raises:
        PlanError: When a column is unknown or named twice, or inputs are rules over several.
    """
    if encoding.rules:
        raise PlanError("rules join columns that no single party has; share a linear model instead")
    unknown = [name for name in first if name not in encoding.columns]
    if unknown or len(set(first)) != len(first):
        raise PlanError(
            f"columns of party 0 are some of {list(encoding.columns)}, each once; not {list(first)}"
        )
    rest = [name for name in encoding.columns if name not in first]
    picked = tuple(
        np.array([encoding.columns.index(name) for name in names], np.intp)
        for names in (first, rest)
    )
    one, other = (_columns(encoding, columns) for columns in picked)
    inputs, more = (_inputs(encoding, columns) for columns in picked)
    return (one, other), (inputs, more)


def _columns(encoding: Encoding, columns: Places) -> Encoding:
    at = {place: new for new, place in enumerate(columns.tolist())}
    return Encoding(
        tuple(encoding.columns[i] for i in columns),
        encoding.mean[columns],
        encoding.scale[columns],
        encoding.limits[columns],
        encoding.knots[columns],
        encoding.signed_log,
        encoding.beyond,
        tuple((at[place], limit) for place, limit in encoding.steps if place in at),
    )


def _inputs(encoding: Encoding, columns: Places) -> Places:
    """Return the inputs of columns: the columns themselves, their hinges, their steps."""
    knots = int(encoding.knots.shape[1])
    hinges = len(encoding.columns) + columns[:, None] * knots + np.arange(knots)
    own = [i for i, (place, _) in enumerate(encoding.steps) if place in columns]
    steps = len(encoding.columns) * (1 + knots) + np.array(own, np.intp)
    return np.concatenate([columns, hinges.ravel(), steps])
