"""``POST /v1/explain``, and what becomes of decisions whose reasons are late or wrong."""

from __future__ import annotations

import asyncio
import json
import time

import jsonschema
import numpy as np
import orjson
import pytest

from connectors.api.explaining import Explaining, ExplainLimits
from connectors.api.gate import Gate
from connectors.api.load_control import LoadControl, LoadLimits
from connectors.api.metrics import Metrics
from connectors.api.problem import Problem
from connectors.api.rate_limit import RateLimiter
from connectors.api.reasons_budget import (
    LATE_IN_A_ROW,
    REST_SECONDS,
    ReasonsBudget,
    ReasonsLateError,
)
from connectors.api.tokens import TokenBook, parse_token
from tasks.fraud.online.head_parts import ForestPart
from tests.connectors.api.calls import score
from tests.connectors.api.conftest import SECRETS
from tests.connectors.api.test_engine import NOW, Watched, history, keys, replay

EXPLAIN = "/v1/explain"
TOKEN = parse_token(f"reader:read:{SECRETS['reader']}", "test")


@pytest.fixture
def watched(bundle, bank, tmp_path):
    made = Watched(tmp_path / "store", bundle)
    _, _, data, labels = history(bank, 600)
    replay(made, data, labels, size=64)
    yield made
    made.store.close()


@pytest.fixture
def ask(watched):
    """Asks for an explanation in this process; ``gate`` and ``limits`` may be of one's own."""
    made = []

    def answer(body, *, load=None, seconds=5.0, rate=1_000.0):
        load = load or LoadControl(LoadLimits(0.025))
        gate = Gate(TokenBook([TOKEN]), RateLimiter(1e6, 1e6), load, watched.metrics)
        limits = ExplainLimits(seconds, rate, 65_536)
        made.append(Explaining(watched.engine, gate, watched.metrics, limits, lambda: NOW))
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return asyncio.run(made[-1].answer(TOKEN, content, "r9"))

    yield answer
    for one in made:
        one.close()


class Slow(ForestPart):
    """Explains a fifth of a second too late."""

    def explain_row(self, row):
        time.sleep(0.2)
        return super().explain_row(row)


class Wrong(ForestPart):
    """Contributions that do not add up, of rows with an odd amount."""

    def explain_row(self, row):
        made = super().explain_row(row)
        return made if row[0] % 2 else made._replace(contributions=made.contributions + 0.01)


@pytest.fixture
def faulty(watched):
    """Puts another explainer into the model in service until the test is over."""
    part = watched.model._fast["tabular"]._part

    def put(kind):
        part.__class__ = kind

    yield put
    part.__class__ = ForestPart


def test_an_explanation_is_of_the_score_that_would_be_given(watched, ask, bank):
    _, _, data, _ = history(bank, 601)
    event = data[600] | {"amount_cents": 90_000}
    before = watched.store.read([*keys(watched, event)])
    told = ask(event)
    assert watched.store.read([*keys(watched, event)]) == before
    assert ask(event) == told
    assert told["past"] is False
    assert told["base"] + sum(g["contribution"] for g in told["groups"]) == pytest.approx(
        told["log_odds"], abs=1e-6
    )
    assert told["additivity_gap"] < 1e-6
    assert (told["method"], len(told["background_sha256"])) == ("interventional", 64)
    assert told["background_rows"] == 512
    assert all(g["error"] > 0 for g in told["groups"] if g["contribution"])
    answer = watched.answer(event)
    assert (answer["score"], answer["decision"]) == (told["score"], told["decision"])
    assert [r["text"] for r in answer["reasons"]] == [r["text"] for r in told["reasons"]]
    assert answer["model"] == told["model"]
    # Only now it counts: the next event of its entities sees one more.
    seen = watched.rows[-1][0].state[0, 0, 0]
    watched.answer(event | {"tx_id": 9_999_999})
    assert watched.rows[-1][0].state[0, 0, 0] == seen + 1
    for asked in (event, {"tx_id": event["tx_id"]}):
        past = ask(asked)
        assert past["past"] is True
        assert past | {"past": False} == told


