"""The plan: which folds the data carry, and what they may learn from."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.fraud.dataset import DatasetConfig, EntityColumn, Split
from tasks.fraud.evaluation.plan import Plan, make_plan
from tasks.fraud.evaluation.protocol import DAY_MS, ProtocolError
from tasks.fraud.transactions import Transactions


def history(days: int) -> Transactions:
    """Ten rows a day, one of them a fraud, known after seven days."""
    n = 10 * days
    time = np.arange(n, dtype=np.int64) * (DAY_MS // 10)
    return Transactions(
        event_id=np.arange(n, dtype=np.int64),
        time=time,
        amount=np.ones(n, np.int64),
        label=(np.arange(n) % 10 == 0).astype(np.int8),
        label_time=time + 7 * DAY_MS,
        entities={"payer": np.arange(n, dtype=np.int32)},
        kinds={"payer": "payer"},
        index={"payer": np.arange(n).astype(str)},
    )


def config(**split: int) -> DatasetConfig:
    return DatasetConfig(
        "plan", "t", "a", (EntityColumn("payer"),), label="y", split=Split(**split)
    )


def test_warm_up_days_only_fill_the_state() -> None:
    tx = history(70)
    plan = make_plan(tx, config(train_days=45, folds=2, validation_folds=1, warmup_days=20))
    assert len(plan.test) == 2
    starts = [fold.train_start // DAY_MS for fold in (*plan.test, *plan.validation)]
    assert starts == [20, 20, 20]
    for fold in plan.test:
        assert tx.time[fold.train_rows(tx)].min() >= 20 * DAY_MS
    assert Plan.from_dict(plan.to_dict()) == plan


def test_folds_that_do_not_fit_are_left_out_and_told() -> None:
    plan = make_plan(
        history(60), config(train_days=45, folds=4, validation_folds=4, warmup_days=20)
    )
    assert (len(plan.test), len(plan.validation)) == (3, 0)
    assert "3 of 4 test folds fit the data" in plan.notes[0]


def test_too_few_days_say_how_many_are_needed() -> None:
    with pytest.raises(ProtocolError, match="at least 41 days"):
        make_plan(history(30), config(warmup_days=20))
