"""Groups, wording and ranking of reasons."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.explain.catalogue.model import MOST_REASONS
from tasks.explain.groups import FeatureGroups, read_feature, window_adjective, window_words
from tasks.explain.reasons import rank_reasons, top_groups
from tasks.explain.tree import Explanation
from tasks.explain.wording import Wording, describe, duration
from tasks.fraud.derive import NEVER, derived_names, event_names
from tasks.fraud.graph import SIGNALS

ENTITIES = ("payer", "payee_bank")
NAMES = event_names() + derived_names("payer", ("1d", "7d", "30d"))
NAMES += derived_names("payee_bank", ("1d", "7d", "30d"))


def explanation(values, names=NAMES, spread=None):
    per_model = np.array(values, dtype=float)
    per_model = per_model if per_model.ndim == 3 else per_model[None]
    k, n, _ = per_model.shape
    return Explanation(tuple(names), per_model, np.zeros(k), np.zeros(n), 0.0, "path")


@pytest.mark.parametrize(
    ("name", "entity", "field", "window", "reference", "group"),
    [
        ("amount", "", "amount", "", "", "transaction/amount"),
        ("payer.n_7d", "payer", "n", "7d", "", "payer/activity/7d"),
        ("payer.rate_1d_30d", "payer", "rate", "1d", "30d", "payer/activity/1d"),
        ("payee_bank.of_max_30d", "payee_bank", "of_max", "30d", "", "payee_bank/activity/30d"),
        ("payee_bank.gap", "payee_bank", "gap", "", "", "payee_bank/activity/last"),
        ("payer.risk_7d", "payer", "risk", "7d", "", "payer/labels"),
        ("payer.run_length", "payer", "run_length", "", "", "payer/labels"),
        (SIGNALS[0], "", SIGNALS[0], "", "", "all/embedding"),
        (SIGNALS[1], "", SIGNALS[1], "", "", "all/embedding"),
        ("channel=a_7d", "", "channel=a_7d", "", "", "transaction/channel"),
        ("distance_missing", "", "distance_missing", "", "", "transaction/distance"),
        ("payers", "", "payers", "", "", "transaction/payers"),
        ("24h", "", "24h", "", "", "transaction/24h"),
    ],
)
def test_names_are_read(name, entity, field, window, reference, group):
    meaning = read_feature(name, ENTITIES)
    read = (meaning.entity, meaning.field, meaning.window, meaning.reference, meaning.group)
    assert read == (entity, field, window, reference, group)


@pytest.mark.parametrize(
    "name",
    ["message_length", "mail_provider", "embossed", "graph_score", "graph.degree", "fraud_type",
     "payer_gap", "payer_risk_7d", "payer.age", "payer.ratio", "payer.gap_7d", "volume_7d",
     "amount_7d"],
)  # fmt: skip
def test_columns_of_the_user_go_by_their_own_names(name):
    meaning = read_feature(name, ENTITIES)
    assert meaning.theme == "transaction"
    assert meaning.group == f"transaction/{name}"
    words = name.replace("_", " ")
    assert meaning.label == words
    assert describe(meaning, 3.0) == f"{words} is 3"


def test_every_feature_of_an_entity_is_read_as_such():
    meanings = [read_feature(name, ENTITIES) for name in NAMES]
    assert [m.entity for m in meanings if m.theme != "transaction"].count("payer") == (
        len(derived_names("payer", ("1d", "7d", "30d")))
    )
    assert [m.name for m in meanings if m.theme == "transaction"] == list(event_names())


def test_groups_hold_every_feature_once_and_keep_sums():
    groups = FeatureGroups.of(NAMES, ENTITIES)
    assert sorted(m for g in groups.members for m in g) == list(range(len(NAMES)))
    assert len(set(groups.labels)) == len(groups.labels) == len(groups.keys)
    values = np.random.default_rng(0).normal(size=(2, 3, len(NAMES)))
    np.testing.assert_allclose(groups.sums(values).sum(-1), values.sum(-1))
    with pytest.raises(ValueError, match="the model has"):
        groups.sums(values[..., :-1])


def test_windows_in_words():
    assert window_words("1d") == "1 day"
    assert window_words("15min") == "15 minutes"
    assert window_words("odd") == window_adjective("odd") == "odd"
    assert window_adjective("7d") == "7-day"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("amount", 1234.5, "amount of 1,234.50"),
        ("hour", 3.0, "made in the hour from 03:00"),
        ("night", 1.0, "made at night"),
        ("night", 0.0, "made by day"),
        ("weekend", 1.0, "made at the weekend"),
        ("payer.ratio_30d", 4.23, "amount is 4.2 x the payer's 30-day mean"),
        ("payer.ratio_30d", 1234.0, "amount is 1,234 x the payer's 30-day mean"),
        ("payer.z_7d", -2.5, "amount is 2.5 standard deviations below the payer's 7-day mean"),
        ("payer.of_max_30d", 1.0, "largest amount of the payer in 30 days"),
        ("payer.of_max_30d", 0.5, "amount is 50 % of the payer's largest in 30 days"),
        ("payer.n_1d", 1.0, "1 transaction of the payer in 1 day"),
        ("payer.n_1d", 12.0, "12 transactions of the payer in 1 day"),
        ("payer.mean_7d", 12.0, "the payer's 7-day mean amount is 12.00"),
        ("payer.spread_30d", 7.5, "amounts of the payer in 30 days vary by 7.50 as a rule"),
        ("payee_bank.before_30d", 9.0,
         "the payee bank's 30-day mean amount before this one is 9.00"),
        ("payer.rate_1d_30d", 3.0, "the payer's activity in 1 day is 3.0 x its 30-day average"),
        ("payer.level_7d_30d", 2.0, "the payer's mean amount in 7 days is 2.0 x its 30-day mean"),
        ("payer.peak_1d_30d", 6.0, "the payer's largest amount in 1 day is 6.0 x its 30-day mean"),
        ("payer.gap", 48.0, "only 48 seconds since the payer's previous transaction"),
        ("payer.gap", 7200.0, "2 hours since the payer's previous transaction"),
        ("payer.gap", NEVER, "first transaction of the payer on record"),
        ("payer.risk_7d", 1.0,
         "100 % of the payer's transactions in the 7 days known so far were frauds"),
        ("payer.frauds_30d", 1.0, "the payer had 1 fraud in the 30 days known so far"),
        ("payer.known_7d", 3.0, "3 transactions of the payer in 7 days with known outcome"),
        ("payer.last_label", 1.0, "the payer's last known transaction was a fraud"),
        ("payer.last_label", 0.0, "the payer's last known transaction was genuine"),
        ("payer.last_label", -1.0, "no outcome of the payer is known yet"),
        ("payer.since_fraud", 86_400.0, "the payer's last known fraud was 1 day ago"),
        ("payer.since_fraud", NEVER, "no fraud of the payer is known"),
        ("payer.run_age", 7_200.0, "the payer's current run of known frauds began 2 hours ago"),
        ("payer.run_days", 9.0, "the payer's current run of known frauds began 9 days ago"),
        ("payer.run_days", NEVER / 86_400, "the payer's last known transaction was no fraud"),
        ("payer.run_length", 0.0, "the payer's last known transaction was no fraud"),
        ("payer.run_length", 1.0, "the payer's last known transaction was a fraud"),
        ("payer.run_length", 6.0, "the payer's last 6 known transactions were all frauds"),
        (SIGNALS[0], 0.2,
         "recent partners and place in the transaction graph look unusual"),
        ("channel=point_7d", 1.0, "channel is point_7d"),
        ("channel=web", 0.0, "channel is not web"),
        ("distance_km_missing", 1.0, "distance km is missing"),
        ("distance_km_missing", 0.0, "distance km is present"),
        ("distance_km", 12.25, "distance km is 12.25"),
        ("payer.ratio_30d", float("nan"), "the payer's ratio over 30 days is missing"),
        ("amount", float("nan"), "amount is missing"),
        ("channel", 1.0, "channel is web"),
        ("channel", -1.0, "channel is missing or new"),
    ],
)  # fmt: skip
def test_features_in_words(name, value, text):
    wording = Wording(categories={"channel": ("shop", "web")})
    assert describe(read_feature(name, ENTITIES), value, wording) == text


def test_every_feature_of_the_model_has_a_phrase_of_its_own():
    for name in NAMES:
        meaning = read_feature(name, ENTITIES)
        text = describe(meaning, 2.0)
        assert not text.endswith(" is 2"), name
        assert "_" not in text


def test_durations_choose_their_unit():
    said = [duration(s) for s in (0, 1, 59, 60, 5_400, 86_400 * 2.5)]
    assert said == ["0 seconds", "1 second", "59 seconds", "1 minute", "1.5 hours", "2.5 days"]


def _row(**contributions):
    row = np.zeros(len(NAMES))
    for name, value in contributions.items():
        row[NAMES.index(name.replace("__", "."))] = value
    return row


def test_reasons_are_the_strongest_factors_that_raised_the_score():
    groups = FeatureGroups.of(NAMES, ENTITIES)
    x = np.full((2, len(NAMES)), 3.0)
    rows = [
        _row(amount=0.5, payer__n_1d=-2.0, payer__ratio_30d=1.5, payee_bank__risk_7d=2.5,
             payee_bank__risk_30d=0.4, payer__gap=0.2, payee_bank__n_7d=0.16, hour=0.01),
        _row(amount=-0.5),
    ]  # fmt: skip
    first, second = rank_reasons(explanation(rows), x, groups)
    assert [r.group for r in first] == [
        "payee_bank/labels", "payer/activity/30d", "transaction/amount", "payer/activity/last",
    ]  # fmt: skip
    assert len(first) == MOST_REASONS
    assert first[0].contribution == pytest.approx(2.9)
    assert first[0].to_dict()["text"].endswith("in the 7 days known so far were frauds")
    assert second == []
    assert len(rank_reasons(explanation(rows), x, groups, limit=2)[0]) == 2


def test_small_contributions_are_no_reasons():
    groups = FeatureGroups.of(NAMES, ENTITIES)
    x = np.ones((1, len(NAMES)))
    row = explanation([_row(amount=0.11, hour=0.09)])
    assert [r.group for r in rank_reasons(row, x, groups)[0]] == ["transaction/amount"]


def test_what_is_tiny_beside_the_principal_factor_is_no_reason():
    groups = FeatureGroups.of(NAMES, ENTITIES)
    row = explanation([_row(payer__risk_7d=8.0, amount=0.41, hour=0.39)])
    reasons = rank_reasons(row, np.ones((1, len(NAMES))), groups)[0]
    assert [r.group for r in reasons] == ["payer/labels", "transaction/amount"]


def test_a_story_is_told_once_where_another_is_left():
    groups = FeatureGroups.of(NAMES, ENTITIES)
    x = np.full((1, len(NAMES)), 2.0)
    row = _row(payer__ratio_30d=1.0, payer__ratio_7d=0.6, payer__n_7d=0.3)
    texts = [r.text for r in rank_reasons(explanation([row]), x, groups)[0]]
    assert texts == [
        "amount is 2.0 x the payer's 30-day mean", "2 transactions of the payer in 7 days",
    ]  # fmt: skip
    row = _row(payer__ratio_30d=1.0, payer__ratio_7d=0.6)
    texts = [r.text for r in rank_reasons(explanation([row]), x, groups)[0]]
    assert texts[1] == "amount is 2.0 x the payer's 7-day mean"


def test_reasons_the_models_disagree_on_are_a_tie():
    groups = FeatureGroups.of(NAMES, ENTITIES)
    x = np.ones((1, len(NAMES)))
    models = [
        [_row(amount=1.0, payer__gap=0.8, payee_bank__gap=0.1)],
        [_row(amount=0.7, payer__gap=0.9, payee_bank__gap=0.1)],
        [_row(amount=1.2, payer__gap=1.0, payee_bank__gap=0.1)],
    ]
    reasons = rank_reasons(explanation(models), x, groups)[0]
    assert [r.tie for r in reasons] == [True, False, False]
    assert reasons[0].error > 0
    assert reasons[2].error == pytest.approx(0)


def test_rows_and_contributions_must_belong_together():
    groups = FeatureGroups.of(NAMES, ENTITIES)
    with pytest.raises(ValueError, match="pass the rows that were explained"):
        rank_reasons(explanation([_row(amount=1.0)]), np.ones((2, len(NAMES))), groups)


def test_what_only_rounding_tells_apart_is_a_tie():
    groups = FeatureGroups.of(NAMES, ENTITIES)
    row = explanation([_row(amount=0.1 + 0.2, payer__n_1d=0.3)])
    first, _ = rank_reasons(row, np.ones((1, len(NAMES))), groups)[0]
    assert first.error == 0.0
    assert first.tie


def test_top_groups_rank_by_mean_absolute_contribution():
    groups = FeatureGroups.of(NAMES, ENTITIES)
    rows = explanation([_row(amount=-3.0, hour=0.5), _row(amount=1.0, payer__gap=1.5)])
    top = top_groups(rows, groups, limit=2)
    assert top == [("amount", pytest.approx(2.0)), ("payer, recency", pytest.approx(0.75))]
    assert top_groups(explanation(np.zeros((1, 0, len(NAMES)))), groups) == []
