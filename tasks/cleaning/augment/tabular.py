"""Rows made for measured gaps of a table: between neighbours of one class, inside the contract.

As SMOTE-NC does (Chawla et al., JAIR 2002), within the slice that was measured as a gap: numbers
lie somewhere between a row and one of its nearest neighbours of the same class, words are what most
of the neighbours hold. Columns that depend on each other, dates and free texts stay as they are in
the row itself. A made row that breaks a rule of the contract, leaves its slice or equals a row that
is there is thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.contract.model import Contract
from tasks.cleaning.contract.rules import RowRule, row_rules
from tasks.cleaning.repair.number_texts import read_numbers, usual_digits, write_number
from tasks.cleaning.slices.gaps import Gap

RECIPE = "between-neighbours/1"
MADE: Mapping[str, Any] = {
    "made_from": pl.List(pl.Int64),  # rows of the table
    "gap": pl.String,
    "reason": pl.String,  # what was measured
    "recipe": pl.String,
    "seed": pl.Int64,
}
"""Polars schema of the provenance of made rows, one row for each."""
REPEATED = 5.0
"""Words that occur less often on average are free text."""
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


class AugmentError(ValueError):
    """Rows that cannot be made; says why and how to mend it."""


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How rows are made.

    Attributes:
        neighbours: Nearest rows of the same class and slice that a row mixes with.
        tries: Rounds in which rows that were thrown away are made again.
        seed: Of all draws.
    """

    neighbours: int = 5
    tries: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject what could make nothing."""
        if self.neighbours < 1 or self.tries < 1:
            raise ValueError("neighbours and tries must be at least 1")


@dataclass(frozen=True, slots=True)
class Augmented:
    """Made rows.

    Attributes:
        frame: The rows, texts of the contract's columns.
        made: Frame of ``MADE``, one row for each.
        short: Gap -> rows that were wanted and could not be made.
    """

    frame: pl.DataFrame
    made: pl.DataFrame
    short: Mapping[str, int]


def augment_rows(
    frame: pl.DataFrame,
    gaps: Sequence[Gap],
    contract: Contract,
    label: str,
    *,
    splits: Sequence[str] | None = None,
    into: str = "train",
    config: AugmentConfig | None = None,
    tables: Mapping[str, pl.DataFrame] | None = None,
) -> Augmented:
    """Make rows for gaps.

    Args:
        frame: Clean rows, texts of the contract's columns.
        gaps: Of a slice report; those that want no rows are passed over.
        contract: What every made row must be.
        label: Column of classes; their shares of the slice are kept.
        splits: Split of each row. Rows are made of rows ``into`` one of them alone, and belong
            there: then nothing that is judged was used.
        into: That split.
        config: How.
        tables: By name, the other tables that the contract's references name; None: references
            are not held.

    Raises:
        ContractError: When tables are given, but one of a reference is not there.
        AugmentError: For a label that is not there, splits that do not fit, and an id that nobody
            could make up.
    """
    config = config or AugmentConfig()
    if label not in frame.columns or label not in contract.columns:
        raise AugmentError(f"no column {label!r}; there are {', '.join(frame.columns)}")
    if splits is not None and len(splits) != frame.height:
        raise AugmentError(f"{frame.height:,} rows need as many splits, not {len(splits):,}")
    rules = row_rules(contract.by_itself if tables is None else contract, tables)
    usable = np.array([True] * frame.height if splits is None else [s == into for s in splits])
    usable &= frame[label].is_not_null().to_numpy()
    rng = np.random.default_rng(config.seed)
    frames, made, short = [frame.clear()], [pl.DataFrame(schema=dict(MADE))], dict[str, int]()
    for gap in (one for one in gaps if one.wanted > 0):
        inside = usable & frame.select(gap.holds.alias("in"))["in"].to_numpy()
        rows, parents = _made(
            frame, np.flatnonzero(inside), gap, contract, label, config, rng, rules
        )
        rows = _with_ids(rows, frame, contract, sum(part.height for part in frames))
        keep = _lawful(pl.concat([frame, *frames, rows]), rows.height, rules, gap)
        frames.append(rows.filter(keep))
        parents = [mine for mine, fine in zip(parents, keep, strict=True) if fine]
        facts = {"gap": gap.name, "reason": gap.reason, "recipe": RECIPE, "seed": config.seed}
        made.append(
            pl.DataFrame({"made_from": parents}, schema={"made_from": MADE["made_from"]})
            .with_columns(pl.lit(value).alias(name) for name, value in facts.items())
            .select(pl.col(name).cast(kind) for name, kind in MADE.items())
        )
        if len(parents) < gap.wanted:
            short[gap.name] = gap.wanted - len(parents)
    return Augmented(pl.concat(frames), pl.concat(made), short)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Columns by what is done with them."""

    between: list[str]
    voted: list[str]
    ids: list[str]


