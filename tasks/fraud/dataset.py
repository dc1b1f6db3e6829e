"""The dataset config: a small TOML that tells Penstock what the columns of a user's data mean.

Nothing else in the code knows what an entity is called. Shipped examples lie in
``tasks/fraud/datasets/``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

TimeUnit = Literal["auto", "ns", "us", "ms", "s", "min", "h", "d"]
AmountUnit = Literal["major", "minor"]


class ConfigError(ValueError):
    """A dataset config that cannot be used; the message names the field and the fix."""


@dataclass(frozen=True, slots=True)
class EntityColumn:
    """A column that names an entity; two columns may name entities of one kind.

    Attributes:
        column: Column name in the data.
        kind: Kind of entity, for example ``"account"``; defaults to the column name.
    """

    column: str
    kind: str = ""

    def __post_init__(self) -> None:
        """Default the kind to the column."""
        _require_types("entities.", self, EntityColumn)
        if not self.column:
            raise ConfigError("entities.column must name a column of the data")
        if not self.kind:
            object.__setattr__(self, "kind", self.column)


@dataclass(frozen=True, slots=True)
class Split:
    """How time is cut for training and judging.

    Attributes:
        train_days: Days of labelled history the shipped model learns from.
        test_days: Length of a test fold (the newest fully labelled days).
        folds: Number of test folds, each ``test_days`` earlier than the one before.
        validation_folds: Number of folds before the test folds on which settings are chosen.
        warmup_days: First days of the data that only fill the state.
        test_start: Start of fold 0 (ISO date); empty: the newest labelled ``test_days``.
    """

    train_days: int = 45
    test_days: int = 7
    folds: int = 4
    validation_folds: int = 4
    warmup_days: int = 30
    test_start: str = ""

    def __post_init__(self) -> None:
        """Reject impossible splits."""
        _require_types("split.", self, Split)
        for name in ("train_days", "test_days", "folds", "validation_folds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"split.{name} must be at least 1, got {getattr(self, name)}")
        if self.warmup_days < 0:
            raise ConfigError("split.warmup_days must not be negative")


@dataclass(frozen=True, slots=True)
class Alarm:
    """What this data can give at most without labels from the future; more stops a run.

    Attributes:
        ap: Mean average precision over the test folds above which a leak is suspected.
        auc: The same for ROC AUC. 1, the default, is never exceeded: no alarm.
    """

    ap: float = 1.0
    auc: float = 1.0

    def __post_init__(self) -> None:
        """Reject what no mean can be compared with."""
        _require_types("alarm.", self, Alarm)
        for name in ("ap", "auc"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"alarm.{name} must lie in (0, 1], got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """What the columns of a transaction table mean.

    Attributes:
        name: Short name; becomes part of the registered model's name.
        time: Column of the event time: timestamp, date-time string, or number.
        amount: Column of the amount.
        entities: Entity columns, in the order in which the stream visits them.
        label: Column of the label (1 fraud, 0 legitimate, null unknown); empty if unlabelled.
        label_time: Column of the time at which the label became known; empty: the delay rules.
        event_id: Column of the unique id; empty: the row number stands in.
        numeric: Extra numeric columns used as features.
        categorical: Extra categorical columns used as features.
        time_unit: Unit of a numeric time, ``ns`` to ``d`` (days); ``auto`` reads timestamps and
            ISO strings and refuses bare numbers.
        time_origin: ISO instant from which a numeric time counts.
        amount_unit: ``minor`` when the column already holds integer cents, else ``major``.
        decimals: Decimal places of the currency (2: cents).
        label_delay_days: Days before a label may be used; 0 for none.
        max_quarantine_share: Share of bad rows above which a run stops.
        earliest: ISO instant before which a time is impossible.
        max_future_days: Days after the present beyond which a time is impossible.
        split: How time is cut.
        alarm: Figures too good to be true.
    """

    name: str
    time: str
    amount: str
    entities: tuple[EntityColumn, ...]
    label: str = ""
    label_time: str = ""
    event_id: str = ""
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    time_unit: TimeUnit = "auto"
    time_origin: str = "1970-01-01T00:00:00"
    amount_unit: AmountUnit = "major"
    decimals: int = 2
    label_delay_days: float = 7.0
    max_quarantine_share: float = 0.05
    earliest: str = "1990-01-01"
    max_future_days: float = 1.0
    split: Split = field(default_factory=Split)
    alarm: Alarm = field(default_factory=Alarm)

    def __post_init__(self) -> None:
        """Validate, naming field and fix."""
        _require_types("", self, DatasetConfig)
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"name {self.name!r} must be letters, digits, '-' or '_'")
        if not self.time or not self.amount:
            raise ConfigError("'time' and 'amount' must name columns of the data")
        if not self.entities:
            raise ConfigError('at least one [[entities]] entry is needed: add column = "..."')
        columns = self.columns
        repeated = sorted({c for c in columns if columns.count(c) > 1})
        if repeated:
            raise ConfigError(f"columns named twice: {', '.join(repeated)}; give each one role")
        if self.time_unit not in get_args(TimeUnit):
            raise ConfigError(f"time_unit {self.time_unit!r} must be one of {get_args(TimeUnit)}")
        if self.amount_unit not in get_args(AmountUnit):
            raise ConfigError(f"amount_unit must be one of {get_args(AmountUnit)}")
        if not 0 <= self.max_quarantine_share <= 1:
            raise ConfigError("max_quarantine_share must lie in 0..1")
        if not 0 <= self.decimals <= 6:
            raise ConfigError(f"decimals must lie in 0..6, got {self.decimals}")
        for name in ("label_delay_days", "max_future_days"):
            if not 0 <= getattr(self, name) <= 3650:
                raise ConfigError(f"{name} must lie in 0..3650, got {getattr(self, name)}")
        self.origin_ms, self.earliest_ms  # noqa: B018 - raise on a malformed instant

    @property
    def columns(self) -> list[str]:
        """Every column the config names, in a fixed order."""
        optional = [c for c in (self.label, self.label_time, self.event_id) if c]
        entities = [e.column for e in self.entities]
        return [self.time, self.amount, *entities, *optional, *self.numeric, *self.categorical]

    @property
    def id_columns(self) -> list[str]:
        """Columns of ids, which a CSV reader should leave as text."""
        return [*(e.column for e in self.entities), *([self.event_id] if self.event_id else [])]

    @property
    def kinds(self) -> dict[str, list[str]]:
        """Entity kinds with the columns that name them, in order."""
        kinds: dict[str, list[str]] = {}
        for entity in self.entities:
            kinds.setdefault(entity.kind, []).append(entity.column)
        return kinds

    @property
    def delay_ms(self) -> int:
        """Label delay in milliseconds."""
        return round(self.label_delay_days * 86_400_000)

    @property
    def origin_ms(self) -> int:
        """Origin of numeric times, epoch milliseconds."""
        return _instant_ms("time_origin", self.time_origin)

    @property
    def earliest_ms(self) -> int:
        """Earliest possible event time, epoch milliseconds."""
        return _instant_ms("earliest", self.earliest)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that ``from_dict`` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DatasetConfig:
        """Build a config from parsed TOML or JSON.

        Raises:
            ConfigError: On unknown or missing fields, or values out of range.
        """
        values = dict(data)
        _reject_unknown("", values, cls)
        entities = values.get("entities", ())
        if not isinstance(entities, list | tuple):
            raise ConfigError("'entities' must be a list of tables: [[entities]] column = \"...\"")
        try:
            values["entities"] = tuple(EntityColumn(**e) for e in entities)
            for name, part in (("split", Split), ("alarm", Alarm)):
                table = dict(values.get(name, {}))
                _reject_unknown(f"{name}.", table, part)
                values[name] = part(**table)
            for name in ("numeric", "categorical"):
                columns = values.get(name, ())
                values[name] = tuple(columns) if isinstance(columns, list) else columns
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"dataset config: {error}") from error

    @classmethod
    def from_toml(cls, path: Path) -> DatasetConfig:
        """Read a config file.

        Raises:
            ConfigError: When the file is missing, is no TOML or names unknown fields.
        """
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(
                f"dataset config {path} not found; write one with 'penstock fraud init-config'"
            ) from error
        except IsADirectoryError as error:
            raise ConfigError(f"dataset config {path} is a folder; name the TOML file") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"dataset config {path} is no valid TOML: {error}") from error
        return cls.from_dict(data)


def find_config(name_or_path: str) -> DatasetConfig:
    """Read a shipped config by its name (``handbook``, ``transfers``), any other by its path.

    Raises:
        ConfigError: When there is no such config or it cannot be used.
    """
    shipped = Path(__file__).parent / "datasets" / f"{name_or_path}.toml"
    if name_or_path.replace("_", "").isalnum() and shipped.is_file():
        return DatasetConfig.from_toml(shipped)
    return DatasetConfig.from_toml(Path(name_or_path))


def _reject_unknown(prefix: str, values: Mapping[str, Any], cls: type) -> None:
    known = {f.name for f in fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"dataset config: unknown field {prefix}{unknown[0]}; known: {', '.join(sorted(known))}"
        )


def _require_types(prefix: str, config: object, cls: type) -> None:
    """Reject values whose type is not that of the field, as a TOML file may hold them."""
    names = {"str": "text in quotes", "int": "a whole number", "float": "a number"}
    for item in fields(cls):
        value = getattr(config, item.name)
        kind = str(item.type)
        if kind in ("str", "TimeUnit", "AmountUnit"):
            good, kind = isinstance(value, str), "str"
        elif kind in ("int", "float"):
            allowed = (int,) if kind == "int" else (int, float)
            good = isinstance(value, allowed) and not isinstance(value, bool)
        elif kind == "tuple[str, ...]":
            good = isinstance(value, tuple) and all(isinstance(v, str) for v in value)
        else:
            continue
        if not good:
            wanted = names.get(kind, 'a list of column names: ["a", "b"]')
            raise ConfigError(f"{prefix}{item.name} must be {wanted}, got {value!r}")


@lru_cache(maxsize=256)
def _instant_ms(name: str, text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} {text!r} is no ISO instant; write it as 2018-04-01T00:00:00"
        ) from error
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return round(instant.timestamp() * 1000)
