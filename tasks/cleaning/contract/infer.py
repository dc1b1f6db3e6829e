"""A contract inferred from one batch: a proposal with confidences, for a person to edit.

Nothing is taken for a rule because it is usual elsewhere: a column is normalised only where it
contradicts itself (three spellings of a unit, some percentages with a sign and some without, a
number column with "N/A" in it), and what all rows share is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from tasks.cleaning.contract.model import ColumnContract, Contract, ContractError
from tasks.cleaning.profile.dependencies import DiscoveryConfig, discover
from tasks.cleaning.profile.units import unit_of
from tasks.cleaning.repair.normalise import BLANKS, GLUED, NUMBER, YEAR
from tasks.cleaning.sensors.infer import infer_sensors
from tasks.cleaning.transactions.check_digits import likely_kind

CODES = (
    "N/A",
    "n/a",
    "NA",
    "#N/A",
    "NaN",
    "nan",
    "NULL",
    "null",
    "None",
    "none",
    "missing",
    "?",
    "-",
    "--",
)
"""Texts that stand for a missing value where all others are numbers or dates."""
TEXT_CODES = ("N/A", "n/a", "#N/A", "NaN", "NULL", "null")
"""Those that mean nothing else in a column of words, either."""
MOSTLY_NOT = 0.1
DATE_FORMATS = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%Y%m%d")


@dataclass(frozen=True, slots=True)
class InferConfig:
    """How much of a column must agree.

    Attributes:
        kind_share: Least share of the values that read as numbers or dates.
        uniform_share: From this share on one way of writing is the column's, not one of several.
        max_domain: Most values of a domain.
        domain_rows: Rows that each value of a domain must have on average.
        glued_share: Least share of the rows without a value whose neighbour ends in one.
        discovery: When a dependency is believed.
    """

    kind_share: float = 0.95
    uniform_share: float = 0.9
    max_domain: int = 50
    domain_rows: int = 20
    glued_share: float = 0.8
    discovery: DiscoveryConfig = field(default_factory=DiscoveryConfig)


def infer(frame: pl.DataFrame, name: str, config: InferConfig | None = None) -> Contract:
    """Propose a contract.

    Args:
        frame: Texts; the first batch that a person trusts enough to learn from, errors and all.
        name: Name of the kind of table.
        config: How much must agree.

    Raises:
        ContractError: For a table without columns or rows.
    """
    config = config or InferConfig()
    if frame.width == 0 or frame.height == 0:
        raise ContractError(
            f"nothing can be inferred from {frame.height} rows of {frame.width} columns"
        )
    columns = {column: infer_column(frame[column], config) for column in frame.columns}
    columns = {column: _doubted(made, frame.height) for column, made in columns.items()}
    for column, other in _glued(frame, columns, config):
        columns[column] = replace(columns[column], suffix_of=other)
    columns = {column: _checked(made, frame[column]) for column, made in columns.items()}
    return Contract(
        name=name,
        columns=columns,
        dependencies=tuple(discover(frame, config=config.discovery)),
        sensors=infer_sensors(frame, [c for c, made in columns.items() if _measures(made)]),
    )


def _measures(column: ColumnContract) -> bool:
    """Tell whether a column may hold readings: numbers that do not just count the rows."""
    return column.is_number and not (column.kind == "integer" and column.unique)


def _checked(column: ColumnContract, values: pl.Series) -> ColumnContract:
    """Return a column with the check digits that its texts bear out."""
    kind, share = likely_kind(values)
    if not kind:
        return column
    sure = {**column.confidence, "check_digit": share}
    return replace(column, check_digit=kind, confidence=sure)


def _doubted(column: ColumnContract, rows: int) -> ColumnContract:
    """Return a column whose lines on missing and doubled values say that nobody vouched."""
    sure = (rows + 1) / (rows + 2)  # Laplace's rule: no row of the batch broke them
    lines = {"nullable": not column.nullable, "unique": column.unique}
    said = {line: sure for line, holds in lines.items() if holds}
    return replace(column, confidence=said | dict(column.confidence))


def infer_column(values: pl.Series, config: InferConfig) -> ColumnContract:
    """Propose the contract of one column of texts."""
    text = values.str.replace_all(f"^{BLANKS}|{BLANKS}$", "").drop_nulls()
    text = text.filter(text != "")
    nullable = len(text) < len(values)
    if text.is_empty():
        return ColumnContract(nullable=True)
    known = text.filter(~text.is_in(CODES))
    codes = tuple(code for code in CODES if (text == code).any())
    for make in (_number, _date):
        found = make(known, config) if len(known) else None
        if found is not None:
            return replace(
                found, nullable=nullable or bool(codes), missing=codes, unique=_unique(text)
            )
    codes = tuple(code for code in codes if code in TEXT_CODES)
    known = text.filter(~text.is_in(codes))
    domain, sure = _domain(known, config)
    return ColumnContract(
        nullable=nullable or bool(codes),
        missing=codes,
        unique=_unique(text) and not nullable,
        domain=domain,
        confidence={"domain": sure} if domain else {},
    )


def _number(text: pl.Series, config: InferConfig) -> ColumnContract | None:
    parts = pl.DataFrame({"text": text}).select(
        pl.col("text").str.extract(f"^({NUMBER})").cast(pl.Float64, strict=False).alias("number"),
        pl.col("text").str.replace(f"^{NUMBER}\\s*", "").alias("tail"),
    )
    # "oz. can": the unit and a remark. Such a text counts as a number, but is left for a person.
    units = {
        tail: unit_of(tail) or unit_of((tail.split() or [""])[0])
        for tail in parts["tail"].unique()
        if tail
    }
    readable = parts.filter(
        pl.col("number").is_not_null()
        & ((pl.col("tail") == "") | pl.col("tail").is_in([t for t, u in units.items() if u]))
    )
    share = readable.height / parts.height
    if share < config.kind_share:
        return None
    # A code with a leading zero is no number: 07030 and 7030 are two places.
    if text.str.contains(r"^0\d").any():
        return None
    tails = readable["tail"].value_counts().sort("count", descending=True)
    bare = bool((readable["tail"] == "").all())
    if not bare and tails["count"][0] / readable.height >= config.uniform_share:
        return None  # one way of writing: the text is left alone
    named = {units[tail] for tail in tails["tail"].to_list() if tail}
    if len(named) > 1:
        return None
    spellings = tuple(sorted(tail for tail in tails["tail"].to_list() if unit_of(tail)))
    scales = _scales(readable, spellings)
    whole = bool((readable["number"] == readable["number"].round(0)).all()) and not spellings
    lines = {"kind": share} | ({"unit_spellings": share} if spellings else {})
    return ColumnContract(
        kind="integer" if whole else "decimal",
        # A sign that stands beside numbers of the same size means nothing.
        unit="" if "" in tails["tail"] or scales else named.pop(),
        unit_spellings=() if scales else spellings,
        scales=scales,
        confidence=lines,
    )


def _scales(readable: pl.DataFrame, spellings: Sequence[str]) -> Mapping[str, float]:
    """Tell 9 % beside 0.09 from 0.09 % beside 0.09: by the medians of both ways of writing."""
    bare = readable.filter(pl.col("tail") == "")["number"]
    signed = readable.filter(pl.col("tail") != "")["number"]
    if spellings != ("%",) or bare.is_empty() or signed.is_empty():
        return {}
    ratio = abs(float(signed.median() or 0.0)) / max(abs(float(bare.median() or 0.0)), 1e-12)  # type: ignore[arg-type]
    return {"%": 0.01} if 30.0 <= ratio <= 300.0 else {}


def _date(text: pl.Series, config: InferConfig) -> ColumnContract | None:
    reads = {
        form: text.str.strptime(pl.Date, form, strict=False, exact=True).is_not_null()
        & text.str.contains(YEAR)
        for form in DATE_FORMATS
    }
    best = max(reads, key=lambda form: int(reads[form].sum()))
    # More than one that fits all is a guess between day and month: a person must say which.
    if sum(bool(read.all()) for read in reads.values()) > 1 and best != "%Y-%m-%d":
        return None
    used, left = [], pl.Series([True] * len(text))
    for form in sorted(reads, key=lambda form: -int(reads[form].sum())):
        if (reads[form] & left).mean() >= 0.01:  # type: ignore[operator]
            used.append(form)
            left &= ~reads[form]
    share = 1.0 - float(left.mean())  # type: ignore[arg-type]
    if share < config.kind_share or {"%d/%m/%Y", "%m/%d/%Y"} <= set(used):
        return None
    formats = tuple(form for form in used if form != "%Y-%m-%d")
    return ColumnContract(
        kind="date", formats=formats, confidence={"kind": share, "formats": share}
    )


def _domain(text: pl.Series, config: InferConfig) -> tuple[tuple[str, ...], float]:
    counts = text.alias("text").value_counts().sort("count", "text", descending=[True, False])
    common = counts.filter(pl.col("count") >= max(3, 0.002 * len(text)))
    held = int(common["count"].sum())
    if not 1 <= common.height <= config.max_domain or held < config.kind_share * len(text):
        return (), 0.0
    if held < config.domain_rows * common.height:
        return (), 0.0
    return tuple(sorted(common["text"].to_list())), held / len(text)


def _unique(text: pl.Series) -> bool:
    return len(text) > 1 and text.n_unique() == len(text)


def _glued(
    frame: pl.DataFrame, columns: Mapping[str, ColumnContract], config: InferConfig
) -> list[tuple[str, str]]:
    """Return pairs of columns where the second's value stands at the end of the first."""
    found = []
    for other in frame.columns:
        codes = columns[other].missing
        values = frame[other].drop_nulls().unique()
        empty = frame[other].is_null() | frame[other].is_in([*codes, ""])
        if not empty.sum() >= 3 or not 2 <= len(values) <= 1_000:
            continue
        for name in frame.columns:
            if name == other or columns[name].kind != "text":
                continue
            ends = frame[name].str.extract(GLUED, 2).is_in(values)
            glued = int((ends & empty).sum()) / int(empty.sum())
            # Where the other value is there, the first one hardly ever ends in it.
            usual = int((ends & ~empty).sum()) / max(int((~empty).sum()), 1)
            if glued >= config.glued_share and usual < MOSTLY_NOT:
                found.append((name, other))
    return found
