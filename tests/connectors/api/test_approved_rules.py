"""Approved rules flag or veto what the model decides; no disagreement goes unwritten."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import orjson
import pytest

from connectors.api.approved_rules import ApprovedRules, UnreadFeatureError
from connectors.api.deciding import Decider
from connectors.api.journal import JournalError
from connectors.api.load_control import Level
from connectors.api.metrics import Metrics
from connectors.api.problem import Problem
from connectors.api.rules import Rules
from connectors.explain.rule_trial import trial_path
from infra.errors import ConfigurationError
from tasks.explain.rules.approval import Limits, try_edition
from tasks.explain.rules.edition import edition_digest, edition_json
from tasks.explain.rules.model import Condition, Rule, RuleSet
from tasks.explain.rules.scorecard import GradedRule, Ramp, Scorecard
from tests.connectors.api.calls import admin, score
from tests.connectors.api.conftest import SECRETS
from tests.connectors.api.test_engine import Watched

AMOUNT = "amount"
LARGE = 5_000.0


class Lines:
    """Keeps what a journal would, or refuses it."""

    def __init__(self):
        self.written, self.refuses = [], False

    def append(self, lines):
        if self.refuses:
            raise JournalError("disk full", "make room")
        self.written += [orjson.loads(line) for line in lines]


def edition(bundle, *rules):
    return RuleSet("bank", "1", bundle.feature_names, rules or (large(),))


def large(decision="block"):
    return Rule((Condition(AMOUNT, ">", LARGE),), decision)


def approved(folder, rules, history=None):
    """Write an edition and the record of its trial; returns the edition's path."""
    path = folder / "rules.json"
    path.write_text(edition_json(rules))
    rows = np.zeros((50, len(rules.features)), np.float32) if history is None else history
    trial = try_edition(rules, rows, [0] * len(rows), "a. person", limits=Limits(0, 0, 1, 1))
    trial_path(path).write_text(trial.to_json())
    return path


@pytest.fixture
def beside(bundle, tmp_path):
    """Builds an engine with rules beside its model; and what was journaled."""
    made = []

    def build(rules, powers=("flag",), **thresholds):
        watched = Watched(tmp_path / f"store{len(made)}", bundle)
        made.append(watched)
        lines = Lines()
        kinds, names = watched.engine._kinds, [c.name for c in watched.state.columns]
        own = ApprovedRules(rules, powers, lines, watched.metrics)
        watched.engine._decider = Decider(kinds, names, own)
        watched.engine.rules = replace(Rules("mine", 2, 2), **thresholds)
        return watched, lines

    yield build
    for one in made:
        one.store.close()


def test_a_flag_of_the_rules_stands_before_the_models_approval(bundle, beside, events):
    watched, lines = beside(edition(bundle))
    small, great = events(amount_cents=100), events(amount_cents=900_000)
    answer = watched.answer(small)
    assert (answer["decision"], answer["overruled"]) == ("approve", None)
    answer = watched.answer(great)
    assert answer["decision"] == "block"
    assert answer["overruled"]["kind"] == "flag"
    assert answer["overruled"]["by"] == [large().id]
    assert answer["approved_rules"].startswith("bank 1 (")
    assert answer["reasons"][0]["code"] == f"rule/{large().id}"
    assert len(answer["reasons"]) <= 4
    (line,) = lines.written
    assert (line["event_id"], line["kind"], line["final"]) == (answer["event_id"], "flag", "block")
    assert line["edition"]["digest"] == edition_digest(edition(bundle))
    assert line["score"] == answer["score"]
    assert watched.metrics.conflicts.value("flag") == 1
    # The challenger is held against the model, not against the rules.
    assert watched.rows[-1][2] == ["approve"]


def test_a_veto_needs_its_power_and_is_journaled_without_it(bundle, beside, events):
    rules = edition(bundle, large("approve"))
    for powers, decision in ((("flag",), "block"), (("flag", "veto"), "approve")):
        watched, lines = beside(rules, powers, review_at=0, block_at=0)
        answer = watched.answer(events(amount_cents=900_000))
        assert answer["decision"] == decision
        assert (answer["overruled"] is None) == (decision == "block")
        assert [line["kind"] for line in lines.written] == ["veto"]
        assert lines.written[0]["final"] == decision
        watched.answer(events(amount_cents=100))
        assert lines.written[1]["kind"] == "no rule"


