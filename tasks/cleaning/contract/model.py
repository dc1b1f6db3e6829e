"""A contract: what every column and row of a table must be, apart from how that is checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from tasks.cleaning.contract.rows import DuplicateRule

Kind = Literal["text", "integer", "decimal", "date", "datetime", "boolean"]
KINDS: tuple[str, ...] = get_args(Kind)


class ContractError(ValueError):
    """A contract that contradicts itself or does not fit its table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnContract:
    """What the values of a column must be.

    Attributes:
        kind: Type of the values once they are clean; files hold texts.
        nullable: Whether a value may be missing.
        unique: Whether every value occurs once.
        pattern: Regular expression that the whole text matches; "" for none.
        domain: The only values there are; () for any.
        minimum: Least number, or date in ISO form; None for none.
        maximum: Greatest one, likewise.
        max_length: Most characters, 0 for any number.
        unit: Unit of the numbers, for people and for spellings that name it; "" for none.
        unit_spellings: Texts after a number that mean the unit, and are taken away.
        scales: Texts after a number that mean the unit times a factor, for example ``{kg = 1000}``.
        missing: Texts that stand for a missing value.
        formats: Formats of dates (``%d.%m.%Y``) that are rewritten into ISO form.
        suffix_of: Column whose value is glued to the end of this one where that one is missing.
        confidence: How sure an inferred line is, by its name; a person's lines are not in it.
    """

    kind: Kind = "text"
    nullable: bool = True
    unique: bool = False
    pattern: str = ""
    domain: tuple[str, ...] = ()
    minimum: float | str | None = None
    maximum: float | str | None = None
    max_length: int = 0
    unit: str = ""
    unit_spellings: tuple[str, ...] = ()
    scales: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    suffix_of: str = ""
    confidence: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject what no value could meet, and what nobody could check.

        Raises:
            ContractError: With the field at fault and how to mend it.
        """
        if self.kind not in KINDS:
            raise ContractError(f"kind is {self.kind!r}; give one of {', '.join(KINDS)}")
        if self.pattern:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ContractError(f"pattern {self.pattern!r} is no expression: {error}") from None
        if self.minimum is not None and self.maximum is not None:
            if isinstance(self.minimum, str) != isinstance(self.maximum, str):
                raise ContractError("minimum and maximum must both be numbers or both be dates")
            if self.minimum > self.maximum:  # type: ignore[operator]
                raise ContractError(f"minimum {self.minimum} is above maximum {self.maximum}")
        if self.is_number and (isinstance(self.minimum, str) or isinstance(self.maximum, str)):
            raise ContractError("minimum and maximum of numbers are numbers, without quotes")
        if self.max_length < 0:
            raise ContractError(f"max_length is {self.max_length}; give 0 for any length")
        if (self.unit_spellings or self.scales) and not self.is_number:
            raise ContractError(f"units belong to numbers; kind is {self.kind!r}")
        if self.formats and self.kind not in {"date", "datetime"}:
            raise ContractError(f"formats belong to dates; kind is {self.kind!r}")

    @property
    def is_number(self) -> bool:
        """Whether values are numbers."""
        return self.kind in {"integer", "decimal"}


@dataclass(frozen=True, slots=True)
class Dependency:
    """Rows alike in some columns are alike in another one.

    Attributes:
        determinant: Columns that fix the other one.
        dependent: The column that they fix.
        confidence: 1 where a person declared it, else the share of rows that follow it.
    """

    determinant: tuple[str, ...]
    dependent: str
    confidence: float = 1.0

    def __post_init__(self) -> None:
        """Reject a dependency on nothing or on itself."""
        if not self.determinant or self.dependent in self.determinant:
            raise ContractError(f"a dependency of {self.dependent!r} on {list(self.determinant)}")

    @property
    def declared(self) -> bool:
        """Whether a person vouches for it."""
        return self.confidence == 1.0

    @property
    def name(self) -> str:
        """Id in findings, for example ``zip->city``."""
        return f"{'+'.join(self.determinant)}->{self.dependent}"


@dataclass(frozen=True, slots=True)
class Denial:
    """A combination of values that no row may show.

    Attributes:
        name: Id in findings.
        forbidden: SQL condition over the columns that holds for no good row, in the part of SQL
            that Polars and Flink share, for example ``"left" < arrived``.
        expected: What a good row looks like, for people.
    """

    name: str
    forbidden: str
    expected: str = ""


@dataclass(frozen=True, slots=True)
class LabelRule:
    """A column that labels the rows.

    Attributes:
        column: The column.
        max_noise: Largest share of wrong labels; None for any.
        features: Columns that tell the label; all others if empty.
    """

    column: str
    max_noise: float | None = None
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a table must look like.

    Attributes:
        name: Name of the kind of table.
        version: Version of this contract; part of every finding.
        columns: Every column by name; others in a table are refused unless ``extra_columns``.
        dependencies: What fixes what, in the order in which repairs use it.
        denials: Impossible combinations.
        keys: Groups of columns that together occur once.
        extra_columns: Whether columns not named here may be there; they are passed on untouched.
        min_rows: Fewest rows of a table.
        max_rows: Most rows, 0 for any number.
        newest: Column whose newest date must be recent, "" for none.
        max_age_days: How old that date may be.
        max_quarantine_share: A run that sets aside more than this share fails.
        duplicates: Which rows mean the same entity; None to compare equal rows only.
        label: The column of labels; None for none.
    """

    name: str
    version: int = 1
    columns: Mapping[str, ColumnContract]
    dependencies: tuple[Dependency, ...] = ()
    denials: tuple[Denial, ...] = ()
    keys: tuple[tuple[str, ...], ...] = ()
    extra_columns: bool = False
    min_rows: int = 0
    max_rows: int = 0
    newest: str = ""
    max_age_days: float = 0.0
    max_quarantine_share: float = 1.0
    duplicates: DuplicateRule | None = None
    label: LabelRule | None = None

    def __post_init__(self) -> None:
        """Reject references to columns that are not named and impossible bounds.

        Raises:
            ContractError: With the line at fault.
        """
        if not self.columns:
            raise ContractError(f"contract {self.name!r} names no column")
        named = {
            **{f"dependency {d.name}": (*d.determinant, d.dependent) for d in self.dependencies},
            **{f"key {'+'.join(key)}": key for key in self.keys},
            **{f"suffix_of of {n}": (c.suffix_of,) for n, c in self.columns.items() if c.suffix_of},
            **({"newest": (self.newest,)} if self.newest else {}),
            **({"duplicates": tuple(self.duplicates.columns)} if self.duplicates else {}),
            **({"label": (self.label.column, *self.label.features)} if self.label else {}),
        }
        for line, names in named.items():
            for name in names:
                if name not in self.columns:
                    raise ContractError(
                        f"{line} names {name!r}, which is no column; there are "
                        f"{', '.join(self.columns)}"
                    )
        if self.max_rows and self.max_rows < self.min_rows:
            raise ContractError(f"max_rows {self.max_rows} is below min_rows {self.min_rows}")
        if not 0.0 <= self.max_quarantine_share <= 1.0:
            raise ContractError(f"max_quarantine_share {self.max_quarantine_share} is no share")

    @property
    def detector_version(self) -> str:
        """What findings carry."""
        return f"{self.name}/{self.version}"