def _columns(frame: pl.DataFrame, contract: Contract, label: str, gap: Gap) -> _Columns:
    ids = [name for name, column in contract.columns.items() if column.unique]
    ids += [key[0] for key in contract.keys if len(key) == 1 and key[0] not in ids]
    bound = {label, *ids, *(one.column for one in gap.conditions if one.kind != "band")}
    for one in contract.dependencies:
        bound |= {*one.determinant, one.dependent}
    between, voted = [], []
    for name, column in contract.columns.items():
        if name in bound:
            continue
        if column.is_number and not column.domain:
            between.append(name)
        elif column.kind in {"text", "boolean"} or column.domain:
            different = frame[name].drop_nulls().n_unique()
            if different and frame[name].count() >= REPEATED * different:
                voted.append(name)
    return _Columns(between, voted, ids)


def _made(
    frame: pl.DataFrame,
    rows: Rows,
    gap: Gap,
    contract: Contract,
    label: str,
    config: AugmentConfig,
    rng: np.random.Generator,
    rules: Sequence[RowRule],
) -> tuple[pl.DataFrame, list[list[int]]]:
    """Return up to ``gap.wanted`` lawful rows, without ids, and the rows each was made of."""
    columns = _columns(frame, contract, label, gap)
    part = frame[rows.tolist()]
    near = _Neighbours(part, columns, part[label].to_list(), config.neighbours)
    frames, parents = [frame.clear()], list[list[int]]()
    for _ in range(config.tries):
        missing = gap.wanted - len(parents)
        if missing <= 0 or not len(near.bases):
            break
        base = rng.choice(near.bases, missing)
        rows_made, others = _between(part, near, base, columns, contract, rng)
        keep = _lawful(rows_made, rows_made.height, rules, gap, without=columns.ids)
        known = part.drop(columns.ids)
        same = rows_made.drop(columns.ids).select(pl.struct(pl.all()).alias("row"))["row"]
        keep &= ~same.is_in(known.select(pl.struct(pl.all()).alias("row"))["row"].implode())
        frames.append(rows_made.filter(keep))
        pairs = zip(base, others, keep, strict=True)
        parents += [[int(rows[a]), *(int(rows[i]) for i in b)] for a, b, fine in pairs if fine]
    return pl.concat(frames), parents


class _Neighbours:
    """The nearest rows of the same class, for every row that has one."""

    def __init__(
        self, part: pl.DataFrame, columns: _Columns, label: Sequence[str], count: int
    ) -> None:
        self.numbers = {name: read_numbers(part[name]) for name in columns.between}
        self.of: dict[int, Rows] = {}
        scaled = []
        for values in self.numbers.values():
            known = values[~np.isnan(values)]
            spread = known.std() if len(known) else 0.0
            middle = known.mean() if len(known) else 0.0
            scaled.append((np.nan_to_num(values, nan=middle) - middle) / (spread or 1.0))
        x = np.column_stack(scaled) if scaled else np.zeros((part.height, 0))
        held = [part[name].fill_null("").to_numpy() for name in columns.voted]
        words = np.column_stack(held) if held else np.zeros((part.height, 0))
        classes = np.array(label, object)
        for one in dict.fromkeys(label):
            mine = np.flatnonzero(classes == one)
            for row in mine if len(mine) > 1 else ():
                # A word that differs counts as one standard deviation, as the paper's median does.
                away = ((x[mine] - x[row]) ** 2).sum(axis=1) + (words[mine] != words[row]).sum(1)
                nearest = mine[np.argsort(away, kind="stable")]
                self.of[int(row)] = nearest[nearest != row][:count]
        self.bases = np.array(sorted(self.of), np.int64)


