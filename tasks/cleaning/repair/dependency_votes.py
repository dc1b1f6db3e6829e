"""Repair by dependencies: a cell is put right where its groups agree and nothing backs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.contract.model import Dependency
from tasks.cleaning.findings import findings_of, joined
from tasks.cleaning.repair.bound import HarmBound
from tasks.cleaning.repair.votes import MISSING, Codes, Votes, determinant_codes, encoded, vote

VERSION = "dependency-votes/1"
SYSTEMATIC = 0.5
"""Where this share of the rows alike in any column is doubtful, they are no errors but another case."""
SYSTEMATIC_ROWS = 3
"""Fewest doubtful rows that make a case."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Ballot:
    """All votes on a column.

    Attributes:
        target: int64 [rows] code of the value voted for, -1 for none.
        first: int64 [rows] position of the first dependency that votes for it, -1 for none.
        voters: int64 [rows] dependencies that vote for it.
        backers: int64 [rows] dependencies whose group decides for what the cell holds.
        repeated: bool [rows] whether another row of a voting group holds the same as the cell.
        share: float64 [rows] largest share of a majority that votes for the target.
    """

    target: Codes
    first: Codes
    voters: Codes
    backers: Codes
    repeated: Mask
    share: NDArray[np.float64]

    @property
    def backed(self) -> Mask:
        """Cells for which something speaks."""
        return self.repeated | (self.backers > 0)


def ballot(
    value: Codes,
    votes: Sequence[Votes],
    dependencies: Sequence[Dependency],
    voting: Sequence[bool],
) -> Ballot:
    """Count the votes on a column.

    Args:
        value: int64 [rows] code of each cell.
        votes: Of every dependency that fixes the column; all of them may back a cell.
        dependencies: The same dependencies. Repetition backs a cell against a discovered one
            only: by a declared one two rows that differ from the rest are two errors.
        voting: Which of them vote; the first that does names the target.
    """
    n = len(value)
    target, first = np.full(n, MISSING, np.int64), np.full(n, -1, np.int64)
    voters, backers = np.zeros(n, np.int64), np.zeros(n, np.int64)
    repeated, share = np.zeros(n, bool), np.zeros(n)
    for i, one in enumerate(votes):
        against = _against(one, value)
        backers += one.decides & (one.value == value) & (value != MISSING)
        if not dependencies[i].declared:
            repeated |= against & (one.own >= 2)
        if voting[i]:
            first = np.where(against & (target == MISSING), i, first)
            target = np.where(against & (target == MISSING), one.value, target)
    for one, votes_here in zip(votes, voting, strict=True):
        if votes_here:
            agrees = _against(one, value) & (one.value == target)
            voters += agrees
            share = np.where(agrees, np.maximum(share, one.share), share)
    return Ballot(target, first, voters, backers, repeated, share)


def systematic(doubtful: Mask, codes: Mapping[str, Codes]) -> Mask:
    """Return the doubtful cells that are so by what their row is, not by accident.

    Errors fall on rows by chance; where most of the rows of one state break ``measure -> average``,
    the dependency does not hold in that state.
    """
    found = np.zeros(len(doubtful), bool)
    for code in codes.values():
        filled = code != MISSING
        if not (filled & doubtful).any():
            continue
        rows = np.bincount(code[filled])
        wrong = np.bincount(code[filled & doubtful], minlength=len(rows))
        case = (wrong >= SYSTEMATIC_ROWS) & (wrong >= SYSTEMATIC * rows)
        found |= filled & doubtful & case[code]
    return found


def bound_of(value: Codes, votes: Votes, backed: Mask) -> HarmBound:
    """Return the bound on one dependency's harm, see ``bound.py``."""
    exceptions = _against(votes, value) & backed
    return HarmBound(int(exceptions.sum()), int((value != MISSING).sum()))


def vote_on(
    frame: pl.DataFrame, dependencies: Sequence[Dependency], *, alpha: float
) -> tuple[pl.DataFrame, dict[str, HarmBound]]:
    """Find the cells that dependencies speak against.

    Args:
        frame: Texts.
        dependencies: In the order in which they name targets.
        alpha: Share of a column's correct cells that a dependency may change at most; one that
            may change more only makes suggestions.

    Returns:
        Findings, the confidence above a half only where the repair may be made without a person;
        and the bound of every dependency by its name.
    """
    codes: dict[str, Codes] = {}
    texts: dict[str, list[str]] = {}
    named = {name for one in dependencies for name in (*one.determinant, one.dependent)}
    for name in (name for name in frame.columns if name in named):
        codes[name], texts[name] = encoded(frame[name])
    parts, bounds = [], {}
    for column in dict.fromkeys(one.dependent for one in dependencies):
        mine = [one for one in dependencies if one.dependent == column]
        value = codes[column]
        votes = [vote(determinant_codes(codes, one), value) for one in mine]
        everybody = ballot(value, votes, mine, [True] * len(mine))
        others = {name: code for name, code in codes.items() if name != column}
        cases = np.logical_or.reduce(
            [
                systematic(_against(its, value) & (value != MISSING), others)
                for one, its in zip(mine, votes, strict=True)
                if not one.declared
            ]
            or [np.zeros(len(value), bool)]
        )
        bound = [bound_of(value, one, everybody.backed | cases) for one in votes]
        bounds |= {one.name: its for one, its in zip(mine, bound, strict=True)}
        trusted = [its.holds(alpha) for its in bound]
        sure = ballot(value, votes, mine, trusted)
        safe = (sure.target != MISSING) & ~sure.backed & ~cases
        parts.append(_found(column, texts[column], value, sure, mine, bound, safe))
        parts.append(_found(column, texts[column], value, everybody, mine, None, ~safe))
    return joined(parts), bounds


def _against(votes: Votes, value: Codes) -> Mask:
    return votes.decides & (votes.value != value)


def _found(
    column: str,
    texts: list[str],
    value: Codes,
    counted: Ballot,
    dependencies: Sequence[Dependency],
    bound: Sequence[HarmBound] | None,
    chosen: Mask,
) -> pl.DataFrame:
    """Return findings of the chosen cells, with confidence by the bound or, for review, by votes."""
    rows = np.flatnonzero(chosen & (counted.target != MISSING))
    first, voters, backers = counted.first[rows], counted.voters[rows], counted.backers[rows]
    names = [one.name for one in dependencies]
    if bound is not None:
        confidence = 1.0 - np.array([its.rate for its in bound])[first]
    else:
        # Laplace's rule over those who vote; a person decides.
        confidence = np.minimum((voters + 1.0) / (voters + backers + 2.0), 0.5)
    premises = [
        f"{share:.0%} of the rows alike in {'+'.join(dependencies[i].determinant)} say so; "
        f"{n} of {len(names)} dependencies"
        for share, i, n in zip(counted.share[rows], first, voters, strict=True)
    ]
    cells = pl.DataFrame(
        {
            "row": rows,
            "observed": [texts[code] if code >= 0 else None for code in value[rows]],
            "suggestion": [texts[code] for code in counted.target[rows]],
            "rule": [f"dependency:{names[i]}" for i in first],
            "premise": premises,
            "confidence": confidence,
        },
        schema={
            "row": pl.Int64,
            "observed": pl.String,
            "suggestion": pl.String,
            "rule": pl.String,
            "premise": pl.String,
            "confidence": pl.Float64,
        },
    )
    return findings_of(
        cells, column=column, expected=f"what fixes {column} agrees", detector_version=VERSION
    )
