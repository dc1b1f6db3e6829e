"""Missing cells estimated from the other columns, each with an interval or a set of values.

``coverage`` of the true values lie inside as long as missing cells are like filled ones, or differ
from them by what other columns say (``conformal.py``). Where it depends on the missing value itself
(high incomes kept back) no method can know, and nothing is promised: every premise says so.

An estimate is no evidence: it is a suggestion for a person, and fills a cell by itself only where a
declared line of the contract says ``impute = "fill"``, flagged by its rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from tasks.cleaning.contract.model import Contract
from tasks.cleaning.contract.rules import RowRule, row_rules
from tasks.cleaning.findings import findings_of, joined
from tasks.cleaning.repair.estimate import Estimate, ImputeConfig, estimate_column, feature_of
from tasks.cleaning.repair.lawful import lawful
from tasks.cleaning.repair.votes import encoded

VERSION = "impute/1"
CAUTION = "if its being missing does not depend on the value itself"


def impute(
    frame: pl.DataFrame,
    contract: Contract,
    config: ImputeConfig | None = None,
    *,
    by: str = "",
    tables: Mapping[str, pl.DataFrame] | None = None,
) -> pl.DataFrame:
    """Estimate the missing cells of the columns whose contract asks for it, as findings.

    Args:
        frame: Texts.
        contract: Columns with ``impute = "review"`` or ``"fill"`` are estimated.
        config: How.
        by: As in :func:`estimates`.
        tables: By name, the other tables that the contract's references name; these are not
            looked at if None.

    Returns:
        Findings, the confidence above a half (the coverage) where the cell may be filled without a
        person: the line is declared, and of words only one value is left. Values with which
        their row breaks a declared rule of single rows are left out.
    """
    config = config or ImputeConfig()
    made = estimates(frame, contract, config, by=by)
    rules = _rules_of_rows(contract, tables) if made else []
    parts = []
    for name, estimate in made.items():
        column = contract.columns[name]
        fill = column.impute == "fill" and "impute" not in column.confidence
        found = _found(name, estimate, config, fill=fill, columns=len(contract.columns) - 1)
        parts.append(_allowed(found, frame, rules))
    return joined(parts)


def estimates(
    frame: pl.DataFrame, contract: Contract, config: ImputeConfig | None = None, *, by: str = ""
) -> dict[str, Estimate]:
    """Estimate the missing cells of the columns whose contract asks for it.

    Args:
        frame: Texts.
        contract: Columns with ``impute = "review"`` or ``"fill"`` are estimated.
        config: How.
        by: Column whose groups get intervals of their own, where they are large enough: then the
            coverage holds in each of them. None for "".

    Returns:
        By column; those with too few filled cells are not in it. The same for the same table.
    """
    config = config or ImputeConfig()
    chosen = [name for name, column in contract.columns.items() if column.impute]
    chosen = [name for name in chosen if name in frame.columns and frame[name].null_count()]
    if not chosen:
        return {}
    features = {name: feature_of(frame[name], contract.columns[name]) for name in contract.columns}
    groups = encoded(frame[by])[0] if by else np.zeros(frame.height, np.int64)
    made = {}
    for name in chosen:
        others = [features[other] for other in features if other != name]
        found = estimate_column(frame[name], contract.columns[name], others, groups, config)
        if found is not None:
            made[name] = found
    return made


def _found(
    name: str, estimate: Estimate, config: ImputeConfig, *, fill: bool, columns: int
) -> pl.DataFrame:
    premises = [
        f"{config.coverage:.0%} {estimate.inside(i)}, from {columns} columns of "
        f"{estimate.learnt_from:,} rows, {CAUTION}"
        for i in range(len(estimate.rows))
    ]
    sure = np.where(estimate.single & fill, config.coverage, 0.5)
    cells = pl.DataFrame(
        {
            "row": estimate.rows,
            "suggestion": estimate.values,
            "premise": premises,
            "confidence": sure,
        },
        schema={
            "row": pl.Int64, "suggestion": pl.String, "premise": pl.String,
            "confidence": pl.Float64,
        },
    )  # fmt: skip
    return findings_of(
        cells, column=name, rule="impute", expected="a value", detector_version=VERSION
    )


def _rules_of_rows(contract: Contract, tables: Mapping[str, pl.DataFrame] | None) -> list[RowRule]:
    """Return the rules that one row can break by itself."""
    single = replace(contract if tables is not None else contract.by_itself, transactions=())
    return [rule for rule in row_rules(single, tables) if not rule.key]


def _allowed(found: pl.DataFrame, frame: pl.DataFrame, rules: Sequence[RowRule]) -> pl.DataFrame:
    """Leave out suggestions, all of one column, with which their row breaks a rule."""
    rows = found["row"]
    here = found.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("row"))
    good = lawful(frame[rows], here, rules)
    return good.with_columns(rows.gather(good["row"]))
