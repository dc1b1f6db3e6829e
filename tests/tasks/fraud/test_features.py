"""Features: hand-worked values, generic columns, extras, and both state backends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kernels.entity_state import entity_features
from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.derive import NEVER
from tasks.fraud.evaluation.protocol import DAY_MS, instant
from tasks.fraud.features import (
    FeatureError,
    FeatureSet,
    build_features,
    derive_state,
    feature_names,
    state_specs,
)
from tasks.fraud.transactions import Transactions

HOUR = 3_600_000
START = instant("2024-03-08")  # a Friday


def config(*columns: str, **changes: Any) -> DatasetConfig:
    entities = [{"column": c, "kind": "account" if c in ("from", "to") else c} for c in columns]
    data = {"name": "test", "time": "t", "amount": "a", "label": "y", "entities": entities}
    return DatasetConfig.from_dict({**data, **changes})


def transactions(
    when: list[float], amount: list[float], label: list[int], **entities: list[int]
) -> Transactions:
    """Rows at hours after the start; codes index ids "0", "1" ..."""
    time = np.array([START + round(h * HOUR) for h in when], dtype=np.int64)
    columns = {c.rstrip("_"): np.array(codes, dtype=np.int32) for c, codes in entities.items()}
    kinds = {c: "account" if c in ("from", "to") else c for c in columns}
    sizes: dict[str, int] = {}
    for c, codes in columns.items():
        sizes[kinds[c]] = max(sizes.get(kinds[c], 0), int(codes.max()) + 1)
    return Transactions(
        event_id=np.arange(len(time), dtype=np.int64),
        time=time,
        amount=np.array([round(100 * a) for a in amount], dtype=np.int64),
        label=np.array(label, dtype=np.int8),
        label_time=time + 7 * DAY_MS,
        entities=columns,
        kinds=kinds,
        index={k: np.arange(n).astype(str) for k, n in sizes.items()},
    )


def rows(features: FeatureSet) -> list[dict[str, float]]:
    return [dict(zip(features.names, r.tolist(), strict=True)) for r in features.values]


def random_bank(n: int, seed: int, *columns: str) -> Transactions:
    rng = np.random.default_rng(seed)
    return transactions(
        np.sort(rng.uniform(0, 50 * 24, n)).tolist(),
        np.round(rng.lognormal(3, 1, n), 2).tolist(),
        rng.choice([-1, 0, 1], n, p=[0.1, 0.7, 0.2]).tolist(),
        **{c: rng.integers(0, 12, n).tolist() for c in columns},
    )


def test_event_features_by_hand() -> None:
    tx = transactions([1.0, 30.5], [12.34, 5.0], [0, 0], payer=[0, 0])
    first, second = rows(build_features(tx, config("payer")))
    assert first["amount"] == pytest.approx(12.34)
    assert (first["hour"], first["night"], first["weekend"]) == (1.0, 1.0, 0.0)
    assert (second["hour"], second["night"], second["weekend"]) == (6.0, 1.0, 1.0)


def test_entity_features_by_hand() -> None:
    # Amounts 10, 20 within the week, then 60 of the same payer.
    tx = transactions([0.0, 24.0, 50.0], [10.0, 20.0, 60.0], [0, 0, 0], payer=[0, 0, 0])
    row = rows(build_features(tx, config("payer")))[2]
    assert row["payer.n_7d"] == 3.0
    assert row["payer.mean_7d"] == pytest.approx(30.0)
    assert row["payer.before_30d"] == pytest.approx(15.0)
    assert row["payer.ratio_30d"] == pytest.approx(4.0)
    assert row["payer.spread_30d"] == pytest.approx(5.0)
    assert row["payer.z_30d"] == pytest.approx(9.0)
    assert row["payer.of_max_30d"] == 1.0
    assert row["payer.gap"] == 26 * 3600.0
    assert row["payer.n_1d"] == 1.0  # the event of 26 hours ago has left the day
    assert row["payer.ratio_1d"] == row["payer.level_1d_30d"] / 4.0 == 1.0
    assert row["payer.peak_7d_30d"] == pytest.approx(4.0)
    assert row["payer.rate_7d_30d"] == pytest.approx(30 / 7)


def test_known_frauds_by_hand() -> None:
    # Frauds on day 0 and 1; asked on day 7.5 (one known), 9 (both), and legit known on 20.
    tx = transactions(
        [0.0, 24.0, 7.5 * 24, 9 * 24, 20 * 24], [9.0] * 5, [1, 1, 0, 0, 0], payer=[0] * 5
    )
    found = rows(build_features(tx, config("payer")))
    assert found[1]["payer.last_label"] == -1.0
    assert found[1]["payer.run_age"] == np.float32(NEVER)
    assert (found[2]["payer.known_30d"], found[2]["payer.frauds_30d"]) == (1.0, 1.0)
    assert found[2]["payer.since_fraud"] == 7.5 * 86_400
    assert (found[3]["payer.run_length"], found[3]["payer.run_days"]) == (2.0, 9.0)
    assert found[3]["payer.risk_30d"] == 1.0
    assert (found[4]["payer.last_label"], found[4]["payer.run_length"]) == (0.0, 0.0)
    assert found[4]["payer.risk_30d"] == pytest.approx(0.5)
    assert found[4]["payer.since_fraud"] == 19 * 86_400


def test_no_label_delay_is_legal() -> None:
    tx = transactions([0.0, 1.0], [9.0, 9.0], [1, 0], payer=[0, 0])
    tx = replace(tx, label_time=tx.time)
    found = rows(build_features(tx, config("payer", label_delay_days=0)))
    assert [r["payer.last_label"] for r in found] == [-1.0, 1.0]


@pytest.mark.parametrize("columns", [("payer",), ("payer", "shop", "device"), ("from_", "to")])
def test_every_column_gets_the_same_list(columns: tuple[str, ...]) -> None:
    tx = random_bank(200, 1, *columns)
    plain = tuple(c.rstrip("_") for c in columns)
    features = build_features(tx, config(*plain))
    fields = [{n.split(".", 1)[1] for n in features.names if n.startswith(f"{c}.")} for c in plain]
    assert all(f == fields[0] for f in fields)
    assert features.values.shape == (200, 4 + len(plain) * len(fields[0]))
    assert features.values.dtype == np.float32
    assert np.isfinite(features.values).all()


def test_two_roles_of_one_kind_keep_apart() -> None:
    tx = transactions([0.0, 1.0, 2.0], [5.0] * 3, [0] * 3, from_=[0, 0, 1], to=[1, 1, 0])
    last = rows(build_features(tx, config("from", "to")))[2]
    assert last["from.n_1d"] == 1.0  # account 1 has sent nothing before
    assert last["to.n_1d"] == 1.0  # account 0 has received nothing before


def test_reference_gives_the_same_features() -> None:
    tx = random_bank(400, 2, "payer", "shop")
    fast = build_features(tx, config("payer", "shop"))
    slow = build_features(tx, config("payer", "shop"), backend="reference")
    assert fast.names == slow.names
    assert np.allclose(fast.values, slow.values, rtol=1e-6)


def test_one_row_derives_as_in_the_batch() -> None:
    tx = random_bank(300, 3, "payer", "shop")
    settings = config("payer", "shop")
    features = build_features(tx, settings)
    for column, spec in state_specs(settings).items():  # each column is a kind of its own here
        block, _ = entity_features(
            tx.time, tx.event_id, tx.amount, tx.label, tx.label_time, tx.entities[column][:, None],
            spec=spec, n_entities=len(tx.index[column]),
        )  # fmt: skip
        state = block[:, 0]
        start = features.names.index(f"{column}.n_1d")
        for i in (0, 150, 299):
            one = derive_state(state[i : i + 1], tx.amount[i : i + 1], tx.time[i : i + 1], settings)
            assert np.array_equal(
                one.astype(np.float32)[0], features.values[i, start : start + one.shape[1]]
            )


def test_decimals_scale_amounts() -> None:
    tx = transactions([0.0, 1.0], [1.0, 3.0], [0, 0], payer=[0, 0])
    row = rows(build_features(tx, config("payer", decimals=0)))[1]
    assert row["amount"] == 300.0
    assert row["payer.ratio_1d"] == pytest.approx(3.0)


# Extra columns -------------------------------------------------------------------------------


def with_extras(values: list[str], codes: list[int]) -> Transactions:
    tx = transactions([0.0, 1.0, 2.0], [5.0] * 3, [0] * 3, payer=[0, 0, 0])
    return replace(
        tx,
        numeric={"age": np.array([30.0, np.nan, np.inf])},
        categorical={"channel": np.array(codes, dtype=np.int32)},
        categories={"channel": np.array(values)},
    )


EXTRA = config("payer", numeric=["age"], categorical=["channel"])


def test_extras_and_their_missing_values() -> None:
    features = build_features(with_extras(["app", "web"], [1, -1, 0]), EXTRA)
    assert features.names[-4:] == ("age", "age_missing", "channel=app", "channel=web")
    assert features.values[:, -4:].tolist() == [[30, 0, 0, 1], [0, 1, 0, 0], [0, 1, 1, 0]]


def test_categories_keep_their_place_in_other_data() -> None:
    model = build_features(with_extras(["app", "web"], [0, 1, 0]), EXTRA)
    other = build_features(
        with_extras(["phone", "web"], [0, 1, -1]), EXTRA, categories=model.categories
    )
    assert other.names == model.names
    assert other.column("channel=web").tolist() == [0.0, 1.0, 0.0]
    assert other.column("channel=app").tolist() == [0.0, 0.0, 0.0]


def test_many_categories_become_one_code() -> None:
    values = [f"v{i:02d}" for i in range(30)]
    features = build_features(with_extras(values, [4, -1, 29]), EXTRA)
    assert features.names[-1] == "channel"
    assert features.values[:, -1].tolist() == [4.0, -1.0, 29.0]


def test_columns_named_like_a_feature_are_refused() -> None:
    with pytest.raises(FeatureError, match="'hour' has the name of another feature"):
        feature_names(config("payer", numeric=["hour"]), {})


def test_select_orders_and_names_what_is_absent() -> None:
    features = build_features(random_bank(20, 4, "payer"), config("payer"))
    assert features.select(features.names) is features.values
    chosen = features.select(("hour", "amount"))
    assert np.array_equal(chosen[:, 1], features.column("amount"))
    with pytest.raises(FeatureError, match=r"no feature 'shop\.n_1d'"):
        features.select(("shop.n_1d",))


def test_no_rows_give_no_features() -> None:
    features = build_features(random_bank(20, 5, "payer").take(slice(0, 0)), config("payer"))
    assert features.values.shape[0] == 0