def test_a_block_list_stands_above_both(bundle, beside, events):
    event = events(amount_cents=900_000)
    watched, lines = beside(edition(bundle, large("approve")), ("veto",))
    watched.engine.rules = Rules("mine", 2, 2, {"terminal": frozenset({event["terminal"]})})
    answer = watched.answer(event)
    assert (answer["decision"], answer["overruled"]) == ("block", None)
    assert answer["reasons"][0]["code"] == "block-list/terminal"
    assert lines.written == []


def test_what_nothing_scored_is_flagged_but_never_approved(bundle, beside, events):
    for decision, expected in (("approve", "review"), ("block", "block")):
        watched, lines = beside(edition(bundle, large(decision)), ("flag", "veto"))
        answer = watched.answer(events(amount_cents=900_000), level=Level.RULES_ONLY)
        assert (answer["score"], answer["decision"]) == (None, expected)
        assert lines.written[0]["score"] is None


def test_a_conflict_that_cannot_be_written_keeps_the_event_from_counting(bundle, beside, events):
    watched, lines = beside(edition(bundle))
    lines.refuses = True
    event = events(amount_cents=900_000)
    with pytest.raises(Problem) as refused:
        watched.score(event)
    assert refused.value.status == 503
    assert watched.handed == []
    lines.refuses = False
    assert watched.answer(event)["decision"] == "block"
    assert len(watched.handed) == 1


def test_a_scorecard_runs_the_same_way(bundle, beside, events):
    rule = GradedRule((Ramp(AMOUNT, LARGE, 2 * LARGE),), 10)
    card = Scorecard("points", "3", bundle.feature_names, (rule,), 0, 4, 20)
    watched, lines = beside(card)
    answer = watched.answer(events(amount_cents=900_000))
    assert (answer["decision"], answer["overruled"]["by"]) == ("review", [rule.id])
    assert "points say review" in lines.written[0]["reason"]


def test_rows_of_a_batch_are_decided_each_for_itself(bundle, beside, events):
    watched, lines = beside(edition(bundle))
    batch = [events(amount_cents=amount) for amount in (100, 900_000, 200, 800_000)]
    answers = [json.loads(body) for body in watched.score(*batch)]
    assert [a["decision"] for a in answers] == ["approve", "block", "approve", "block"]
    assert [line["event_id"] for line in lines.written] == [
        answers[1]["event_id"],
        answers[3]["event_id"],
    ]


def test_what_a_head_does_not_read_never_holds(bundle):
    rules = RuleSet("x", "1", ("graph.logit", *bundle.feature_names), (
        Rule((Condition("graph.logit", ">", -99.0),), "block"), large("review"),
    ))  # fmt: skip
    own = ApprovedRules(rules, ("flag",), Lines(), Metrics())
    values = np.full((1, len(bundle.feature_names)), 2 * LARGE, np.float32)
    found = own.overrule(values, bundle.feature_names, ["approve"], scored=True)
    assert found.decisions == ["review"]
    with pytest.raises(UnreadFeatureError, match=r"graph\.logit"):
        own.require(bundle.feature_names)


def test_the_service_runs_what_was_tried_and_nothing_else(start, bundle, events, tmp_path):
    path = approved(tmp_path, edition(bundle))
    settings = {"model": bundle.folder, "ui": "false", "approved_rules": path}
    api = start(settings | {"budget_ms": 20_000, "journal_seconds": 0.1})
    event = events(amount_cents=900_000)
    answer = score(api, event).data
    assert (answer["decision"], answer["overruled"]["kind"]) == ("block", "flag")
    told = api.call("POST", "/v1/explain", events(amount_cents=900_000), token=SECRETS["reader"])
    assert told.data["decision"] == "block"
    metrics = api.call("GET", "/metrics").body.decode()
    assert 'penstock_api_rule_conflicts_total{kind="flag"} 1' in metrics
    assert admin(api, "POST", "/v1/model/reload").status == 200
    api.stop()
    lines = [
        json.loads(line)
        for file in (api.home / "journal" / "rule-conflicts").glob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert [line["event_id"] for line in lines] == [answer["event_id"]]

    path.write_text(edition_json(edition(bundle, replace(large(), note="a word more"))))
    with pytest.raises(ConfigurationError, match="edited since"):
        ApprovedRules.load(path, ("flag",), Lines(), Metrics())
    trial_path(path).unlink()
    with pytest.raises(ConfigurationError, match="never tried"):
        ApprovedRules.load(path, ("flag",), Lines(), Metrics())
    with pytest.raises(ConfigurationError, match="cannot be read"):
        ApprovedRules.load(tmp_path / "absent.json", ("flag",), Lines(), Metrics())
