"""The repair of a table: rules in a fixed order, round after round until nothing changes.

Three tiers. *Auto*: the rule's bound on harm holds (``bound.py``) and nothing speaks for the cell;
it is changed and the change put on record. *Review*: there is a suggestion, which a person accepts
or rejects. *Refused*: doubtful, but nobody knows what should be there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from tasks.cleaning.contract.model import Contract
from tasks.cleaning.contract.rules import row_rules
from tasks.cleaning.findings import joined
from tasks.cleaning.repair.bound import HarmBound
from tasks.cleaning.repair.changes import apply, as_changes, no_changes
from tasks.cleaning.repair.decisions import accepted_again, no_decisions, undecided
from tasks.cleaning.repair.dependency_votes import vote_on
from tasks.cleaning.repair.estimate import ImputeConfig
from tasks.cleaning.repair.impute import impute
from tasks.cleaning.repair.lawful import lawful
from tasks.cleaning.repair.normalise import normalise
from tasks.cleaning.repair.typos import TypoConfig, typos
from tasks.cleaning.sensors.check import sensor_findings


@dataclass(frozen=True, slots=True)
class RepairConfig:
    """How far a repair goes by itself.

    Attributes:
        alpha: Share of the correct cells of a column that a rule may change at most.
        across_rows: Whether rules may look at other rows: votes, typos, copies. Without it every
            row is repaired by itself, as where rows stream through.
        max_passes: Rounds at most.
        typos: What counts as a typo.
        impute: How missing cells are estimated where the contract asks for it.
    """

    alpha: float = 0.01
    across_rows: bool = True
    max_passes: int = 5
    typos: TypoConfig = field(default_factory=TypoConfig)
    impute: ImputeConfig = field(default_factory=ImputeConfig)

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
        promised_harm: Share of the correct filled cells that votes and typos have changed at most:
            what their bounds allow, summed over rules and rounds, over the filled cells that
            nothing speaks against (``promise``).
        harmed: Correct cells that the bounds allow to have been changed.
    """

    frame: pl.DataFrame
    changes: pl.DataFrame
    review: pl.DataFrame
    bounds: Mapping[str, HarmBound]
    fixed: bool
    promised_harm: float = 0.0
    harmed: float = 0.0


def repair(
    frame: pl.DataFrame,
    contract: Contract,
    config: RepairConfig | None = None,
    decisions: pl.DataFrame | None = None,
    tables: Mapping[str, pl.DataFrame] | None = None,
) -> Repaired:
    """Repair a table.

    Args:
        frame: Texts, with the contract's columns; its rows are numbered from 0.
        contract: What the table must look like.
        config: How far to go.
        decisions: What a person decided about its cells (``decisions.py``).
        tables: By name, the other tables that the contract's references name: what is filled in
            keeps them. None where they are not at hand.

    Returns:
        The same result for the same table, whatever the number of threads.
    """
    config = config or RepairConfig()
    decisions = no_decisions() if decisions is None else decisions
    changes, bounds = no_changes(), dict[str, HarmBound]()
    review, came, harmed, fixed = joined([]), frame, 0.0, False
    across: tuple[Step, ...] = (_voted, _spelt, _sensed) if config.across_rows else ()
    for turn in range(1, config.max_passes + 1):
        before, review = changes.height, joined([])
        for step in (_decided(decisions), _normalised, *across):
            found, limits = step(frame, contract, config)
            found = undecided(found, decisions)
            sure = found.filter(pl.col("repairable") & (pl.col("confidence") > 0.5))
            sure = _unseen(sure, changes).unique(
                ["row", "column"], keep="first", maintain_order=True
            )
            frame = apply(frame, sure.rename({"suggestion": "after"}))
            changes = changes.vstack(as_changes(sure, first=changes.height, turn=turn))
            review = review.vstack(found.join(sure, on=["row", "column"], how="anti"))
            harmed += _loosen(bounds, limits, sure)
        if changes.height == before:
            fixed = True
            break
    promised = promise(harmed, came, changes, review)
    done = Repaired(frame, changes, review, bounds, fixed, promised, harmed)
    return _imputed(done, contract, config, decisions, tables)


def promise(
    harmed: float, frame: pl.DataFrame, changes: pl.DataFrame, review: pl.DataFrame
) -> float:
    """Return the share of the correct filled cells that were changed at most.

    How many cells are correct nobody knows. Those that were changed or wait for review count as
    wrong here, which makes the share larger; cells that were missing count neither way.

    Args:
        harmed: Correct cells that the bounds allow to have been changed.
        frame: The table before its repair.
        changes: What was changed.
        review: What waits for a person.
    """
    filled = frame.height * frame.width - sum(frame.null_count().row(0)) if frame.width else 0
    doubtful = pl.concat(
        [
            changes.filter(pl.col("before").is_not_null()).select("row", "column"),
            review.filter(pl.col("observed").is_not_null()).select("row", "column"),
        ]
    ).n_unique()
    return min(1.0, harmed / max(filled - doubtful, 1))


def _imputed(
    done: Repaired,
    contract: Contract,
    config: RepairConfig,
    decisions: pl.DataFrame,
    tables: Mapping[str, pl.DataFrame] | None,
) -> Repaired:
    """Estimate what is missing after all else: what was estimated has no vote."""
    if not config.across_rows:
        return done
    found = undecided(impute(done.frame, contract, config.impute, tables=tables), decisions)
    if found.is_empty():
        return done
    cell = ["row", "column"]
    doubted = done.review.select(cell)
    fills = found.filter(pl.col("confidence") > 0.5).join(doubted, on=cell, how="anti")
    rules = row_rules(contract.by_itself if tables is None else contract, tables)
    sure = lawful(done.frame, fills, rules)
    turn = int(done.changes["pass"].max() or 0) + 1  # type: ignore[arg-type]
    return replace(
        done,
        frame=apply(done.frame, sure.rename({"suggestion": "after"})),
        changes=done.changes.vstack(as_changes(sure, first=done.changes.height, turn=turn)),
        review=joined([done.review, found.join(fills, on=cell, how="anti")]),
    )


Limits = Mapping[str, HarmBound]
Step = Callable[[pl.DataFrame, Contract, RepairConfig], tuple[pl.DataFrame, Limits]]


def _decided(decisions: pl.DataFrame) -> Step:
    """Return the step that carries out what a person has accepted."""
    return lambda frame, _, __: (accepted_again(frame, decisions), {})


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


def _loosen(bounds: dict[str, HarmBound], limits: Limits, used: pl.DataFrame) -> float:
    """Keep the loosest bound of every rule that changed something.

    Returns:
        Correct cells that these rules may have changed in this round: a rule that works in two
        rounds may harm in both.
    """
    named = used.select(
        pl.when(pl.col("rule") == "typo")
        .then(pl.format("typo:{}", "column"))
        .otherwise("rule")
        .unique()
        .alias("rule")
    )["rule"]
    working = [rule for rule in named if rule in limits]
    for rule in working:
        if rule not in bounds or limits[rule].rate > bounds[rule].rate:
            bounds[rule] = limits[rule]
    return sum(limits[rule].rate * limits[rule].cells for rule in working)
