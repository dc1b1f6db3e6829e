"""Which folds a data set can carry: the config's wish, cut to the days there are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.fraud.evaluation.protocol import (
    DAY_MS,
    Fold,
    Protocol,
    ProtocolError,
    folds,
    instant,
    judged_rows,
    newest_test_start,
    protocol_for,
    validation_folds,
)

if TYPE_CHECKING:
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.transactions import Transactions

MIN_TRAIN_DAYS = 7


@dataclass(frozen=True, slots=True)
class Plan:
    """The cuts of one training run.

    Attributes:
        protocol: How folds are judged.
        test: Test folds, newest first; the shipped model is that of fold 0.
        validation: Folds on which the head is chosen, newest first; may be empty.
        notes: What was cut, in words.
    """

    protocol: Protocol
    test: tuple[Fold, ...]
    validation: tuple[Fold, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Plan:
        """Read what ``to_dict`` wrote."""
        return cls(
            protocol=Protocol(**data["protocol"]),
            test=tuple(Fold(**f) for f in data["test"]),
            validation=tuple(Fold(**f) for f in data["validation"]),
            notes=tuple(data["notes"]),
        )


def make_plan(tx: Transactions, config: DatasetConfig, *, protocol: Protocol | None = None) -> Plan:
    """Lay the folds of a config over the data and drop those that do not fit.

    A fold fits when at least a week (or the whole of a shorter training window) lies after the
    warm-up and both classes appear in training and test.

    Raises:
        ProtocolError: When not even the newest test fold fits; says what to change.
    """
    rules = protocol or protocol_for(config)
    split = config.split
    start = (
        instant(split.test_start) if split.test_start else newest_test_start(tx, rules.test_days)
    )
    first = int(tx.time[0]) + split.warmup_days * DAY_MS
    wanted = folds(start, split.folds, rules)
    test = _fitting(tx, wanted, first, rules)
    if not test or test[0].index != 0:
        need = split.warmup_days + min(MIN_TRAIN_DAYS, rules.train_days)
        need += rules.delay_days + rules.test_days
        raise ProtocolError(
            f"test window {wanted[0].describe()} cannot be judged: it and the training days before "
            f"it must both hold frauds and legitimate rows, which takes at least {need} days "
            "(warm-up, training, delay, test). Bring more days, lower split.warmup_days, "
            "split.train_days or split.test_days, or set split.test_start"
        )
    notes = []
    if len(test) < len(wanted):
        notes.append(f"{len(test)} of {len(wanted)} test folds fit the data")
    asked = validation_folds(start, len(test), split.validation_folds, rules)
    validation = _fitting(tx, asked, first, rules)
    if len(validation) < len(asked):
        notes.append(f"{len(validation)} of {len(asked)} validation folds fit the data")
    return Plan(rules, test, validation, tuple(notes))


def _fitting(
    tx: Transactions, wanted: tuple[Fold, ...], first: int, rules: Protocol
) -> tuple[Fold, ...]:
    """Return the leading folds that can be trained and judged, without the warm-up days."""
    shortest = min(MIN_TRAIN_DAYS, rules.train_days) * DAY_MS
    kept = []
    for whole in wanted:
        fold = replace(whole, train_start=max(whole.train_start, first))
        train = fold.train_rows(tx)
        long_enough = fold.train_end - fold.train_start >= shortest
        judged = judged_rows(tx, fold, rules.entity)
        if not (long_enough and _both(tx.label[train]) and _both(tx.label[judged])):
            break
        kept.append(fold)
    return tuple(kept)


def _both(label: np.ndarray[Any, np.dtype[np.int8]]) -> bool:
    return bool((label == 1).any() and (label == 0).any())
