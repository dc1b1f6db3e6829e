"""The evaluator: hand-worked cases, and the golden values of the public handbook folds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.evaluation.metrics import (
    average_precision,
    entity_precision,
    precision_recall_curve,
    recall_at_fpr,
    roc_auc,
)
from tasks.fraud.evaluation.protocol import (
    DAY_MS,
    FoldResult,
    Protocol,
    ProtocolError,
    evaluate_fold,
    folds,
    instant,
    iso_day,
    judged_rows,
    newest_test_start,
    protocol_for,
    summarise,
    validation_folds,
)
from tasks.fraud.transactions import Transactions

DATASETS = Path(__file__).resolve().parents[4] / "tasks" / "fraud" / "datasets"


def transactions(day: list[float], entity: list[int], label: list[int]) -> Transactions:
    """Rows of one entity column at the given days, amounts 1, 2, 3 ..."""
    time = np.array([round(d * DAY_MS) for d in day], dtype=np.int64)
    n = len(time)
    return Transactions(
        event_id=np.arange(n, dtype=np.int64),
        time=time,
        amount=np.arange(1, n + 1, dtype=np.int64),
        label=np.array(label, dtype=np.int8),
        label_time=time + 7 * DAY_MS,
        entities={"payer": np.array(entity, dtype=np.int32)},
        kinds={"payer": "payer"},
        index={"payer": np.array([str(i) for i in range(max(entity, default=0) + 1)])},
    )


# Metrics -------------------------------------------------------------------------------------


def test_average_precision_by_hand() -> None:
    # Ranked: fraud, legit, fraud -> (1/1 + 2/3) / 2.
    assert average_precision([1, 0, 1], [0.9, 0.8, 0.7]) == pytest.approx(5 / 6)
    # Ties share one threshold: precision 1/2 for both orders.
    assert average_precision([1, 0], [0.5, 0.5]) == pytest.approx(0.5)


def test_metrics_equal_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(3)
    label = rng.random(4000) < 0.05
    score = np.round(label * 0.3 + rng.random(4000), 2)  # rounding makes ties
    assert average_precision(label, score) == pytest.approx(
        average_precision_score(label, score), abs=1e-12
    )
    assert roc_auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_weights_count_rows() -> None:
    rng = np.random.default_rng(4)
    label = (rng.random(300) < 0.2).astype(int)
    score = np.round(rng.random(300), 1)
    weight = rng.integers(0, 4, 300)
    repeated = np.repeat(np.arange(300), weight)
    assert average_precision(label, score, weight) == pytest.approx(
        average_precision(label[repeated], score[repeated])
    )
    assert roc_auc(label, score, weight) == pytest.approx(roc_auc(label[repeated], score[repeated]))


def test_one_class_gives_nan() -> None:
    assert np.isnan(average_precision([0, 0], [0.1, 0.2]))
    assert np.isnan(average_precision([], []))
    assert np.isnan(roc_auc([1, 1], [0.1, 0.2]))
    assert np.isnan(roc_auc([], []))
    assert np.isnan(recall_at_fpr([0, 0], [0.1, 0.2]))


def test_nan_scores_and_odd_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        average_precision([0, 1], [0.1, float("nan")])
    with pytest.raises(ValueError, match="one length"):
        roc_auc([0, 1], [0.1])


def test_recall_counts_strictly_above_the_quantile() -> None:
    legit = np.arange(101, dtype=float)  # 99th percentile: exactly 99
    score = np.concatenate([legit, [99.0, 99.5, 200.0]])
    label = np.concatenate([np.zeros(101), np.ones(3)])
    assert recall_at_fpr(label, score) == pytest.approx(2 / 3)


def test_entity_precision_catches_once_and_breaks_ties_low() -> None:
    day = [0, 0, 0, 1, 1, 1]
    entity = [5, 6, 7, 5, 6, 7]
    label = [1, 0, 0, 1, 1, 0]
    score = [0.9, 0.1, 0.2, 0.99, 0.5, 0.5]
    # Day 0: 5 is caught. Day 1: 5 is gone; 6 and 7 tie, 6 goes first and is a hit.
    assert entity_precision(day, entity, label, score, k=1).tolist() == [1.0, 1.0]


def test_entity_hit_needs_any_fraud_of_the_day() -> None:
    precision = entity_precision([0, 0, 0], [1, 1, 2], [0, 1, 0], [0.9, 0.1, 0.5], k=2)
    assert precision.tolist() == [0.5]


def test_precision_recall_curve_ends_at_full_recall() -> None:
    precision, recall, threshold = precision_recall_curve([1, 0, 1], [0.9, 0.8, 0.7])
    assert precision.tolist() == pytest.approx([1.0, 0.5, 2 / 3])
    assert recall.tolist() == [0.5, 0.5, 1.0]
    assert threshold.tolist() == [0.9, 0.8, 0.7]
    assert precision_recall_curve([0], [0.1])[1].tolist() == [0.0]


# Folds ---------------------------------------------------------------------------------------


def test_fold_dates_of_the_handbook() -> None:
    cuts = folds("2018-08-29", 4)
    assert [iso_day(c.train_start) for c in cuts] == [
        "2018-08-15",
        "2018-08-08",
        "2018-08-01",
        "2018-07-25",
    ]
    assert [c.describe() for c in cuts][3] == "2018-08-08..2018-08-14"
    assert iso_day(cuts[0].train_end) == "2018-08-22"
    validation = validation_folds("2018-08-29", 4, 4)
    assert iso_day(validation[0].train_start) == "2018-07-11"
    assert iso_day(validation[0].test_start) == "2018-07-25"
    assert iso_day(validation[3].test_start) == "2018-07-04"


def test_longer_training_keeps_end_and_known_window() -> None:
    short = folds("2018-08-29", 1)[0]
    long = folds("2018-08-29", 1, Protocol(train_days=45))[0]
    assert long.train_end == short.train_end
    assert long.known_start == short.known_start
    assert long.train_start == long.train_end - 45 * DAY_MS


def test_validation_labels_are_known_before_the_test_folds() -> None:
    rules = Protocol(train_days=45, test_days=21)
    test = folds("2018-07-02", 1, rules)[0]
    validation = validation_folds("2018-07-02", 1, 1, rules)[0]
    assert validation.test_end + rules.delay_days * DAY_MS <= test.test_start


def test_shipped_configs_imply_their_protocol() -> None:
    cards = protocol_for(DatasetConfig.from_toml(DATASETS / "handbook.toml"))
    assert (cards.entity, cards.train_days, cards.delay_days) == ("customer", 45, 7)
    transfers = protocol_for(DatasetConfig.from_toml(DATASETS / "transfers.toml"), train_days=30)
    assert (transfers.name, transfers.entity, transfers.train_days) == ("time-split", "", 30)


def test_known_entities_leave_day_by_day() -> None:
    # Fold: train days 0..6, delay 7..13, test 14..20. Payer 0 fell in training, payer 1 on day 8
    # (known from test day 15 + ... = day 16 on: 16 - 8 = 8), payer 2 on day 14 (known after).
    fold = folds(14 * DAY_MS, 1)[0]
    day = [3.5, 8.5, 14.5, 14.6, 14.7, 15.5, 16.5, 20.5]
    entity = [0, 1, 2, 0, 1, 1, 1, 2]
    label = [1, 1, 1, 0, 0, 0, 0, 0]
    tx = transactions(day, entity, label)
    assert judged_rows(tx, fold, "payer").tolist() == [2, 4, 5, 7]
    assert judged_rows(tx, fold).tolist() == [2, 3, 4, 5, 6, 7]


def test_frauds_before_the_training_week_do_not_make_known() -> None:
    fold = folds(30 * DAY_MS, 1, Protocol(train_days=20))[0]
    tx = transactions([10.0, 30.5], [0, 0], [1, 0])
    assert judged_rows(tx, fold, "payer").tolist() == [1]


def test_a_label_counts_from_when_it_became_known() -> None:
    # Payer 0 fell on day 3, but that became known on day 16 only; payer 1's label came in time.
    fold = folds(14 * DAY_MS, 1)[0]
    tx = transactions([3.5, 3.6, 14.5, 16.5, 17.5, 14.6], [0, 1, 0, 0, 0, 1], [1, 1, 0, 0, 0, 0])
    late = replace(tx, label_time=np.maximum(tx.label_time, [16 * DAY_MS + 1, 0, 0, 0, 0, 0]))
    assert fold.train_rows(tx).tolist() == [0, 1]
    assert fold.train_rows(late).tolist() == [1]
    assert judged_rows(tx, fold, "payer").tolist() == []
    assert judged_rows(late, fold, "payer").tolist() == [2, 3]


def test_days_of_the_delay_are_told_labelled_or_not() -> None:
    fold = folds(14 * DAY_MS, 1)[0]
    tx = transactions([6.9, 7.0, 13.9, 14.0], [0, 0, 0, 0], [0, -1, 1, 0])
    assert fold.delay_rows(tx).tolist() == [1, 2]


def test_unlabelled_rows_are_not_judged() -> None:
    fold = folds(14 * DAY_MS, 1)[0]
    tx = transactions([14.1, 14.2, 14.3], [0, 1, 2], [1, 0, -1])
    result = evaluate_fold(tx, fold, np.array([0.9, 0.1, 0.95]), Protocol(entity="payer", top_k=1))
    assert (result.rows, result.frauds, result.ap, result.cp) == (2, 1, 1.0, 1.0)
    assert result.cp_days == (1.0,)


def test_time_split_has_no_entity_precision() -> None:
    fold = folds(14 * DAY_MS, 1)[0]
    tx = transactions([14.1, 14.2], [0, 1], [1, 0])
    result = evaluate_fold(tx, fold, np.array([0.9, 0.1]), Protocol(name="time-split"))
    assert np.isnan(result.cp)
    assert result.to_dict()["auc"] == 1.0


def test_entity_numbers_order_ties_not_codes() -> None:
    # Code 0 is id "10", code 1 is id "9": by number 9 goes first, by text it would not.
    fold = folds(14 * DAY_MS, 1)[0]
    tx = transactions([14.1, 14.2], [0, 1], [0, 1])
    numbered = Transactions(
        **{f: getattr(tx, f) for f in tx.__slots__ if f != "index"},
        index={"payer": np.array(["10", "9"])},
    )
    rules = Protocol(entity="payer", top_k=1)
    assert evaluate_fold(numbered, fold, np.zeros(2), rules).cp == 1.0
    named = Transactions(
        **{f: getattr(tx, f) for f in tx.__slots__ if f != "index"},
        index={"payer": np.array(["a", "b"])},
    )
    assert evaluate_fold(named, fold, np.zeros(2), rules).cp == 0.0


def test_newest_test_start_ends_after_the_last_label() -> None:
    tx = transactions([1.0, 20.4, 25.0], [0, 0, 0], [0, 1, -1])
    assert newest_test_start(tx, 7) == 14 * DAY_MS
    with pytest.raises(ProtocolError, match="no labelled rows"):
        newest_test_start(transactions([1.0], [0], [-1]), 7)


def test_wrong_input_is_named() -> None:
    fold = folds(14 * DAY_MS, 1)[0]
    tx = transactions([14.1, 14.2], [0, 1], [0, 0])
    with pytest.raises(ProtocolError, match="both classes"):
        evaluate_fold(tx, fold, np.zeros(2), Protocol())
    with pytest.raises(ProtocolError, match="3 scores for 2 transactions"):
        evaluate_fold(tx, fold, np.zeros(3), Protocol())
    with pytest.raises(ProtocolError, match="1 scores for 2 judged"):
        evaluate_fold(tx, fold, np.zeros(1), Protocol(), rows=np.arange(2))
    with pytest.raises(ProtocolError, match="'shop' is not among"):
        judged_rows(tx, fold, "shop")
    with pytest.raises(ProtocolError, match="ISO date"):
        instant("29.8.2018")
    with pytest.raises(ProtocolError, match="at least one fold"):
        folds("2018-08-29", 0)
    with pytest.raises(ProtocolError, match="train_days"):
        Protocol(train_days=0)
    with pytest.raises(ProtocolError, match="delay_days"):
        Protocol(delay_days=-1)
    with pytest.raises(ProtocolError, match="alarm_ap"):
        Protocol(alarm_ap=1.5)
    with pytest.raises(ProtocolError, match="no fold results"):
        summarise([])


def test_summary_uses_population_std() -> None:
    results = [FoldResult(0, "", 2, 1, ap, 0.5, 0.5, 0.5, ()) for ap in (0.6, 0.8)]
    summary = summarise(results)
    assert summary["ap"] == pytest.approx(0.7)
    assert summary["ap_std"] == pytest.approx(0.1)


# Golden values -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def handbook(data_folder: Path) -> Transactions:
    """The public stream, read without the project's checks."""
    import pyarrow.parquet as pq

    files = sorted((data_folder / "fraud").glob("handbook_dev_*.parquet"))
    if not files:
        pytest.skip("the handbook file is absent from the data folder")
    read = pq.read_table(files[0])
    table = {c: read.column(c).to_numpy() for c in read.column_names}
    time = table["t"].astype(np.int64) * 1000 + instant("2018-04-01")
    return Transactions(
        event_id=table["tx_id"].astype(np.int64),
        time=time,
        amount=table["amount_cents"].astype(np.int64),
        label=table["fraud"].astype(np.int8),
        label_time=time + 7 * DAY_MS,
        entities={c: table[c].astype(np.int32) for c in ("customer", "terminal")},
        kinds={"customer": "customer", "terminal": "terminal"},
        index={c: np.arange(table[c].max() + 1).astype(str) for c in ("customer", "terminal")},
    )