def test_what_cannot_be_explained_says_why(watched, ask, events, other_bundle):
    event = events()
    cases = [
        ({"tx_id": 4_242}, 404, "unknown-event"),
        ({"tx_id": [1]}, 422, "invalid-id"),
        (event | {"amount_cents": -1}, 422, "negative-amount"),
        ([event], 422, "not-an-object"),
        (b"{", 400, "not-json"),
        (b" " * 70_000, 413, "too-large"),
    ]
    watched.score(event)
    cases.append((event | {"amount_cents": 7}, 409, "id-in-use"))
    no_model = events()
    watched.score(no_model, level=3)
    for body, status, code in cases:
        with pytest.raises(Problem) as caught:
            ask(body)
        assert (caught.value.status, caught.value.code) == (status, code)
    with pytest.raises(Problem) as caught:
        ask({"tx_id": no_model["tx_id"]})
    assert (caught.value.status, caught.value.code) == (409, "no-inputs")
    from connectors.api.served_model import ModelOrigin, ServedModel

    watched.engine.replace_model(ServedModel(other_bundle, ModelOrigin("x", "fraud-demo", "8")))
    with pytest.raises(Problem) as caught:
        ask({"tx_id": event["tx_id"]})
    assert (caught.value.status, caught.value.code) == (409, "other-model")
    linear = ask(events())
    assert (linear["method"], linear["models"], linear["model"]["head"]) == (
        "interventional", 1, "logistic",
    )  # fmt: skip


def test_scores_come_first_and_explanations_have_a_rate(watched, ask, events):
    load = LoadControl(LoadLimits(0.025))
    load.spend_slice(0.4 * 0.025)
    with pytest.raises(Problem) as caught:
        ask(events(), load=load)
    assert (caught.value.status, caught.value.code) == (503, "overloaded")
    gate = Gate(
        TokenBook([TOKEN]), RateLimiter(1e6, 1e6), LoadControl(LoadLimits(1)), watched.metrics
    )
    few = Explaining(
        watched.engine, gate, watched.metrics, ExplainLimits(5, 2, 65_536), lambda: NOW
    )
    codes = []
    for _ in range(3):
        try:
            asyncio.run(few.answer(TOKEN, orjson.dumps(events()), "r"))
            codes.append("")
        except Problem as problem:
            codes.append(problem.code)
    few.close()
    assert codes == ["", "", "explain-rate"]


def test_a_late_explanation_is_given_up_and_scores_go_on(watched, ask, events, faulty):
    faulty(Slow)
    began = time.perf_counter()
    with pytest.raises(Problem) as caught:
        ask(events(), seconds=0.05)
    assert time.perf_counter() - began < 0.15 + 0.2  # asyncio.run waits for nothing of the thread
    assert (caught.value.status, caught.value.code) == (503, "explainer-late")
    assert watched.metrics.unexplained.value("late") == 1


def test_a_wrong_explanation_is_withheld(ask, events, faulty):
    faulty(Wrong)
    with pytest.raises(Problem) as caught:
        ask(events(amount_cents=2_000))
    assert (caught.value.status, caught.value.code) == (500, "not-additive")


def test_a_decision_does_not_wait_for_a_late_explainer(watched, events, faulty, caplog):
    plain = watched.answer(events(), explain=False)
    faulty(Slow)
    began = time.perf_counter()
    answer = watched.answer(events())
    assert time.perf_counter() - began < 0.1  # of the 0.2 s it sleeps; the budget is 5 ms
    assert (answer["degraded"], answer["reasons"]) == (["no-reasons"], None)
    assert answer["decision"] == plain["decision"]
    assert answer["latency_us"]["reasons"] < 100_000
    for _ in range(LATE_IN_A_ROW - 1):
        assert watched.answer(events())["reasons"] is None
    began = time.perf_counter()
    for _ in range(5):  # it rests now: nobody waits for it
        assert watched.answer(events())["degraded"] == ["no-reasons"]
    assert time.perf_counter() - began < REST_SECONDS, "the machine is too slow for this test"
    unexplained = watched.metrics.unexplained
    assert (unexplained.value("late"), unexplained.value("resting")) == (LATE_IN_A_ROW, 5)
    assert watched.metrics.degraded.value("no-reasons") == LATE_IN_A_ROW + 5
    late = [r for r in caplog.records if "more than 5 ms" in r.getMessage()]
    assert len(late) == 1
    watched.engine._budget._rests_until = 0.0
    assert watched.answer(events())["reasons"] is None  # late again, and not logged again
    assert len([r for r in caplog.records if "more than 5 ms" in r.getMessage()]) == 1
    faulty(ForestPart)
    watched.engine._budget.seconds = 5.0
    assert watched.answer(events())["degraded"] == ["no-reasons"]
    watched.engine._budget._rests_until = time.monotonic() - REST_SECONDS
    assert watched.answer(events())["degraded"] == []
    # Every one of them was kept and counted.
    assert watched.rows[-1][0].state.shape[0] == 1


