"""The profile of a table: what every column holds and how columns go together.

Time is bounded by what is looked at: all columns one by one, pairs among the first columns that
can form any, outliers and associations on part of the rows. What was left out is said in ``notes``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl

from tasks.cleaning.contract.model import ColumnContract, Contract, Dependency, Kind
from tasks.cleaning.contract.rules import row_rules
from tasks.cleaning.detect.outliers import outliers
from tasks.cleaning.profile.associations import Association, associations
from tasks.cleaning.profile.dependencies import DiscoveryConfig, discover
from tasks.cleaning.profile.distributions import Spread, Texts, spread_of, texts_of
from tasks.cleaning.profile.keys import CandidateKey, candidate_keys
from tasks.cleaning.profile.values import Floats, Values, read_values
from tasks.cleaning.repair.votes import Codes, encoded

MAX_TEXT = 200
"""Characters of a text that a profile keeps."""


@dataclass(frozen=True, slots=True)
class ProfileConfig:
    """How much is looked at.

    Attributes:
        pair_columns: Columns that pairs are formed of (keys, dependencies, associations).
        part_rows: Rows that outliers and associations are looked for in, drawn evenly.
        top: Commonest texts and shapes kept of a column.
        association: Least strength of a reported pair.
        outlier: Least confidence of a reported outlier.
        discovery: When a dependency is believed.
    """

    pair_columns: int = 60
    part_rows: int = 20_000
    top: int = 10
    association: float = 0.3
    outlier: float = 0.5
    discovery: DiscoveryConfig = field(default_factory=lambda: DiscoveryConfig(sample_rows=0))

    def __post_init__(self) -> None:
        """Reject sizes that leave nothing to look at."""
        for name in ("pair_columns", "part_rows", "top"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("association", "outlier"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """What one column shows.

    Attributes:
        name: The column.
        kind: What it holds.
        unit: Unit of its numbers, "" where none is written.
        rows: Rows.
        missing: Cells without a value, codes for missing values among them.
        codes: Those codes that occur.
        unreadable: Filled cells that are not of the column's kind.
        distinct: Different values.
        spread: Of numbers, dates, moments; None for texts.
        texts: What the texts look like; None where nothing is filled.
        outliers: Numbers that are probably wrong, in the part looked at.
        broken: Rule of the contract -> rows that break it.
    """

    name: str
    kind: Kind
    unit: str
    rows: int
    missing: int
    codes: tuple[str, ...]
    unreadable: int
    distinct: int
    spread: Spread | None
    texts: Texts | None
    outliers: int
    broken: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TableProfile:
    """What a table shows.

    Attributes:
        source: Name of the table.
        rows: Rows profiled.
        columns: In the table's order.
        keys: Columns and pairs that name every row, or nearly.
        dependencies: One column that fixes another, the surest first.
        associations: Columns that go together, the strongest first.
        outliers: Findings on numbers, the surest first; rows count within the profiled rows.
        copies: Rows that equal an earlier one.
        broken: Rules over several columns -> rows that break them.
        notes: What was not looked at.
    """

    source: str
    rows: int
    columns: tuple[ColumnProfile, ...]
    keys: tuple[CandidateKey, ...]
    dependencies: tuple[Dependency, ...]
    associations: tuple[Association, ...]
    outliers: pl.DataFrame
    copies: int
    broken: Mapping[str, int]
    notes: tuple[str, ...]

    def as_record(self) -> dict[str, Any]:
        """Return everything as values of strict JSON; numbers that it lacks become null."""
        return {
            "source": self.source,
            "rows": self.rows,
            "copies": self.copies,
            "columns": [plain(asdict(one)) for one in self.columns],
            "keys": [plain(asdict(one)) for one in self.keys],
            "dependencies": [plain(asdict(one)) for one in self.dependencies],
            "associations": [plain(asdict(one)) for one in self.associations],
            "outliers": plain(self.outliers.to_dicts()),
            "broken": dict(self.broken),
            "notes": list(self.notes),
        }


def profile(
    frame: pl.DataFrame,
    source: str,
    contract: Contract | None = None,
    config: ProfileConfig | None = None,
) -> TableProfile:
    """Profile a table.

    Args:
        frame: Texts; missing cells null.
        source: Name of the table.
        contract: What columns hold and what they must be; inferred, and nothing, if None.
        config: How much is looked at.
    """
    config = config or ProfileConfig()
    lines = dict(contract.columns) if contract else {}
    read = {name: read_values(frame[name], lines.get(name)) for name in frame.columns}
    step = -(-frame.height // config.part_rows) or 1
    odd = _outliers(frame.gather_every(step), read, config).with_columns(pl.col("row") * step)
    number = dict(odd.group_by("column").len().iter_rows())
    broken = _broken(frame, contract)
    columns = tuple(
        _column(values, number.get(name, 0), broken.pop(name, {}), config)
        for name, values in read.items()
    )
    pairs, notes = _pair_columns(columns, config)
    if step > 1:
        notes.append(f"outliers and associations were looked for in one row of {step:,}")
    codes = {name: encoded(_shown(frame[name], read[name]))[0] for name in pairs}
    return TableProfile(
        source,
        frame.height,
        columns,
        tuple(candidate_keys({n: c for n, c in codes.items() if _may_be_key(read[n])})),
        tuple(discover(frame.select(pairs), config=config.discovery)) if frame.height else (),
        tuple(_associations(read, codes, frame.height, step, config)),
        odd,
        int(frame.height - frame.n_unique()) if frame.width and frame.height else 0,
        broken.get("", {}),
        tuple(notes),
    )


def plain(value: Any) -> Any:
    """Return a value that strict JSON can hold; texts cut to ``MAX_TEXT`` characters."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        cut = value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "…"
        return cut.encode("utf-8", "replace").decode("utf-8")  # no lone surrogates
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _column(
    values: Values, odd: int, broken: Mapping[str, int], config: ProfileConfig
) -> ColumnProfile:
    line: ColumnContract = values.line
    return ColumnProfile(
        name=values.name,
        kind=values.kind,
        unit=line.unit,
        rows=values.rows,
        missing=values.missing,
        codes=line.missing,
        unreadable=values.unreadable,
        distinct=values.text.n_unique(),
        spread=spread_of(values.numbers),
        texts=texts_of(values.text, config.top),
        outliers=odd,
        broken=broken,
    )