GOLDEN = [
    (67_049, 594, 57_604, 422, 0.4514, (0.6282, 0.2145, 0.0914, 0.2275)),
    (67_080, 568, 58_337, 408, 0.4200, (0.6438, 0.2623, 0.0971, 0.2672)),
    (66_975, 626, 57_937, 387, 0.4086, (0.6334, 0.2434, 0.0857, 0.2506)),
    (67_240, 598, 58_264, 385, 0.3971, (0.5797, 0.1379, 0.0671, 0.1532)),
]


@pytest.mark.data
@pytest.mark.parametrize("k", range(4))
def test_golden_values_of_the_public_folds(handbook: Transactions, k: int) -> None:
    train_rows, train_frauds, rows, frauds, perfect, amount = GOLDEN[k]
    fold = folds("2018-08-29", 4)[k]
    rules = Protocol(entity="customer")
    train = fold.train_rows(handbook)
    assert (len(train), int(handbook.label[train].sum())) == (train_rows, train_frauds)
    best = evaluate_fold(handbook, fold, handbook.label.astype(np.float64), rules)
    assert (best.rows, best.frauds, best.ap, best.auc) == (rows, frauds, 1.0, 1.0)
    assert round(best.cp, 4) == perfect
    by_amount = evaluate_fold(handbook, fold, handbook.amount.astype(np.float64), rules)
    reached = (by_amount.auc, by_amount.ap, by_amount.cp, by_amount.r1)
    assert tuple(round(v, 4) for v in reached) == amount


@pytest.mark.data
def test_golden_sizes_of_the_validation_folds(handbook: Transactions) -> None:
    sizes = []
    for fold in validation_folds("2018-08-29", 4, 4):
        rows = judged_rows(handbook, fold, "customer")
        sizes.append((len(rows), int(handbook.label[rows].sum())))
    assert sizes == [(58_505, 374), (57_931, 351), (57_800, 411), (57_182, 416)]