def test_rows_beside_a_wrong_explanation_keep_theirs(watched, events, faulty, caplog):
    faulty(Wrong)
    watched.engine._budget.seconds = 5.0  # the machine may be busy; nothing is late here
    sent = [events(amount_cents=cents) for cents in (2_000, 2_100, 2_200, 2_300)]
    answers = [json.loads(body) for body in watched.score(*sent)]
    assert [a["degraded"] for a in answers] == [["no-reasons"], [], ["no-reasons"], []]
    assert [a["reasons"] is None for a in answers] == [True, False, True, False]
    assert all(a["score"] is not None for a in answers)
    assert watched.metrics.unexplained.value("failed") == 2
    assert watched.metrics.degraded.value("no-reasons") == 2
    assert len([r for r in caplog.records if "no reasons" in r.getMessage()]) == 1
    assert [json.loads(b) for b in watched.score(*sent)] == answers


def test_the_budget_breaks_in_only_while_explanations_run():
    budget = ReasonsBudget(0.01, Metrics())

    def run_for_ever():
        with budget.bounded():
            while True:  # no call that could be interrupted: the interpreter is
                pass

    with pytest.raises(ReasonsLateError):
        run_for_ever()
    for _ in range(300):
        with budget.bounded():
            pass
    time.sleep(0.03)  # no alarm is left behind
    with pytest.raises(ZeroDivisionError), budget.bounded():
        1 / 0  # noqa: B018 - raises


def test_the_route_as_a_client_sees_it(api, events):
    document = api.call("GET", "/v1/openapi.json", token="").data
    operation = document["paths"][EXPLAIN]["post"]
    answer_schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert operation["x-scope"] == "read"
    event = events()
    sent_by = SECRETS["reader"]
    told = api.call("POST", EXPLAIN, event, token=sent_by)
    assert told.status == 200
    jsonschema.validate(told.data, answer_schema)
    scored = score(api, event).data
    assert scored["score"] == told.data["score"]
    past = api.call("POST", EXPLAIN, {"tx_id": event["tx_id"]}, token=sent_by)
    jsonschema.validate(past.data, answer_schema)
    assert (past.data["past"], past.data["groups"]) == (True, told.data["groups"])
    assert api.call("POST", EXPLAIN, event, token=SECRETS["scorer"]).status == 403
    assert api.call("POST", EXPLAIN, event, token="").status == 401
    body = b'{"tx_id":"' + b"x" * 70_000 + b'"}'
    assert api.call("POST", EXPLAIN, body, token=sent_by).status == 413
    plain = {"content-type": "text/plain"}
    assert api.call("POST", EXPLAIN, event, token=sent_by, headers=plain).status == 415


def test_a_network_head_is_explained_too(graph_bundle, bank, tmp_path):
    _, _, data, labels = history(bank, 300)
    made = Watched(tmp_path / "store", graph_bundle)
    replay(made, data[:299], labels, size=64)
    gate = Gate(TokenBook([TOKEN]), RateLimiter(1e6, 1e6), LoadControl(LoadLimits(1)), made.metrics)
    limits = ExplainLimits(30, 100, 65_536)
    explaining = Explaining(made.engine, gate, made.metrics, limits, lambda: NOW)
    told = asyncio.run(explaining.answer(TOKEN, orjson.dumps(data[299]), "r"))
    scored = made.answer(data[299])
    assert scored["score"] == pytest.approx(told["score"], abs=1e-9)
    assert told["model"]["head"] == "both"
    assert any(g["group"] == "all/embedding" for g in told["groups"])
    past = asyncio.run(explaining.answer(TOKEN, orjson.dumps({"tx_id": data[299]["tx_id"]}), "r"))
    for then, now in zip(past["groups"], told["groups"], strict=True):
        assert then["group"] == now["group"]
        assert then["contribution"] == pytest.approx(now["contribution"], abs=1e-6)
    explaining.close()
    made.store.close()


def test_a_table_gone_bad_costs_reasons_and_no_decision(watched, events):
    table = watched.model._fast["tabular"]._part._against._tables.table
    kept = table.copy()
    watched.engine._budget.seconds = 5.0
    table[:] += np.where(table != 0, 1e-3, 0.0)
    try:
        answer = watched.answer(events())
    finally:
        table[:] = kept
    assert answer["degraded"] == ["no-reasons"]
    assert answer["score"] is not None
