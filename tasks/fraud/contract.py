"""What transactions must look like, as a contract of the cleaning engine.

``transaction_contract`` compiles a dataset config; ``with_own_lines`` adds what a person knows.
Lines speak of cells as they are read, not as they are spelled: times in UTC, amounts as numbers in
the unit of the file, labels as 0 and 1, ids without blanks around. The future is no line of it: it
moves with the clock (``until``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.cleaning.contract.model import ColumnContract, Contract, ContractError
from tasks.cleaning.contract.rules import RowRule, row_rules
from tasks.cleaning.contract.typed import instant
from tasks.cleaning.quarantine import Rule
from tasks.cleaning.sensors.model import SensorRules
from tasks.cleaning.transactions.model import TransactionRules
from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.ingest.parsing import MAX_AMOUNT

VERSION = "fraud-checks/1"

_EXPECTED = {
    "missing-time": "a time",
    "unparsable-time": "a time as the config describes it",
    "impossible-time": "a time between 'earliest' and now",
    "missing-amount": "an amount",
    "unparsable-amount": "a number",
    "infinite-amount": "a finite number",
    "overflow-amount": f"at most {MAX_AMOUNT} minor units",
    "negative-amount": "zero or more",
    "fractional-amount": "whole minor units",
    "missing-entity": "an id",
    "missing-id": "an id",
    "invalid-id": "a whole number of 64 bits, or text",
    "invalid-label": "0, 1, true, false or null",
    "unparsable-label-time": "a time as the config describes it",
    "impossible-label-time": "a time between 'earliest' and now",
    "duplicate-of": "an id that occurs once",
}
RULES = {
    name: Rule(
        name,
        expected,
        severity="warning" if name == "duplicate-of" else "error",
        detector_version=VERSION,
    )
    for name, expected in _EXPECTED.items()
}
"""The rules of the schema by the names under which rows are set aside."""

Names = tuple[tuple[str, str], ...]
"""Names of a rule, each with the fault that tells it from the others, "" for any other fault."""

_TIME: Mapping[str, Names] = {
    "nullable": (("", "missing-{}"),),
    "kind": (("unparsable", "unparsable-{}"), ("", "impossible-{}")),
    "minimum": (("", "impossible-{}"),),
    "maximum": (("", "impossible-{}"),),
}
_AMOUNT: Mapping[str, Names] = {
    "nullable": (("", "missing-amount"),),
    "kind": (
        ("unparsable", "unparsable-amount"),
        ("infinite", "infinite-amount"),
        ("", "fractional-amount"),
    ),
    "minimum": (("overflow", "overflow-amount"), ("", "negative-amount")),
    "maximum": (("", "overflow-amount"),),
}
_ENTITY: Mapping[str, Names] = {"nullable": (("", "missing-entity"),)}
_LABEL: Mapping[str, Names] = {
    "kind": (("", "invalid-label"),),
    "domain": (("", "invalid-label"),),
}
_ID: Mapping[str, Names] = {
    "nullable": (("", "missing-id"),),
    "kind": (("", "invalid-id"),),
    "unique": (("", "duplicate-of"),),
}

_OWN_LINES = ("name", "version", "columns", "denials", "keys", "extra_columns", "min_rows",
              "max_rows", "max_quarantine_share")  # fmt: skip
_OWN_COLUMN_LINES = ("kind", "nullable", "unique", "pattern", "domain", "minimum", "maximum",
                     "max_length", "unit", "confidence")  # fmt: skip


def transaction_contract(config: DatasetConfig) -> Contract:
    """Compile a dataset config into the contract that its tables are held against.

    Extra columns may hold anything: a value that is no number counts as missing there, and no row
    is set aside for it.

    >>> from tasks.fraud.dataset import EntityColumn
    >>> config = DatasetConfig("shop", "when", "paid", (EntityColumn("buyer"),), event_id="id")
    >>> [rule.name for rule in row_rules(transaction_contract(config))][:4]
    ['nullable:when', 'kind:when', 'minimum:when', 'nullable:paid']
    """
    earliest = datetime(1970, 1, 1) + timedelta(milliseconds=config.earliest_ms)  # noqa: DTZ001 - UTC
    time = ColumnContract(kind="datetime", nullable=False, minimum=earliest.isoformat())
    major = config.amount_unit == "major"
    columns = {
        config.time: time,
        config.amount: ColumnContract(
            kind="decimal" if major else "integer",
            nullable=False,
            minimum=0,
            maximum=MAX_AMOUNT / 10**config.decimals if major else MAX_AMOUNT,
        ),
    }
    columns |= {entity.column: ColumnContract(nullable=False) for entity in config.entities}
    if config.label:
        columns[config.label] = ColumnContract(kind="integer", domain=("0", "1"))
    if config.label_time:
        columns[config.label_time] = replace(time, nullable=True)
    columns |= {name: ColumnContract() for name in (*config.numeric, *config.categorical)}
    if config.event_id:
        columns[config.event_id] = ColumnContract(nullable=False, unique=True)
    return Contract(
        name=config.name,
        columns=columns,
        extra_columns=True,
        max_quarantine_share=config.max_quarantine_share,
    )


def contract_of(config: DatasetConfig, own: Contract | None = None) -> Contract:
    """Return the contract of a dataset config, with the lines that a person adds.

    Raises:
        ContractError: As ``with_own_lines``.
    """
    schema = transaction_contract(config)
    if own is None:
        return schema
    try:
        return with_own_lines(schema, own)
    except ContractError as error:
        raise ContractError(f"contract {own.name!r}: {error}") from None


def rule_names(config: DatasetConfig) -> dict[str, Names]:
    """Return what the rules of ``transaction_contract`` are called in the quarantine.

    Returns:
        Rule of the engine (``minimum:paid``) -> faults and names (``negative-amount``).
    """
    roles: dict[str, tuple[str, Mapping[str, Names]]] = {
        config.time: ("time", _TIME),
        config.amount: ("", _AMOUNT),
    }
    roles |= {entity.column: ("", _ENTITY) for entity in config.entities}
    if config.label:
        roles[config.label] = ("", _LABEL)
    if config.label_time:
        # It may be missing: then the delay alone rules.
        lines = {line: names for line, names in _TIME.items() if line != "nullable"}
        roles[config.label_time] = ("label-time", lines)
    if config.event_id:
        roles[config.event_id] = ("", _ID)
    return {
        f"{line}:{column}": tuple((fault, name.format(what)) for fault, name in names)
        for column, (what, lines) in roles.items()
        for line, names in lines.items()
    }


def until(contract: Contract, config: DatasetConfig, now: datetime) -> Contract:
    """Return the contract with the bound on times to come, ``max_future_days`` from now."""
    latest = now.astimezone(UTC) + timedelta(days=config.max_future_days)
    # To the millisecond, as times are kept.
    bound = latest.replace(tzinfo=None).isoformat(timespec="milliseconds")
    names = [name for name in (config.time, config.label_time) if name]
    columns = {name: replace(contract.columns[name], maximum=bound) for name in names}
    return replace(contract, columns={**contract.columns, **columns})


def own_rules(contract: Contract, schema: Contract) -> list[RowRule]:
    """Return the rules of a contract that its schema does not have."""
    said = {(rule.name, rule.expected) for rule in row_rules(schema)}
    return [rule for rule in row_rules(contract) if (rule.name, rule.expected) not in said]


def with_own_lines(schema: Contract, own: Contract) -> Contract:
    """Return a contract that asks for what the schema asks for and for what a person adds.

    Lines named in ``confidence`` were inferred, nobody vouches for them: they are left out.

    Args:
        schema: Of ``transaction_contract``.
        own: Lines that make it stricter; columns that the schema has not are those of the file.

    Raises:
        ContractError: For a line that would let pass what the schema refuses, and for one that
            is no check (repairs are not done here).
    """
    _require_checks("", own, _OWN_LINES)
    columns = dict(schema.columns)
    for name, given in own.columns.items():
        _require_checks(f"column {name!r}: ", given, _OWN_COLUMN_LINES)
        said = _declared(given)
        columns[name] = _stricter(name, columns[name], said) if name in columns else said
    share = _tighter(
        "", "max_quarantine_share", schema.max_quarantine_share,
        None if own.max_quarantine_share == 1.0 else own.max_quarantine_share, least=False,
    )  # fmt: skip
    return replace(
        schema,
        version=own.version,
        columns=columns,
        denials=own.denials,
        keys=own.keys,
        min_rows=own.min_rows,
        max_rows=own.max_rows,
        max_quarantine_share=share,
    )


def _require_checks(where: str, given: Contract | ColumnContract, honoured: Iterable[str]) -> None:
    """Refuse lines that this job would have to pass over in silence."""
    kind = type(given)
    inferred = given.confidence if isinstance(given, ColumnContract) else {}
    for field in fields(kind):
        if field.name in honoured or field.name in inferred:
            continue
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        value = getattr(given, field.name)
        if field.name == "dependencies":
            value = tuple(one for one in value if one.declared)
        elif field.name in {"sensors", "transactions"}:
            value = tuple(one for one in value if not _is_inferred(one))
        if value != default:
            raise ContractError(
                f"{where}{field.name} is no check of single rows and would do nothing here; take "
                "it out, or clean the file by 'penstock clean run' first"
            )


def _is_inferred(one: SensorRules | TransactionRules) -> bool:
    """Tell whether nobody vouches for any line, but for those that say what is measured."""
    about = {"column", "time", "group", "resolution", "confidence"}
    return bool(one.confidence) and all(
        f.name in about or f.name in one.confidence or getattr(one, f.name) == f.default
        for f in fields(one)
    )


def _declared(column: ColumnContract) -> ColumnContract:
    """Return a column without what was inferred or belongs to repair."""
    return ColumnContract(
        **{
            name: getattr(column, name)
            for name in _OWN_COLUMN_LINES
            if name != "confidence" and name not in column.confidence
        }
    )


def _stricter(name: str, schema: ColumnContract, own: ColumnContract) -> ColumnContract:
    """Return a column that meets both."""
    where = f"column {name!r}: "
    kind = schema.kind if own.kind == "text" else own.kind  # bounds are of the same kind, then
    if kind != schema.kind and (schema.kind, kind) not in {("text", kind), ("decimal", "integer")}:
        raise ContractError(
            f"{where}kind is {schema.kind!r} by the dataset config, not {kind!r}; give that one"
        )
    if own.domain and schema.domain and not set(own.domain) <= set(schema.domain):
        wider = sorted(set(own.domain) - set(schema.domain))
        raise ContractError(
            f"{where}domain may only get smaller; {', '.join(wider)} is not in it, take it out"
        )
    return ColumnContract(
        kind=kind,
        nullable=schema.nullable and own.nullable,
        unique=schema.unique or own.unique,
        pattern=own.pattern,
        domain=own.domain or schema.domain,
        minimum=_tighter(where, "minimum", schema.minimum, own.minimum, least=True),
        maximum=_tighter(where, "maximum", schema.maximum, own.maximum, least=False),
        max_length=own.max_length,
        unit=own.unit,
    )


def _tighter(where: str, line: str, schema: Any, own: Any, *, least: bool) -> Any:
    """Return a person's bound, or the schema's where they give none."""
    if own is None or schema is None:
        return schema if own is None else own
    ours, theirs = (instant(b) if isinstance(b, str) else b for b in (schema, own))
    if theirs < ours if least else theirs > ours:
        raise ContractError(
            f"{where}{line} {own!r} would let pass what {schema!r} refuses; own lines only make "
            "it stricter: mend it, or change the dataset config"
        )
    return own