def _pair_columns(
    columns: tuple[ColumnProfile, ...], config: ProfileConfig
) -> tuple[list[str], list[str]]:
    """Return the columns that pairs are formed of, and a note where that is not all of them."""
    varied = [one.name for one in columns if one.distinct > 1]
    if len(varied) <= config.pair_columns:
        return varied, []
    note = (
        f"keys, dependencies and associations were looked for among the first "
        f"{config.pair_columns} of {len(varied):,} columns that vary"
    )
    return varied[: config.pair_columns], [note]


def _shown(column: pl.Series, values: Values) -> pl.Series:
    """Return a column with its codes for missing values taken out."""
    codes = list(values.line.missing)
    if not codes:
        return column
    kept = pl.when(~pl.col(column.name).is_in(codes)).then(pl.col(column.name))
    return column.to_frame().select(kept).to_series()


def _may_be_key(values: Values) -> bool:
    """Return whether a column's values may name rows: measured amounts differ by chance alone."""
    return values.kind not in {"decimal", "boolean"}


def _outliers(
    part: pl.DataFrame, read: Mapping[str, Values], config: ProfileConfig
) -> pl.DataFrame:
    names = [name for name, values in read.items() if values.is_number][: config.pair_columns]
    found = outliers(part.select(names), least=config.outlier)
    return found.sort("confidence", descending=True, maintain_order=True)


def _associations(
    read: Mapping[str, Values],
    codes: Mapping[str, Codes],
    height: int,
    step: int,
    config: ProfileConfig,
) -> list[Association]:
    numbers: dict[str, Floats] = {}
    categories: dict[str, Codes] = {}
    for name, code in codes.items():
        values = read[name]
        if values.is_number or values.is_time:
            column = np.full(height, np.nan)
            column[values.places] = values.numbers
            numbers[name] = column[::step]
        else:
            categories[name] = code[::step]
    return associations(numbers, categories, least=config.association)


def _broken(frame: pl.DataFrame, contract: Contract | None) -> dict[str, dict[str, int]]:
    """Return by column ("" for rules over several) how many rows break each rule as they came."""
    counts: dict[str, dict[str, int]] = {}
    if contract is None:
        return counts
    rules = row_rules(contract.by_itself)
    named = [rule for rule in rules if set(rule.broken.meta.root_names()) <= set(frame.columns)]
    sums = frame.select(rule.broken.sum().alias(rule.name) for rule in named)
    for rule in named:
        if (number := int(sums[rule.name][0])) > 0:
            counts.setdefault(rule.column, {})[rule.name] = number
    return counts
