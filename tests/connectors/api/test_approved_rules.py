"""Approved rules flag or veto what the model decides; no disagreement goes unwritten."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import orjson
import pytest

from connectors.api.approved_rules import ApprovedRules, DecidedBy, UnreadFeatureError
from connectors.api.deciding import Decider
from connectors.api.journal import JournalError
from connectors.api.load_control import Level
from connectors.api.problem import Problem
from connectors.api.rules import Rules
from connectors.api.served_model import ModelOrigin, ServedModel
from connectors.explain.rule_trial import trial_path
from infra.errors import ConfigurationError
from tasks.explain.rules.approval import Limits, try_edition
from tasks.explain.rules.edition import edition_digest, edition_json
from tasks.explain.rules.model import Condition, Rule, RuleSet
from tasks.explain.rules.scorecard import GradedRule, Ramp, Scorecard
from tasks.fraud.online.parse import parse_transaction
from tests.connectors.api.calls import admin, get, score
from tests.connectors.api.conftest import SECRETS
from tests.connectors.api.test_engine import NOW, Watched

AMOUNT = "amount"
LARGE = 5_000.0
BY = DecidedBy("m", {"review": 0.0, "block": 0.0})


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


def tried(rules, model, *, most_vetoed=1.0, review=0.0, block=0.0):
    """Try an edition over large and small payments, half of which the model flags."""
    rows = np.zeros((50, len(rules.features)), np.float32)
    rows[25:, rules.features.index(AMOUNT)] = 2 * LARGE
    limits = Limits(0, 0, 1, 1, most_vetoed)
    return try_edition(
        rules, rows, [0] * 25 + [2] * 25, "a. person", limits=limits, model_digest=model,
        thresholds={"review": review, "block": block},
    )  # fmt: skip


def approved(folder, rules, model):
    """Write an edition and the record of its trial; returns the edition's path."""
    path = folder / "rules.json"
    path.write_text(edition_json(rules))
    trial_path(path).write_text(tried(rules, model).to_json())
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
        own = ApprovedRules(rules, tried(rules, bundle.digest), powers)
        watched.engine._decider = Decider(kinds, names, own, lines)
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
    assert line["scored_by"] == answer["model"]
    assert line["thresholds"] == answer["rules"] == "mine"
    assert line["time"] > 0
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


def test_thresholds_below_those_of_the_trial_end_vetoes(bundle, beside, events):
    rules = edition(bundle, large("approve"))
    watched, _ = beside(rules, ("flag", "veto"), review_at=0, block_at=0)
    engine = watched.engine
    trial = tried(rules, bundle.digest, review=0.0, block=0.4)
    engine._decider.approved = ApprovedRules(rules, trial, ("flag", "veto"))
    assert engine.described_rules()["powers"] == ["flag"]
    assert watched.answer(events(amount_cents=900_000))["decision"] == "block"
    engine.rules = replace(engine.rules, block_at=0.4)
    assert engine.described_rules()["powers"] == ["flag", "veto"]
    assert watched.answer(events(amount_cents=900_000))["decision"] == "approve"


def test_what_explains_takes_the_rules_of_one_moment(bundle, beside, events):
    watched, _ = beside(
        edition(bundle, large("approve")), ("flag", "veto"), review_at=0, block_at=0
    )
    engine, model = watched.engine, watched.model
    event = parse_transaction(events(amount_cents=900_000), watched.config, NOW)
    seen, before = engine.seen_by(event), engine.rules
    head, score, inputs, _ = model.told(seen.rows, seen.features)
    engine.rules = replace(before, version="since", review_at=2, block_at=2)
    told = engine.decide(event, score, inputs, model=model, head=head, rules=before)
    assert told[0] == "approve"
    assert told[1]["overruled"]["model"] == "block"


def test_a_block_list_stands_above_both(bundle, beside, events):
    event = events(amount_cents=900_000)
    watched, lines = beside(edition(bundle, large("review")), ("flag", "veto"))
    watched.engine.rules = Rules("mine", 2, 2, {"terminal": frozenset({event["terminal"]})})
    answer = watched.answer(event)
    assert (answer["decision"], answer["overruled"]) == ("block", None)
    assert answer["reasons"][0]["code"] == "block-list/terminal"
    (line,) = lines.written
    assert (line["kind"], line["final"]) == ("flag", "block")
    assert line["reason"].endswith("the block list decides: block")


def test_what_nothing_scored_is_flagged_but_never_approved(bundle, beside, events):
    for decision, expected in (("approve", "review"), ("block", "block")):
        watched, lines = beside(edition(bundle, large(decision)), ("flag", "veto"))
        answer = watched.answer(events(amount_cents=900_000), level=Level.RULES_ONLY)
        assert (answer["score"], answer["decision"]) == (None, expected)
        watched.answer(events(amount_cents=100), level=Level.RULES_ONLY)
        # No model spoke, so nothing but a graver word is a conflict.
        assert [line["kind"] for line in lines.written] == ["flag"] * (decision == "block")
        for line in lines.written:
            assert (line["score"], line["model"]) == (None, None)
            assert "no model scored it" in line["reason"]