def _between(
    part: pl.DataFrame,
    near: _Neighbours,
    base: Rows,
    columns: _Columns,
    contract: Contract,
    rng: np.random.Generator,
) -> tuple[pl.DataFrame, list[list[int]]]:
    """Return a row for every base row, and the other rows that each was made of."""
    other = np.array([rng.choice(near.of[int(row)]) for row in base], np.int64)
    share = rng.random(len(base))
    made = part[base.tolist()]
    changes = []
    for name in columns.between:
        values = near.numbers[name]
        mixed = values[base] + share * (values[other] - values[base])
        digits = 0 if contract.columns[name].kind == "integer" else usual_digits(part[name])
        texts = [None if np.isnan(v) else write_number(v, digits) for v in mixed]
        kept = made[name].to_list()
        texts = [k if t is None else t for t, k in zip(texts, kept, strict=True)]
        changes.append(pl.Series(name, texts, pl.String))
    for name in columns.voted:
        words = part[name].to_list()
        changes.append(
            pl.Series(name, [_most([words[i] for i in near.of[int(b)]]) for b in base], pl.String)
        )
    # Whatever a neighbour gave, be it a vote, makes it a parent.
    parents = [
        near.of[int(b)].tolist() if columns.voted else [o] for b, o in zip(base, other, strict=True)
    ]
    return made.with_columns(changes), parents


def _most(words: list[str | None]) -> str | None:
    """Return the commonest word, of equal ones the first."""
    return max(dict.fromkeys(words), key=words.count)


def _with_ids(
    rows: pl.DataFrame, frame: pl.DataFrame, contract: Contract, already: int
) -> pl.DataFrame:
    """Give made rows ids that nothing else has; missing where the contract allows it."""
    ids = [name for name, column in contract.columns.items() if column.unique]
    ids += [key[0] for key in contract.keys if len(key) == 1 and key[0] not in ids]
    for name in ids:
        column, numbers = contract.columns[name], range(already, already + rows.height)
        if column.nullable:
            texts: list[str | None] = [None] * rows.height
        elif column.kind == "integer":
            top = np.nanmax(read_numbers(frame[name]), initial=0)
            texts = [str(int(top) + 1 + i) for i in numbers]
        elif column.kind == "text" and not column.pattern and not column.domain:
            texts = [f"made-{i}" for i in numbers]
        else:
            raise AugmentError(
                f"column {name!r} occurs once and nobody can make up its values; allow it to be "
                "missing (nullable), or leave it out"
            )
        rows = rows.with_columns(pl.Series(name, texts, pl.String))
    return rows


def _lawful(
    frame: pl.DataFrame,
    last: int,
    rules: Sequence[RowRule],
    gap: Gap,
    without: Sequence[str] | None = None,
) -> pl.Series:
    """Return whether each of the last rows keeps the contract and its slice.

    Args:
        frame: Rows, the made ones last.
        last: How many are made.
        rules: Of the contract.
        gap: Its slice.
        without: Columns that have no values yet: rules of single rows on others are asked. None:
            all rules, those across rows, too.
    """
    asked = [
        rule.broken
        for rule in rules
        if without is None or (rule.sql and rule.column not in without)
    ]
    broken = pl.any_horizontal(asked) if asked else pl.lit(value=False)
    return frame.select((gap.holds & ~broken).alias("fine"))["fine"].tail(last)
