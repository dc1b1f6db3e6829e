"""What a table as a whole must be: fresh, and mostly labelled right. Whole tables only."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from tasks.cleaning.contract.model import Contract, ContractError, Label
from tasks.cleaning.contract.values import column, instant, midnight, read
from tasks.cleaning.findings import findings_of, no_findings

logger = logging.getLogger(__name__)

VERSION = "table-checks/1"
FOLDS = 5
MAX_ROWS = 50_000
"""Labels of larger tables are estimated from so many rows, evenly spaced."""


class StaleTableError(ContractError):
    """A table whose newest date is older than its contract allows."""


class LabelNoiseError(ContractError):
    """A table of which more labels are wrong than its contract allows."""


def require_fresh(frame: pl.DataFrame, contract: Contract, now: datetime) -> None:
    """Refuse a table whose newest date is too old.

    Dates after ``now`` are left out: one slip of the pen must not make a table fresh for ever. A
    day counts from its first moment, in UTC.

    Args:
        frame: Texts, after repair.
        contract: Says which column, and how old.
        now: The present, with its zone.

    Raises:
        StaleTableError: With the newest date, or when there is none.
    """
    if not contract.newest:
        return
    kind = contract.columns[contract.newest].kind
    value = read(column(contract.newest), kind)
    moment = midnight(value).expr if kind == "date" else instant(column(contract.newest)).expr
    present = now.astimezone(UTC).replace(tzinfo=None)
    newest = frame.lazy().select(moment.alias("at")).filter(pl.col("at") <= present).max()
    found = newest.collect().item()
    limit = timedelta(days=contract.max_age_days)
    if found is None or present - found > limit:
        shown = (
            "no date that can be read and has come" if found is None else f"{found} at the newest"
        )
        raise StaleTableError(
            f"column {contract.newest!r} holds {shown}; on {present:%Y-%m-%d %H:%M} UTC contract "
            f"{contract.name!r} asks for one of the last {contract.max_age_days:g} days. Fetch a "
            "newer table, or raise max_age_days"
        )


def label_noise(frame: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Hold the labels against the contract's limit.

    The estimate is the mean probability of a wrong label under the noise model
    (``tasks.cleaning.labels.noise``), fitted to cross-validated predictions from the other
    columns. It says too little under heavy noise (``docs/reference/cleaning-labels.md``).

    Args:
        frame: Texts, good rows.
        contract: Says which column, and how many.

    Returns:
        No findings, or one that says why the labels could not be judged.

    Raises:
        LabelNoiseError: When more labels are wrong than allowed, as estimated.
    """
    label = contract.label
    if label is None or label.max_noise is None:
        return no_findings()
    names = label.features or telling_columns(contract, label)
    rows = frame.filter(pl.col(label.column).is_not_null())
    rows = rows.gather_every(max(1, -(-rows.height // MAX_ROWS)))
    counts = rows[label.column].alias("label").value_counts()
    few = counts.filter(pl.col("count") < FOLDS).height
    why = (
        "the contract has no column to tell the classes apart"
        if not names
        else f"there are {counts.height} classes with values"
        if counts.height < 2
        else f"{few} classes have fewer than {FOLDS} rows"
        if few
        else ""
    )
    if why:
        logger.warning("labels in %r were not judged: %s", label.column, why)
        return _unjudged(label, why, contract)
    share = estimate(rows, label.column, names)
    if share is None:
        return _unjudged(label, "no column tells the classes apart", contract)
    if share > label.max_noise:
        raise LabelNoiseError(
            f"about {share:.1%} of the labels in {label.column!r} are wrong, as estimated from "
            f"{', '.join(names)}; contract {contract.name!r} allows {label.max_noise:.1%}. Review "
            "the labels, or raise max_noise"
        )
    return no_findings()


def telling_columns(contract: Contract, label: Label) -> tuple[str, ...]:
    """Return the columns that may tell classes apart: no ids, not the label."""
    keys = {name for key in contract.keys for name in key if len(key) == 1}
    return tuple(
        name
        for name, one in contract.columns.items()
        if not one.unique and name != label.column and name not in keys
    )


def estimate(frame: pl.DataFrame, label: str, features: tuple[str, ...]) -> float | None:
    """Return the share of wrong labels, as the noise model has it; None where nothing tells."""
    from tasks.cleaning.labels.crossval import out_of_sample
    from tasks.cleaning.labels.noise import fit_noise
    from tasks.cleaning.labels.table import table_features

    numbers = table_features(frame, features)
    if not numbers.shape[1]:
        return None
    held = out_of_sample(numbers, frame[label].to_list(), folds=FOLDS)
    noise = fit_noise(held.labels, held.probabilities)
    return float(np.mean(noise.wrong(held.labels, held.probabilities)))


def _unjudged(label: Label, why: str, contract: Contract) -> pl.DataFrame:
    """Return the finding that a limit could not be checked: nobody shall take it for met."""
    cell = pl.DataFrame({"row": [0], "column": [label.column], "observed": [None]})
    return findings_of(
        cell.with_columns(pl.col("observed").cast(pl.String)),
        rule="label-noise",
        expected=f"at most {label.max_noise:.1%} wrong labels; not judged: {why}",
        premise="the limit could not be checked",
        confidence=0.0,
        detector_version=f"{VERSION} {contract.detector_version}",
    )
