"""Repair by dependencies: a cell is put right where its groups agree and nothing backs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.contract.model import Dependency
from tasks.cleaning.findings import findings_of, joined
from tasks.cleaning.repair.bound import HarmBound
from tasks.cleaning.repair.cases import systematic
from tasks.cleaning.repair.votes import MISSING, Codes, Votes, determinant_codes, encoded, vote

VERSION = "dependency-votes/1"
CONTRADICTED = 2
"""A determinant that contradicts so many cells of a row, and most, is in doubt itself."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one dependency says of a column.

    Attributes:
        dependency: The dependency.
        votes: What its groups hold.
        decided: bool [rows] where its group decides.
        against: bool [rows] where it decides for something else than the cell holds.
    """

    dependency: Dependency
    votes: Votes
    decided: Mask
    against: Mask

    def without(self, rows: Mask) -> Opinion:
        """Return the opinion with nothing said on some rows."""
        return replace(self, decided=self.decided & ~rows, against=self.against & ~rows)


@dataclass(frozen=True, slots=True)
class Ballot:
    """All votes on a column.

    Attributes:
        target: int64 [rows] code of the value voted for, -1 for none.
        first: int64 [rows] position of the first opinion that votes for it, -1 for none.
        voters: int64 [rows] opinions that vote for it.
        backers: int64 [rows] opinions that decide for what the cell holds.
        repeated: bool [rows] whether another row of a group against the cell holds the same.
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


def opinions_of(codes: Mapping[str, Codes], dependencies: Sequence[Dependency]) -> list[Opinion]:
    """Return what every dependency says.

    A determinant that contradicts most of what it fixes in a row is itself in doubt there, and has
    no say: one wrong cell is likelier than several.
    """
    said = []
    for one in dependencies:
        value = codes[one.dependent]
        votes = vote(determinant_codes(codes, one), value)
        decided = votes.decides(declared=one.declared) & ((value != MISSING) | votes.is_filled)
        said.append(Opinion(one, votes, decided, decided & (votes.value != value)))
    for determinant in dict.fromkeys(one.determinant for one in dependencies):
        mine = [i for i, one in enumerate(dependencies) if one.determinant == determinant]
        decided = np.sum([said[i].decided for i in mine], axis=0)
        against = np.sum([said[i].against for i in mine], axis=0)
        doubtful = (against >= CONTRADICTED) & (2 * against > decided)
        for i in mine:
            said[i] = said[i].without(doubtful)
    return said


def ballot(value: Codes, opinions: Sequence[Opinion], voting: Sequence[bool]) -> Ballot:
    """Count the votes on a column.

    Args:
        value: int64 [rows] code of each cell.
        opinions: Of every dependency that fixes the column; all of them may back a cell.
            Repetition backs it against a discovered one only: by a declared one two rows that
            differ from the rest are two errors.
        voting: Which of them vote; the first that does names the target.
    """
    n = len(value)
    target, first = np.full(n, MISSING, np.int64), np.full(n, -1, np.int64)
    voters, backers = np.zeros(n, np.int64), np.zeros(n, np.int64)
    repeated, share = np.zeros(n, bool), np.zeros(n)
    for i, one in enumerate(opinions):
        backers += one.decided & ~one.against
        if not one.dependency.declared:
            repeated |= one.against & (one.votes.own >= 2)
        if voting[i]:
            names = one.against & (target == MISSING)
            first, target = np.where(names, i, first), np.where(names, one.votes.value, target)
    for one, votes in zip(opinions, voting, strict=True):
        if votes:
            agrees = one.against & (one.votes.value == target)
            voters += agrees
            share = np.where(agrees, np.maximum(share, one.votes.share), share)
    return Ballot(target, first, voters, backers, repeated, share)


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
    said = opinions_of(codes, dependencies)
    parts, bounds = [], dict[str, HarmBound]()
    for column in dict.fromkeys(one.dependent for one in dependencies):
        mine = [one for one in said if one.dependency.dependent == column]
        value, others = codes[column], [code for name, code in codes.items() if name != column]
        everybody = ballot(value, mine, [True] * len(mine))
        cases = np.zeros(len(value), bool)
        for one in mine:
            if not one.dependency.declared:
                cases |= systematic(one.against & (value != MISSING), others)
        filled = int((value != MISSING).sum())
        bound = [
            HarmBound(int((one.against & (everybody.backed | cases)).sum()), filled) for one in mine
        ]
        bounds |= {one.dependency.name: its for one, its in zip(mine, bound, strict=True)}
        sure = ballot(value, mine, [its.holds(alpha) for its in bound])
        safe = (sure.target != MISSING) & ~sure.backed & ~cases
        sides = [one.dependency for one in mine]
        parts.append(_found(column, texts[column], value, sure, sides, bound, safe))
        parts.append(_found(column, texts[column], value, everybody, sides, None, ~safe))
    return joined(parts), bounds


def _found(
    column: str,
    texts: list[str],
    value: Codes,
    counted: Ballot,
    dependencies: Sequence[Dependency],
    bound: Sequence[HarmBound] | None,
    chosen: Mask,
) -> pl.DataFrame:
    """Return findings of chosen cells, with confidence by the bound or, for review, by votes."""
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
