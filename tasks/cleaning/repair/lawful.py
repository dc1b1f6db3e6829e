"""Fills that keep the contract: a guess must not be why a row is set aside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.contract.rules import RowRule, filled
from tasks.cleaning.contract.verdicts import verdicts
from tasks.cleaning.repair.changes import apply


def lawful(frame: pl.DataFrame, found: pl.DataFrame, rules: Sequence[RowRule]) -> pl.DataFrame:
    """Leave out fills through which a row breaks a declared rule that it did not break before.

    All fills of that row go. Where it is not the row itself that was filled but another one that
    now shares its key, those of the other one go.

    Args:
        frame: Texts before the fills.
        found: Findings with a suggestion for missing cells, at most one for each cell.
        rules: Of ``row_rules``; inferred ones are not asked.
    """
    told = [rule for rule in rules if rule.declared]
    if not told or found.is_empty():
        return found
    before = _broken(frame, told)
    while not found.is_empty():
        after = apply(frame, found.rename({"suggestion": "after"}))
        new = _broken(after, told) & ~before
        if not new.any():
            break
        touched = np.zeros(frame.height, bool)
        touched[found["row"].to_numpy()] = True
        guilty = new.any(axis=1)
        for i in np.flatnonzero((new & ~touched[:, None]).any(axis=0)).tolist():
            guilty |= touched & _alike(after, new[:, i] & ~touched, told[i])
        if not (guilty & touched).any():
            # Rules that see all rows at once do not say which fill is at fault.
            return found.clear()
        found = found.filter(~pl.col("row").is_in(np.flatnonzero(guilty).tolist()))
    return found


def _broken(frame: pl.DataFrame, rules: Sequence[RowRule]) -> NDArray[np.bool_]:
    """Return which rows break which rules: bool [rows, rules]."""
    return verdicts(frame, rules).collect().to_numpy()


def _alike(frame: pl.DataFrame, rows: NDArray[np.bool_], rule: RowRule) -> NDArray[np.bool_]:
    """Return which rows share the key of some rows: bool [rows], none for a rule without key."""
    if not rule.key:
        return np.zeros(frame.height, bool)
    keys = frame.select(*rule.key, filled(rule.key).alias("_filled")).with_row_index("_at")
    shared = keys.filter("_filled").join(keys.filter(rows), on=list(rule.key), how="semi")
    alike = np.zeros(frame.height, bool)
    alike[shared["_at"].to_numpy()] = True
    return alike
