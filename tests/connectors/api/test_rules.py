"""Rules: what a bundle proposes, what an operator may set."""

from __future__ import annotations

import pytest

from connectors.api.rules import NEVER, Rules, RulesError, default_rules

GOOD = {"version": "v1", "review_at": 0.2, "block_at": 0.8}


def test_defaults_are_the_bundle_s_rates():
    rules = default_rules({"fpr": {"0.001": 0.9, "0.01": 0.4}, "cost": 0.1}, "abcdef" * 9)
    assert (rules.review_at, rules.block_at) == (0.4, 0.9)
    assert rules.version == "bundle-abcdefabcdef"
    assert [rules.decide(s) for s in (0.39, 0.4, 0.9)] == ["approve", "review", "block"]


@pytest.mark.parametrize(
    ("thresholds", "review", "block"),
    [
        ({}, NEVER, NEVER),
        ({"cost": 0.3}, 0.3, NEVER),
        ({"fpr": {"0.001": 0.2, "0.01": 0.5}}, 0.2, 0.2),
        ({"fpr": {"0.001": 5.0}, "cost": 0.3}, 0.3, NEVER),
    ],
)
def test_defaults_of_lesser_bundles(thresholds, review, block):
    rules = default_rules(thresholds, "d" * 64)
    assert (rules.review_at, rules.block_at) == (review, block)
    assert rules.decide(1.0) != "block" or block < NEVER


def test_block_lists():
    rules = Rules.from_dict({**GOOD, "block": {"shop": ["9"]}}, ("card", "shop"))
    assert rules.listed(("card", "shop"), ("9", "9")) == 1
    assert rules.listed(("card", "shop"), ("9", "8")) == -1
    assert Rules.from_dict(rules.to_dict()) == rules


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "know no 'surprise'"),
        ({"review_at": 0.9}, "lies above"),
        ({"review_at": "0.1"}, "must be a number"),
        ({"review_at": True}, "must be a number"),
        ({"review_at": float("nan")}, "must be a score"),
        ({"block_at": -1}, "must be a score"),
        ({"version": ""}, "need a version"),
        ({"version": 3}, "must be text"),
        ({"block": []}, None),
        ({"block": [1]}, "must map kinds"),
        ({"block": {"boat": []}}, "no entity is of kind 'boat'"),
        ({"block": {"card": [1]}}, "list of ids as text"),
        ({"block": {"card": "abc"}}, "list of ids as text"),
    ],
)
def test_impossible_rules_are_refused(change, message):
    if message is None:
        assert not Rules.from_dict({**GOOD, **change}, ("card",)).block
        return
    with pytest.raises(RulesError, match=message):
        Rules.from_dict({**GOOD, **change}, ("card",))