def test_nothing_is_vetoed_where_a_rule_lacks_what_it_reads(bundle):
    read = ("graph.logit", *bundle.feature_names)
    grave = Rule((Condition("graph.logit", ">", 0.0),), "block")
    sets = (
        RuleSet("x", "1", read, (grave, large("approve"))),
        Scorecard("y", "1", read, (GradedRule((Ramp("graph.logit", 0, 1),), 9),), 0, 4, 8),
    )
    for rules in sets:
        own = ApprovedRules(rules, tried(rules, "m"), ("flag", "veto"))
        known = np.full((1, len(read)), 2 * LARGE, np.float32)
        known[0, 0] = -1.0
        assert own.overrule(known, read, ["block"], BY).decisions == ["approve"]
        less = own.overrule(known[:, 1:], bundle.feature_names, ["block"], BY)
        assert less.decisions == ["block"]


def test_vetoes_need_a_trial_within_its_limit_and_with_the_very_model(bundle):
    rules = edition(bundle, large("approve"))
    with pytest.raises(ConfigurationError, match="may not veto"):
        ApprovedRules(rules, tried(rules, bundle.digest, most_vetoed=0.5), ("flag", "veto"))
    own = ApprovedRules(rules, tried(rules, "m"), ("flag", "veto"))
    assert own.powers(BY) == ("flag", "veto")
    assert own.described(BY._replace(model="another"))["powers"] == ["flag"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": "another"}, "tried with model m, in service is another"),
        ({"champion": False}, "another head"),
        ({"thresholds": {"review": 0.0, "block": 1.99}}, "in the trial the model decided from"),
        ({"thresholds": {"review": 0.1, "block": 0.05}}, "in the trial the model decided from"),
    ],
)
def test_a_veto_is_for_what_was_tried_alone(bundle, caplog, change, why):
    rules = edition(bundle, large("approve"))
    own = ApprovedRules(rules, tried(rules, "m", review=0.1, block=0.2), ("flag", "veto"))
    values = np.full((1, len(bundle.feature_names)), 2 * LARGE, np.float32)
    decided = BY._replace(thresholds={"review": 0.1, "block": 0.3})
    for by, final in ((decided, "approve"), (decided._replace(**change), "block")):
        found = own.overrule(values, bundle.feature_names, ["block"], by)
        assert found.decisions == [final]
        assert found.conflicts[0].kind == "veto"  # told, whatever stands
        own.warn(by)
        own.warn(by)
    (told,) = caplog.records
    assert why in told.getMessage()


def test_rules_without_power_only_watch(bundle, beside, events):
    watched, lines = beside(edition(bundle), ())
    answer = watched.answer(events(amount_cents=900_000))
    assert (answer["decision"], answer["overruled"]) == ("approve", None)
    assert [line["kind"] for line in lines.written] == ["flag"]


def test_a_champion_without_what_the_rules_read_is_refused(bundle, other_bundle, beside):
    watched, _ = beside(edition(bundle))
    other = ServedModel(other_bundle, ModelOrigin("x", "fraud-demo", "8"))
    watched.engine.replace_model(other)  # it reads the same
    assert watched.engine.model is other
    watched.engine.approved._read.add("colour")
    with pytest.raises(UnreadFeatureError, match="colour"):
        watched.engine.replace_model(watched.model)
    assert watched.engine.model is other


def test_conflicts_are_counted_with_the_events_that_count(bundle, beside, events):
    watched, lines = beside(edition(bundle))
    event = events(amount_cents=900_000)
    watched.refuse = JournalError("the outbox is full", "wait")
    with pytest.raises(Problem):
        watched.score(event)
    assert watched.metrics.conflicts.value("flag") == 0
    watched.refuse = None
    watched.answer(event)
    assert watched.metrics.conflicts.value("flag") == 1
    # Written before anything leaves, so told twice: a reader tells them apart by the request.
    assert [line["event_id"] for line in lines.written] == [str(event["tx_id"])] * 2


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
    own = ApprovedRules(rules, tried(rules, "m"), ("flag",))
    values = np.full((1, len(bundle.feature_names)), 2 * LARGE, np.float32)
    found = own.overrule(values, bundle.feature_names, ["approve"], BY)
    assert found.decisions == ["review"]
    with pytest.raises(UnreadFeatureError, match=r"graph\.logit"):
        own.require(bundle.feature_names)


def test_the_service_runs_what_was_tried_and_nothing_else(start, bundle, events, tmp_path):
    path = approved(tmp_path, edition(bundle), bundle.digest)
    settings = {"model": bundle.folder, "ui": "false", "approved_rules": path}
    api = start(settings | {"budget_ms": 20_000, "journal_seconds": 0.1})
    event = events(amount_cents=900_000)
    answer = score(api, event).data
    assert (answer["decision"], answer["overruled"]["kind"]) == ("block", "flag")
    told = api.call("POST", "/v1/explain", events(amount_cents=900_000), token=SECRETS["reader"])
    assert (told.data["decision"], told.data["overruled"]["final"]) == ("block", "block")
    assert told.data["decided_by"] == answer["reasons"][0]
    past = api.call("POST", "/v1/explain", {"tx_id": event["tx_id"]}, token=SECRETS["reader"])
    assert past.data["decided_by"] == answer["reasons"][0]
    described = get(api, "/v1/model").data["approved_rules"]
    assert (described["version"], described["tried_by"]) == ("1", "a. person")
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
    broken = start(settings, ready=False)
    assert broken.process.wait(60) == 1
    assert "edited since" in broken.log.read_text()
    with pytest.raises(ConfigurationError, match="edited since"):
        ApprovedRules.load(path, ("flag",))
    trial_path(path).unlink()
    with pytest.raises(ConfigurationError, match="never tried"):
        ApprovedRules.load(path, ("flag",))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        ApprovedRules.load(tmp_path / "absent.json", ("flag",))
