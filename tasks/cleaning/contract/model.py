"""A contract: what every column and row of a table must be, apart from how that is checked."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from tasks.cleaning.contract.rows import DuplicateRule

from tasks.cleaning.contract.conditions import ConditionError, parse
from tasks.cleaning.contract.patterns import PatternError, portable
from tasks.cleaning.contract.values import DATE, DATETIME
from tasks.cleaning.sensors.model import SensorRules
from tasks.cleaning.transactions.check_digits import KINDS as CHECK_DIGITS
from tasks.cleaning.transactions.model import TransactionRules

Kind = Literal["text", "integer", "decimal", "date", "datetime", "boolean"]
KINDS: tuple[str, ...] = get_args(Kind)
Impute = Literal["", "review", "fill"]


class ContractError(ValueError):
    """A contract that contradicts itself or does not fit its table."""


def require_shares(confidence: Mapping[str, float]) -> None:
    """Refuse confidences that are not numbers in 0..1.

    Raises:
        ContractError: With the line at fault.
    """
    for line, sure in confidence.items():
        if isinstance(sure, bool) or not isinstance(sure, int | float) or not 0.0 <= sure <= 1.0:
            raise ContractError(
                f"confidence: {line} is {sure!r}; give a number in 0..1, or take it out to vouch "
                "for the line"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnContract:
    """What the values of a column must be.

    Attributes:
        kind: Type of the values once they are clean; files hold texts.
        nullable: Whether a value may be missing.
        unique: Whether every value occurs once.
        pattern: Regular expression that the whole text matches, in the part that all engines share
            (``patterns.py``); "" for none.
        domain: The only values there are; () for any.
        minimum: Least number, or date in ISO form; None for none.
        maximum: Greatest one, likewise.
        max_length: Most characters, 0 for any number.
        unit: Unit of the numbers, for people and for spellings that name it; "" for none.
        unit_spellings: Texts after a number that mean the unit, and are taken away.
        scales: Texts after a number that mean the unit times a factor, for example ``{kg = 1000}``.
        missing: Texts that stand for a missing value.
        formats: Formats of dates (``%d.%m.%Y``) that are rewritten into ISO form.
        check_digit: Standard whose check digits the text bears out, for example ``iban``.
        suffix_of: Column whose value is glued to the end of this one where that one is missing.
        impute: What is done about missing values: ``review`` estimates them for a person, ``fill``
            fills them in, flagged; "" leaves them missing.
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
    check_digit: str = ""
    suffix_of: str = ""
    impute: Impute = ""
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
                portable(self.pattern)
            except PatternError as error:
                raise ContractError(f"pattern {self.pattern!r}, {error}") from None
        self._require_bounds()
        if self.max_length < 0:
            raise ContractError(f"max_length is {self.max_length}; give 0 for any length")
        if (self.unit_spellings or self.scales) and not self.is_number:
            raise ContractError(f"units belong to numbers; kind is {self.kind!r}")
        if self.check_digit and self.check_digit not in CHECK_DIGITS:
            raise ContractError(
                f"check_digit is {self.check_digit!r}; give one of {', '.join(CHECK_DIGITS)}"
            )
        if self.formats and self.kind not in {"date", "datetime"}:
            raise ContractError(f"formats belong to dates; kind is {self.kind!r}")
        for form in self.formats:
            if "%Z" in form or (self.kind == "date" and ("%z" in form or "%:z" in form)):
                raise ContractError(
                    f"format {form!r}: names of zones are ambiguous and days have no zone; moments "
                    "(kind = 'datetime') take %z, an offset such as +0200"
                )
        for text, scale in self.scales.items():
            if not (math.isfinite(scale) and scale):
                raise ContractError(f"scales: {text!r} is {scale}; give a number other than 0")
        require_shares(self.confidence)
        self._require_imputable()

    def _require_bounds(self) -> None:
        """Reject bounds of another kind than the values."""
        for line, bound in (("minimum", self.minimum), ("maximum", self.maximum)):
            if bound is None:
                continue
            if self.kind in {"text", "boolean"}:
                raise ContractError(
                    f"{line} belongs to numbers and dates; kind is {self.kind!r}, give another"
                )
            if self.is_number and (isinstance(bound, str) or not abs(bound) <= sys.float_info.max):
                raise ContractError("minimum and maximum of numbers are numbers, without quotes")
            if not self.is_number and not _is_date(bound, day=self.kind == "date"):
                form = "YYYY-MM-DD" + ("" if self.kind == "date" else " or YYYY-MM-DDTHH:MM:SS")
                raise ContractError(f"{line} is {bound!r}; give {form}")
        # Of moments with zones the texts do not tell which is the later one.
        both = self.minimum is not None and self.maximum is not None and self.kind != "datetime"
        if both and self.minimum > self.maximum:  # type: ignore[operator]
            raise ContractError(f"minimum {self.minimum} is above maximum {self.maximum}")

    def _require_imputable(self) -> None:
        """Reject estimates of what cannot be estimated."""
        if self.impute not in get_args(Impute):
            raise ContractError(f'impute is {self.impute!r}; give "review" or "fill"')
        if self.impute and (self.unique or self.kind in {"date", "datetime"}):
            raise ContractError("impute estimates numbers and words that repeat, not dates or ids")

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
        require_shares({self.name: self.confidence})

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
            that ``conditions.py`` lists, for example ``"left" < arrived``; columns have the kinds
            that the contract gives them.
        expected: What a good row looks like, for people.
    """

    name: str
    forbidden: str
    expected: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """Values that must occur in another table.

    Attributes:
        columns: Columns of this table; a row where one of them is missing is not checked.
        table: Name of the other table: a file, beside the contract if it says nothing else.
        to: As many columns of the other table, which together hold the values.
    """

    columns: tuple[str, ...]
    table: str
    to: tuple[str, ...]

    def __post_init__(self) -> None:
        """Reject a reference to nothing."""
        if not self.columns or len(self.columns) != len(self.to) or not self.table:
            raise ContractError(
                f"a reference of {list(self.columns)} to {list(self.to)} of {self.table!r}; give "
                "as many columns of the other table as of this one, and the table's file"
            )
        if len(set(self.columns)) < len(self.columns):
            raise ContractError(f"a reference names a column of {list(self.columns)} twice")

    @property
    def name(self) -> str:
        """Id in findings, for example ``customer->customers.csv:id``."""
        return f"{'+'.join(self.columns)}->{self.table}:{'+'.join(self.to)}"


@dataclass(frozen=True, slots=True)
class Label:
    """A column that labels the rows: likely wrong labels are shown, and there may be a limit.

    Attributes:
        column: Column of classes.
        max_noise: Greatest share of labels that may be wrong, as estimated; None for any.
        features: Columns that tell the classes apart; () for all others that are not unique.
    """

    column: str
    max_noise: float | None = None
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject what is no share, and a label that explains itself."""
        if self.max_noise is not None and not 0.0 <= self.max_noise < 1.0:
            raise ContractError(f"max_noise is {self.max_noise}; give a share, such as 0.05")
        if self.column in self.features:
            raise ContractError(f"label {self.column!r} is among its own features; take it out")


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
        references: Columns whose values occur in another table.
        sensors: Columns that are series, and how their sensors write.
        transactions: What the columns of a table of transactions mean.
        extra_columns: Whether columns not named here may be there; they are passed on untouched.
        min_rows: Fewest rows of a table.
        max_rows: Most rows, 0 for any number.
        newest: Date column whose newest value must be recent, "" for none.
        max_age_days: How old that value may be.
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
    references: tuple[Reference, ...] = ()
    sensors: tuple[SensorRules, ...] = ()
    transactions: tuple[TransactionRules, ...] = ()
    extra_columns: bool = False
    min_rows: int = 0
    max_rows: int = 0
    newest: str = ""
    max_age_days: float = 0.0
    max_quarantine_share: float = 1.0
    duplicates: DuplicateRule | None = None
    label: Label | None = None

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
            **{f"reference {r.name}": r.columns for r in self.references},
            **{f"sensor {s.column}": s.columns for s in self.sensors},
            **{f"transactions {i + 1}": t.columns for i, t in enumerate(self.transactions)},
            **({"duplicates": tuple(self.duplicates.columns)} if self.duplicates else {}),
            **({"label": (self.label.column, *self.label.features)} if self.label else {}),
        }
        for sure in [s.confidence for s in self.sensors] + [
            t.confidence for t in self.transactions
        ]:
            require_shares(sure)
        for line, names in named.items():
            for name in names:
                if name not in self.columns:
                    raise ContractError(
                        f"{line} names {name!r}, which is no column; there are "
                        f"{', '.join(self.columns)}"
                    )
        self._require_denials()
        self._require_sensors()
        self._require_fresh()
        if any(not key for key in self.keys):
            raise ContractError("a key names no column; write keys = [['id']]")
        if self.min_rows < 0 or self.max_rows < 0:
            raise ContractError("min_rows and max_rows are 0 or more")
        if self.max_rows and self.max_rows < self.min_rows:
            raise ContractError(f"max_rows {self.max_rows} is below min_rows {self.min_rows}")
        if not 0.0 <= self.max_quarantine_share <= 1.0:
            raise ContractError(f"max_quarantine_share {self.max_quarantine_share} is no share")

    def _require_denials(self) -> None:
        kinds = {name: column.kind for name, column in self.columns.items()}
        named = [denial.name for denial in self.denials]
        for i, denial in enumerate(self.denials):
            if denial.name in named[:i]:
                raise ContractError(f"two denials have the name {denial.name!r}; rename one")
            try:
                parse(denial.forbidden, kinds)
            except ConditionError as error:
                raise ContractError(f"denial {denial.name!r}: {error}") from None

    def _require_sensors(self) -> None:
        """Reject a second sensor of a column: bounds and findings are told by the column alone."""
        seen: set[str] = set()
        for sensor in self.sensors:
            if sensor.column in seen:
                raise ContractError(
                    f"two [[sensor]] tables name the column {sensor.column!r}; write what is known "
                    "of it into one, and tell several series of a column apart by group = [...]"
                )
            seen.add(sensor.column)

    def _require_fresh(self) -> None:
        if bool(self.newest) != (self.max_age_days > 0) or not 0 <= self.max_age_days < math.inf:
            raise ContractError(
                "newest = 'COLUMN' and max_age_days = DAYS (more than 0) stand together"
            )
        if self.newest and self.columns[self.newest].kind not in {"date", "datetime"}:
            raise ContractError(f"newest: {self.newest!r} is no date; give it kind = 'date'")

    @property
    def by_itself(self) -> Contract:
        """The same without references, for where the other tables are not at hand."""
        return replace(self, references=()) if self.references else self

    @property
    def detector_version(self) -> str:
        """What findings carry."""
        return f"{self.name}/{self.version}"


def _is_date(bound: float | str, *, day: bool) -> bool:
    shapes = (DATE,) if day else (DATE, DATETIME)
    return isinstance(bound, str) and any(
        re.search(shape.replace(r"\z", r"\Z"), bound) for shape in shapes
    )
