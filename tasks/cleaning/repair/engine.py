"""The repair of a table: rules in a fixed order, round after round until nothing changes.

Three tiers. *Auto*: the rule's bound on harm holds (``bound.py``) and nothing speaks for the cell;
it is changed and the change put on record. *Review*: there is a suggestion, which a person accepts
or rejects. *Refused*: doubtful, but nobody knows what should be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from tasks.cleaning.contract.model import Contract
from tasks.cleaning.findings import joined
from tasks.cleaning.repair.bound import HarmBound
from tasks.cleaning.repair.changes import apply, as_changes, no_changes
from tasks.cleaning.repair.dependency_votes import vote_on
from tasks.cleaning.repair.normalise import normalise
from tasks.cleaning.repair.typos import TypoConfig, typos
from tasks.cleaning.sensors.check import sensor_findings


@dataclass(frozen=True, slots=True)
class RepairConfig:
    """How far a repair goes by itself.

    Attributes:
        alpha: Share of the correct cells of a column that a rule may change at most.
        max_passes: Rounds at most.
        typos: What counts as a typo.
    """

    alpha: float = 0.01
    max_passes: int = 5
    typos: TypoConfig = field(default_factory=TypoConfig)

    def __post_init__(self) -> None:
        """Reject an alpha that promises nothing and a repair without rounds."""
        if not 0.0 <= self.alpha < 0.5:
            raise ValueError(f"alpha must lie in 0..0.5, got {self.alpha}; 0.01 is usual")
        if self.max_passes < 1:
            raise ValueError(f"max_passes must be at least 1, got {self.max_passes}")


@dataclass(frozen=True, slots=True)
class Repaired:
    """A repaired table and the account of it.

    Attributes:
        frame: Texts after all automatic changes.
        changes: Every change, in order.
        review: Findings left for a person, on the repaired table.
        bounds: By rule and column, the bound under which it worked, in the round where it was
            loosest; only of rules that changed something.
        fixed: Whether the last round changed nothing.
    """

    frame: pl.DataFrame
    changes: pl.DataFrame
    review: pl.DataFrame
    bounds: Mapping[str, HarmBound]
    fixed: bool

    @property
    def promised_harm(self) -> float:
        """Share of the table's correct cells that the run promises to have changed at most."""
        cells = self.frame.height * self.frame.width
        return sum(its.rate * its.cells for its in self.bounds.values()) / max(cells, 1)


def repair(frame: pl.DataFrame, contract: Contract, config: RepairConfig | None = None) -> Repaired:
    """Repair a table.

    Args:
        frame: Texts, with the contract's columns; its rows are numbered from 0.
        contract: What the table must look like.
        config: How far to go.

    Returns:
        The same result for the same table, whatever the number of threads.
    """
    config = config or RepairConfig()
    changes, bounds = no_changes(), dict[str, HarmBound]()
    review = joined([])
    for turn in range(1, config.max_passes + 1):
        before, review = changes.height, joined([])
        for step in (_normalised, _voted, _spelt, _sensed):
            found, limits = step(frame, contract, config)
            sure = found.filter(pl.col("repairable") & (pl.col("confidence") > 0.5))
            sure = _unseen(sure, changes).unique(
                ["row", "column"], keep="first", maintain_order=True
            )
            frame = apply(frame, sure.rename({"suggestion": "after"}))
            changes = changes.vstack(as_changes(sure, first=changes.height, turn=turn))
            review = review.vstack(found.join(sure, on=["row", "column"], how="anti"))
            _loosen(bounds, limits, sure)
        if changes.height == before:
            return Repaired(frame, changes, review, bounds, fixed=True)
    return Repaired(frame, changes, review, bounds, fixed=False)


Limits = Mapping[str, HarmBound]


def _normalised(
    frame: pl.DataFrame, contract: Contract, _: RepairConfig
) -> tuple[pl.DataFrame, Limits]:
    return normalise(frame, contract), {}


def _voted(
    frame: pl.DataFrame, contract: Contract, config: RepairConfig
) -> tuple[pl.DataFrame, Limits]:
    found, bounds = vote_on(frame, contract.dependencies, alpha=config.alpha)
    return found, {f"dependency:{name}": its for name, its in bounds.items()}


def _spelt(
    frame: pl.DataFrame, contract: Contract, config: RepairConfig
) -> tuple[pl.DataFrame, Limits]:
    # Where a person has said what fixes a column, nearness is not asked.
    fixed = {one.dependent for one in contract.dependencies if one.declared}
    words = [
        name
        for name, column in contract.columns.items()
        if column.kind == "text" and not column.unique and name not in fixed
    ]
    domains = {
        name: column.domain
        for name, column in contract.columns.items()
        if column.domain and "domain" not in column.confidence
    }
    found, bounds = typos(frame, words, alpha=config.alpha, domains=domains, config=config.typos)
    return found, {f"typo:{name}": its for name, its in bounds.items()}


def _sensed(
    frame: pl.DataFrame, contract: Contract, config: RepairConfig
) -> tuple[pl.DataFrame, Limits]:
    parts, bounds = [], dict[str, HarmBound]()
    for rules in contract.sensors:
        found, limits = sensor_findings(frame, rules, config.alpha)
        parts.append(found)
        bounds |= limits
    # Sensors that share a clock tell of the same fault of it.
    return joined(parts).unique(["row", "column", "rule"], maintain_order=True), bounds


def _unseen(found: pl.DataFrame, changes: pl.DataFrame) -> pl.DataFrame:
    """Leave out what would put a cell back to what it was: rules that contradict each other."""
    had = changes.select("row", "column", pl.col("before").alias("suggestion"))
    return found.join(had, on=["row", "column", "suggestion"], how="anti", nulls_equal=True)


def _loosen(bounds: dict[str, HarmBound], limits: Limits, used: pl.DataFrame) -> None:
    """Keep the loosest bound of every rule that changed something."""
    named = used.select(
        pl.when(pl.col("rule") == "typo")
        .then(pl.format("typo:{}", "column"))
        .otherwise("rule")
        .unique()
        .alias("rule")
    )["rule"]
    for rule in named:
        if rule in limits and (rule not in bounds or limits[rule].rate > bounds[rule].rate):
            bounds[rule] = limits[rule]
