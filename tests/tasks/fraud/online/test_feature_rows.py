"""Features of rows as they come are those of the batch, bit for bit, extra columns included."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from kernels.entity_state import entity_features
from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.features import build_features, state_specs
from tasks.fraud.ingest.checks import check
from tasks.fraud.online.feature_rows import FeatureRows
from tasks.fraud.online.rows import OnlineRows

N = 400
CONFIG = DatasetConfig(
    "mixed",
    "t",
    "amount",
    (EntityColumn("payer", "account"), EntityColumn("payee", "account"), EntityColumn("shop")),
    label="fraud",
    event_id="id",
    numeric=("speed", "age"),
    categorical=("channel", "city"),
    time_unit="ms",
    label_delay_days=1,
)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(5)
    speed = rng.normal(size=N)
    speed[::7] = np.nan
    table = pa.table(
        {
            "id": np.arange(N),
            "t": 1_600_000_000_000 + np.sort(rng.integers(0, 40 * 86_400_000, N)),
            "amount": rng.integers(1, 90_000, N) / 100,
            "payer": rng.integers(0, 9, N),
            "payee": rng.integers(0, 9, N),
            "shop": rng.integers(0, 5, N),
            "fraud": rng.random(N) < 0.2,
            "speed": pa.array(speed),
            "age": pa.array(rng.integers(0, 90, N)),
            "channel": pa.array([("web", "till", None)[i % 3] for i in range(N)]),
            "city": pa.array([f"c{i}" for i in rng.integers(0, 30, N)]),
        }
    )
    tx = check(table, CONFIG, "made").transactions
    return tx, build_features(tx, CONFIG)


def rows_of(tx, part):
    slices = []
    for kind, columns in CONFIG.kinds.items():
        found, _ = entity_features(
            tx.time,
            tx.event_id,
            tx.amount,
            tx.label,
            tx.label_time,
            np.stack([tx.entities[c] for c in columns], axis=1),
            spec=state_specs(CONFIG)[kind],
            n_entities=len(tx.index[kind]),
        )
        slices += [found[:, role] for role in range(len(columns))]
    raw = np.stack(slices, axis=1)
    return OnlineRows(
        tx.time[part],
        tx.amount[part],
        raw[part],
        np.stack([tx.numeric[c][part] for c in CONFIG.numeric], axis=1),
        [
            [None if code < 0 else str(tx.categories[c][code]) for code in tx.categorical[c][part]]
            for c in CONFIG.categorical
        ],
    )


@pytest.mark.parametrize("size", [1, 7, N])
def test_rows_equal_the_batch(batch, size):
    tx, features = batch
    make = FeatureRows(CONFIG, features.categories)
    assert make.names == features.names
    for start in range(0, N, max(size, N // 8)):
        part = slice(start, start + size)
        np.testing.assert_array_equal(make(rows_of(tx, part)), features.values[part])


def test_values_the_model_does_not_know_are_missing(batch):
    tx, features = batch
    categories = {**features.categories, "channel": ("till",)}
    make = FeatureRows(CONFIG, categories)
    found = make(rows_of(tx, slice(0, 6)))
    place = make.names.index("channel=till")
    assert found[:, place].tolist() == [float(i % 3 == 1) for i in range(6)]
