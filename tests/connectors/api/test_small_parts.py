"""Metrics, kept answers, sessions, comparison, problems, figures: small parts by themselves."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.api.kept_answers import (
    label_key,
    pack_answer,
    pack_label,
    unpack_answer,
    unpack_label,
)
from connectors.api.labels import spell_time
from connectors.api.live import Decision, LiveDecisions
from connectors.api.metrics import Metrics
from connectors.api.problem import Problem, too_many
from connectors.api.settings import api_settings
from connectors.api.shadow import ShadowComparison, load_shadow
from connectors.api.ui.figures import score_scale
from connectors.api.ui.sessions import MAX_SESSIONS, Sessions
from infra.errors import ConfigurationError
from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.online.parse import OnlineTransaction, parse_time

TEXT = st.text(min_size=1, max_size=60).filter(lambda t: "\x1f" not in t)
INT64 = st.integers(-(2**63), 2**63 - 1)


@given(
    st.text(max_size=60, alphabet=st.characters(exclude_categories=())),
    INT64,
    INT64,
    st.lists(TEXT.filter(lambda t: t.isprintable()), min_size=1, max_size=4),
    st.binary(max_size=200),
    st.none() | st.lists(st.integers(-(2**20), 2**20), max_size=40),
)
def test_kept_answers_round_trip(name, time, amount, entities, body, read):
    transaction = OnlineTransaction(7, name, time, amount, tuple(entities))
    inputs = None if read is None else np.array(read, np.float32)
    kept = unpack_answer(pack_answer(transaction, body, inputs))
    assert kept.inputs.tolist() == (read or [])
    assert (kept.name, kept.time, kept.amount, kept.body) == (name, time, amount, body)
    assert kept.entities == tuple(entities)
    assert kept.is_of(transaction)


@given(INT64, st.sampled_from([0, 1]), INT64)
def test_kept_labels_round_trip(event, label, at):
    assert unpack_label(pack_label(label, at)) == (label, at)
    assert -(2**63) <= label_key(event) < 2**63
    assert label_key(event) != event


@given(
    st.integers(1_000_000_000_000, 1_900_000_000_000),
    st.sampled_from(["auto", "ns", "us", "ms", "s", "min", "h", "d"]),
    st.sampled_from(["1970-01-01T00:00:00", "2018-04-01T00:00:00"]),
)
def test_times_are_spelt_so_that_they_parse_to_the_same(ms, unit, origin):
    config = DatasetConfig(
        "x", "t", "a", (EntityColumn("card"),), time_unit=unit, time_origin=origin
    )
    assert parse_time(spell_time(ms, config), config, "t") == ms


def test_metrics_are_the_text_format():
    metrics = Metrics()
    metrics.requests.add("/v1/score", "200")
    metrics.requests.add("/v1/score", "200")
    metrics.refused.add('odd"\n\\rule')
    metrics.stages.observe("head", 0.00002)
    metrics.stages.observe("head", 9.0)
    metrics.gauge("penstock_api_test", "A gauge.", lambda: 2.5)
    text = metrics.render().decode()
    assert 'penstock_api_requests_total{route="/v1/score",status="200"} 2' in text
    assert 'rule="odd\\"\\n\\\\rule"' in text
    assert 'penstock_api_stage_seconds_bucket{stage="head",le="2.5e-05"} 1' in text
    assert 'penstock_api_stage_seconds_bucket{stage="head",le="+Inf"} 2' in text
    assert 'penstock_api_stage_seconds_count{stage="head"} 2' in text
    assert "penstock_api_test 2.5" in text
    assert "penstock_api_repeated_total 0" in text


def test_prometheus_reads_the_metrics():
    parser = pytest.importorskip("prometheus_client.parser")
    metrics = Metrics()
    metrics.stages.observe("head", 0.001)
    families = {f.name for f in parser.text_string_to_metric_families(metrics.render().decode())}
    assert "penstock_api_stage_seconds" in families


def test_sessions_end_and_are_bounded():
    now = [0.0]
    sessions = Sessions(10.0, lambda: now[0])
    first = sessions.begin("ops")
    assert sessions.find(first).name == "ops"
    assert sessions.find("guess") is None
    assert sessions.find("") is None
    now[0] = 10.0
    assert sessions.find(first) is None
    values = [sessions.begin("ops") for _ in range(MAX_SESSIONS + 5)]
    assert len(sessions) == MAX_SESSIONS
    assert sessions.find(values[0]) is None
    sessions.end(values[-1])
    assert sessions.find(values[-1]) is None


def test_comparison_is_kept_for_the_same_pair_and_rules(tmp_path):
    one = ShadowComparison("a", "b", "r")
    one.add(0.1, 0.4, "approve", "review")
    one.add(0.9, 0.7, "block", "block")
    told = one.to_dict()
    assert told["compared"] == 2
    assert told["decisions_differ"] == 1
    assert told["mean_difference"] == pytest.approx(0.05)
    assert told["largest_difference"] == pytest.approx(0.3)
    assert sum(told["champion_scores"]) == 2
    one.save(tmp_path / "s.json")
    assert load_shadow(tmp_path / "s.json", "a", "b", "r") == one
    assert load_shadow(tmp_path / "s.json", "a", "c", "r").compared == 0
    (tmp_path / "s.json").write_text("{nope")
    assert load_shadow(tmp_path / "s.json", "a", "b", "r").compared == 0
    (tmp_path / "s.json").write_text(json.dumps({"champion": "a"}))
    assert load_shadow(tmp_path / "s.json", "a", "b", "r").compared == 0


def test_problems_say_what_where_and_how():
    problem = Problem(422, "bad", "it is bad", "mend it", where="amount")
    document = json.loads(problem.body("r1"))
    assert document["type"] == "urn:penstock:problem:bad"
    assert (document["detail"], document["fix"]) == ("it is bad", "mend it")
    assert (document["where"], document["request_id"]) == ("amount", "r1")
    assert too_many(0.2).headers["retry-after"] == "1"
    assert too_many(2.6).headers["retry-after"] == "3"


def decision(i, verdict="approve"):
    return Decision(f"e{i}", i, 1.0, ("a",), 0.5, verdict, "")


def test_watchers_get_alerts_first_and_the_count():
    live = LiveDecisions()

    async def scenario():
        over = False
        stream = live.watch(lambda: over)
        assert await anext(stream) == b"retry: 2000\n\n"
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.01)
        assert live.watchers == 1
        for i in range(100):
            live.add(decision(i, "block" if i == 3 else "approve"))
        event = await waiting
        over = True
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(stream), 5)
        return event

    event = asyncio.run(scenario())
    name, data, *_ = event.split(b"\n")
    assert name == b"event: decisions"
    message = json.loads(data.removeprefix(b"data: "))
    assert message["count"] == 100
    assert len(message["decisions"]) == 12
    assert message["decisions"][0]["decision"] == "block"
    assert live.watchers == 0
    assert [d.event for d in live.recent(2)] == ["e99", "e98"]


def test_scale_keeps_small_thresholds_visible():
    scale = score_scale(0.5, 0.01, 0.1)
    assert scale.score == 50.0
    assert 20 < scale.review < scale.block < 50
    assert score_scale(None, 0, 1) == (None, 0.0, 100.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"port": 70_000}, "port"),
        ({"host": "0.0.0.0"}, "reached from other machines"),
        ({"tls_key": "/absent"}, "belong together"),
        ({"tls_key": "/absent", "tls_certificate": "/absent"}, "not a file"),
        ({"mode": "stream"}, "set kafka"),
        ({"mode": "dream"}, "mode"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        api_settings(**changes)


def test_settings_never_show_tokens(monkeypatch):
    monkeypatch.setenv("PENSTOCK_API_TOKENS", "shop:score:very-secret-indeed-0123")
    monkeypatch.setenv("PENSTOCK_API_LOG_LEVEL", "info")
    settings = api_settings()
    assert "very-secret" not in repr(settings)
    assert settings.log_level == "INFO"
    monkeypatch.setenv("PENSTOCK_API_PORT", "many")
    with pytest.raises(ConfigurationError) as caught:
        api_settings()
    assert "many" not in str(caught.value).split("Correct")[0].split("port:")[0]
