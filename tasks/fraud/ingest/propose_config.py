"""Propose a dataset config from the names and contents of a table's columns.

It is a first draft for a person to read: every guess is a note, and what was left out says why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from tasks.fraud.dataset import DatasetConfig, EntityColumn, Split, TimeUnit
from tasks.fraud.ingest.columns_profile import Profile, profile
from tasks.fraud.ingest.parsing import DataError, parse_times, plain_array

MAX_ENTITIES = 3
MAX_NUMERIC = 50
MAX_CATEGORIES = 100
DAY_MS = 86_400_000
UNKNOWN_ORIGIN = "2018-01-01T00:00:00"

_TIME = ("t", "time", "timestamp", "ts", "date", "datetime", "dt", "step", "epoch", "unix")
_AMOUNT = ("amount", "amt", "value", "price", "sum", "total", "betrag", "montant", "importe")
_FRAUD = ("fraud", "isfraud", "laundering", "chargeback", "fraudulent")
_LABEL = (*_FRAUD, "label", "class", "target")
_EVENT = ("id", "uuid", "guid", "ref", "reference", "number", "num", "key", "no")
_PAYMENT = ("tx", "transaction", "trans", "event", "payment", "transfer", "trx", "order")
_FROM = ("sender", "orig", "origin", "originator", "payer", "from", "debtor", "nameorig", "src")
_TO = ("receiver", "dest", "destination", "beneficiary", "payee", "to", "creditor", "namedest",
       "dst", "recipient")  # fmt: skip
_ENTITY = ("customer", "client", "user", "card", "cc", "account", "acct", "terminal", "merchant",
           "device", "store", "shop", "ip", "phone", "iban", "seller", "buyer", "pan")  # fmt: skip
_TELLING = (*_LABEL, "scenario", "ring", "flagged", "dispute")
_CODE = ("type", "category", "cd", "code", "mcc", "country", "currency", "channel", "gender",
         "state", "product", "method", "brand", "network", "bank")  # fmt: skip
_ORDER = ("name", "time", "time_unit", "time_origin", "amount", "amount_unit", "decimals",
          "event_id", "label", "label_time", "label_delay_days", "numeric", "categorical",
          "earliest", "max_future_days", "max_quarantine_share")  # fmt: skip
_EPOCHS: tuple[tuple[float, TimeUnit], ...] = ((1e9, "s"), (1e12, "ms"), (1e15, "us"), (1e18, "ns"))


class ProposalError(DataError):
    """No config can be guessed; the message says which column could not be found."""


@dataclass(slots=True)
class _Draft:
    """Columns not yet given a role, and what was decided so far."""

    left: dict[str, Profile]
    notes: list[str]

    def take(self, column: Profile, role: str) -> None:
        del self.left[column.name]
        self.notes.append(f"{column.name}: {role}")

    def drop(self, column: Profile, why: str) -> None:
        del self.left[column.name]
        self.notes.append(f"{column.name}: left out, {why}")


def propose(table: pa.Table, name: str) -> tuple[DatasetConfig, list[str]]:
    """Guess what the columns of a table mean.

    Args:
        table: The data.
        name: Name of the dataset; characters other than letters, digits, ``-`` and ``_`` go.

    Returns:
        The config and one note per column or assumption.

    Raises:
        ProposalError: When no time, amount or entity column can be found.
    """
    draft = _Draft({n: profile(table, n) for n in table.column_names}, [])
    for column in list(draft.left.values()):
        if column.content in ("empty", "other"):
            draft.drop(column, "it is empty" if column.content == "empty" else "no plain values")
        elif column.name.startswith(("Unnamed:", "__index_level_")):
            draft.drop(column, "it numbers the rows")
    time, unit, origin = _take_time(draft)
    amount, minor = _take_amount(draft)
    label = _take_label(draft)
    label_time = _take_label_time(draft) if label else ""
    event_id = _take_event_id(draft)
    _drop_telling(draft)
    entities = _take_entities(draft)
    categorical, numeric = _take_extras(draft)
    days = _span_days(table, time, unit)
    delay = 7.0 if days >= 28 else 1.0
    if label:
        draft.notes.append(f"labels are assumed to be known after {delay:g} days")
    if days < 14:
        draft.notes.append(f"only {days} days of data: too few to judge a model by")
    config = DatasetConfig(
        name=re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "transactions",
        time=time,
        time_unit=unit,
        time_origin=origin or "1970-01-01T00:00:00",
        amount=amount,
        amount_unit="minor" if minor else "major",
        entities=entities,
        label=label,
        label_time=label_time,
        event_id=event_id,
        numeric=numeric,
        categorical=categorical,
        label_delay_days=delay,
        split=split_for(days, delay),
    )
    return config, draft.notes


def split_for(days: int, delay_days: float) -> Split:
    """Return the shipped split where the data reach that far, else one that fits ``days``."""
    whole = Split()
    rounds = whole.folds + whole.validation_folds
    # Validation folds end where the delay of the test folds begins, and have a delay of their own.
    delays = 2 * delay_days
    if days >= whole.warmup_days + whole.train_days + delays + rounds * whole.test_days:
        return whole
    test_days = max(1, min(7, days // 14))
    warmup_days = days // 6
    train_days = int(days - warmup_days - delays - 4 * test_days)
    return Split(
        train_days=max(1, train_days),
        test_days=test_days,
        folds=2,
        validation_folds=2,
        warmup_days=warmup_days,
    )


def to_toml(config: DatasetConfig, notes: Sequence[str] = ()) -> str:
    """Write a config as TOML that ``DatasetConfig.from_toml`` reads back; notes as comments."""
    lines = [
        "# What the columns of a transaction table mean. Read every line: it was guessed from",
        "# names and contents. Check it by: penstock fraud check FILE --config THIS_FILE",
    ]
    lines += [f"# - {' '.join(note.split())}" for note in notes]
    for name in _ORDER:
        value = getattr(config, name)
        if value not in ("", ()):
            lines.append(f"{name} = {_toml(value)}")
    for entity in config.entities:
        lines += ["", "[[entities]]", f"column = {_toml(entity.column)}"]
        if entity.kind != entity.column:
            lines.append(f"kind = {_toml(entity.kind)}")
    lines += ["", "[split]"]
    for item in fields(config.split):
        value = getattr(config.split, item.name)
        if value != "":
            lines.append(f"{item.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return json.dumps(list(value), ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)


def _best(columns: Iterable[Profile], scores: dict[str, float]) -> Profile | None:
    """Return the column of the highest positive score, the first of equals."""
    good = [c for c in columns if scores.get(c.name, 0) > 0]
    return max(good, key=lambda c: scores[c.name]) if good else None


def _take_time(draft: _Draft) -> tuple[str, TimeUnit, str]:
    scores = {}
    for name, c in draft.left.items():
        named = c.has(*_TIME) or c.words in (("day",), ("hour",))
        if c.has("birth", "dob", "label", "expiry", "opened", *_FRAUD):
            continue
        if c.content == "time":
            scores[name] = 5.0 + 2 * named - 3 * c.gaps
        elif c.content == "number" and named:
            scores[name] = 2.0 + c.rising + ("time" in c.words)
    column = _best(draft.left.values(), scores)
    if column is None:
        raise ProposalError(
            "no time column found: none holds timestamps or ISO 8601 text, and no number is named "
            "like a time; rename it (for example to 'time'), or write the config by hand"
        )
    unit: TimeUnit = "auto"
    origin = ""
    if column.content == "number":
        unit, origin = _time_unit(column)
    draft.take(column, f"event time{'' if unit == 'auto' else f', in {unit}'}")
    if origin:
        draft.notes.append(f"{column.name} counts from an unknown day; {origin} is assumed")
    for other in list(draft.left.values()):
        if other.name in scores and (other.has("unix", "epoch") or not other.has("label")):
            draft.drop(other, "a second time")
    return column.name, unit, origin


def _time_unit(column: Profile) -> tuple[TimeUnit, str]:
    for size, unit in _EPOCHS:
        if size * 0.6 <= column.low and column.high <= size * 2.5:
            return unit, ""
    if column.has("step", "hour"):
        return "h", UNKNOWN_ORIGIN
    return ("d" if column.has("day", "days") else "s"), UNKNOWN_ORIGIN


def _take_amount(draft: _Draft) -> tuple[str, bool]:
    scores = {
        name: 2.0 * c.has("amount", "amt") + 1.0 - 0.1 * len(c.words) - c.gaps
        for name, c in draft.left.items()
        if c.content == "number"
        and c.has(*_AMOUNT)
        and not c.has("balance", "old", "new", "limit", "id", "mean", "avg")
    }
    column = _best(draft.left.values(), scores)
    if column is None:
        raise ProposalError(
            "no amount column found: no numeric column is named like one (amount, amt, value, "
            "price ...); rename it to 'amount', or write the config by hand"
        )
    minor = column.whole and column.has("cents", "cent", "minor", "pence")
    draft.take(column, "amount in minor units" if minor else "amount in major units")
    return column.name, minor


def _take_label(draft: _Draft) -> str:
    scores = {
        name: 3.0 * c.has(*_FRAUD) + 1.0 - 2.5 * c.has("flagged", "pred", "score")
        for name, c in draft.left.items()
        if c.content == "flag" and c.has(*_LABEL)
    }
    column = _best(draft.left.values(), scores)
    if column is None:
        draft.notes.append("no label column found: the data can be scored, not trained on")
        return ""
    draft.take(column, "label")
    return column.name


def _take_label_time(draft: _Draft) -> str:
    for column in list(draft.left.values()):
        if column.content == "time" and column.has("label", "reported", "confirmed", *_FRAUD):
            draft.take(column, "time at which the label became known")
            return column.name
    return ""


def _take_event_id(draft: _Draft) -> str:
    scores = {
        name: 1.0 + 2 * c.has(*_PAYMENT) + c.has("id")
        for name, c in draft.left.items()
        if c.unique and (c.content == "text" or c.whole) and c.has(*_EVENT) and c.rows > 1
    }
    column = _best(draft.left.values(), scores)
    if column is None:
        draft.notes.append("no unique id found: rows are numbered, duplicates cannot be told")
        return ""
    draft.take(column, "event id")
    return column.name


def _drop_telling(draft: _Draft) -> None:
    for column in list(draft.left.values()):
        balance = "balance" in "".join(column.words)
        if column.has(*_TELLING):
            draft.drop(column, "it may tell the label")
        elif balance and column.has("new", "newbalance", "after"):
            draft.drop(column, "known only after the payment")


def _take_entities(draft: _Draft) -> tuple[EntityColumn, ...]:
    pair = _pair(draft)
    if pair:
        for column in pair:
            draft.take(column, "entity of kind 'account'")
        return tuple(EntityColumn(column.name, "account") for column in pair)
    stems: dict[str, Profile] = {}  # of card1, card2 ... the one that tells most apart
    for column in draft.left.values():
        if _is_entity(column):
            stem = re.sub(r"[\d._]+$", "", column.name)
            if stem not in stems or column.distinct > stems[stem].distinct:
                stems[stem] = column
    chosen = sorted(stems.values(), key=lambda c: -c.distinct)[:MAX_ENTITIES]
    if not chosen:
        raise ProposalError(
            "no entity column found: none is named like one (customer, card, account, merchant, "
            "terminal, device ...) and repeats; rename it, or write the config by hand"
        )
    chosen.sort(key=lambda c: list(draft.left).index(c.name))
    for column in chosen:
        draft.take(column, f"entity, {column.distinct} of them")
    return tuple(EntityColumn(column.name) for column in chosen)


def _pair(draft: _Draft) -> tuple[Profile, Profile] | None:
    """Find two columns of one kind: sender and receiver, or Account and Account.1."""
    usable = [c for c in draft.left.values() if c.content == "text" or c.whole]
    usable = [c for c in usable if c.gaps <= 0.01 and c.distinct > 2]
    names = {c.name: c for c in usable}
    for column in usable:
        if f"{column.name}.1" in names:
            return column, names[f"{column.name}.1"]

    def ends(words: tuple[str, ...]) -> list[Profile]:
        found = [c for c in usable if c.has(*words) and "balance" not in "".join(c.words)]
        return sorted(found, key=lambda c: -c.distinct)

    senders, receivers = ends(_FROM), ends(_TO)
    return (senders[0], receivers[0]) if senders and receivers else None


def _is_entity(column: Profile) -> bool:
    if not (column.content == "text" or column.whole) or column.gaps > 0.01:
        return False
    known = column.has(*_ENTITY) and not column.has(*_CODE, "lat", "long", "age", "name")
    return known and column.distinct > 12 and column.rows >= 2 * column.distinct


def _take_extras(draft: _Draft) -> tuple[tuple[str, ...], tuple[str, ...]]:
    categorical: list[str] = []
    numeric: list[str] = []
    for column in list(draft.left.values()):
        code = column.has(*_CODE) and column.content == "number" and column.whole
        if column.distinct < 2:
            draft.drop(column, "it never changes")
        elif column.content == "text" or code:
            if column.distinct > MAX_CATEGORIES:
                draft.drop(column, f"{column.distinct} different values are too many categories")
            else:
                draft.take(column, "categorical")
                categorical.append(column.name)
        elif column.content in ("number", "flag"):
            if column.whole and column.has("id", "num", "zip", "postcode", "index"):
                draft.drop(column, "numbers that count nothing")
            elif len(numeric) == MAX_NUMERIC:
                draft.drop(column, f"more than {MAX_NUMERIC} numeric columns")
            else:
                draft.take(column, "numeric")
                numeric.append(column.name)
        else:
            draft.drop(column, "a second time")
    return tuple(categorical), tuple(numeric)


def _span_days(table: pa.Table, time: str, unit: TimeUnit) -> int:
    parsed = parse_times(plain_array(table.column(time)), time, unit, 0)
    bad = parsed.problems["missing"] | parsed.problems["unparsable"]
    values = parsed.values[~bad]
    return int((values.max() - values.min()) // DAY_MS) + 1 if len(values) else 0
