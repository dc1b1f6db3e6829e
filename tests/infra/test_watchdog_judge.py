"""The rules of the watchdog on made-up observations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import ConfigurationError
from infra.watchdog.config import WatchdogConfig, config_path, load_config, save_config
from infra.watchdog.judge import LADDER, Judge
from infra.watchdog.observe import Observation

BEGAN = 1_000.0
SUBMIT = ("penstock", "stream", "start")
CONFIG = WatchdogConfig(job="fraud", submit=SUBMIT)


def running(at: float, checkpoint_at: float, **fields) -> Observation:
    known = {
        "reachable": True,
        "job": "a1",
        "state": "RUNNING",
        "started_at": BEGAN,
        "changed_at": BEGAN,
        "interval_s": 1.0,
        "path": "file:/chk-1",
    }
    return Observation(at=at, checkpoint_at=checkpoint_at, **(known | fields))


def remedies(judge: Judge, seen: list[Observation]) -> list[tuple[float, str]]:
    found = [(each.at, judge.judge(each).remedy) for each in seen]
    return [(at - BEGAN, remedy) for at, remedy in found if remedy]


def test_fresh_checkpoints_are_healthy_and_running_alone_is_not():
    judge = Judge(CONFIG, BEGAN)
    assert judge.judge(running(BEGAN + 1, 0.0)).state == "starting"
    assert judge.judge(running(BEGAN + 5, BEGAN + 4)).state == "healthy"
    stuck = judge.judge(running(BEGAN + 60, BEGAN + 4))
    assert (stuck.state, stuck.remedy) == ("overdue", "end-workers")
    assert "no checkpoint for 56 s" in stuck.reason


def test_a_stuck_job_is_noticed_within_seconds():
    judge = Judge(CONFIG, BEGAN)
    looks = [running(BEGAN + t, BEGAN + min(t, 100)) for t in range(130)]
    assert remedies(judge, looks)[0] == (109, "end-workers")


def test_slow_checkpoints_get_their_time():
    judge = Judge(CONFIG, BEGAN)
    slow = {"interval_s": 10.0, "checkpoint_s": 15.0}
    looks = [running(BEGAN + 100 + t, BEGAN + 100, **slow) for t in range(48)]
    assert remedies(judge, looks) == []
    assert judge.judge(running(BEGAN + 148, BEGAN + 100, **slow)).remedy == "end-workers"


def test_a_restart_of_flink_gets_its_grace():
    judge = Judge(CONFIG, BEGAN)
    looks = [running(BEGAN + 100 + t, BEGAN + 100, changed_at=BEGAN + 101) for t in range(30)]
    assert remedies(judge, looks) == []
    assert judge.judge(looks[-1]).state == "starting"


def test_endless_restarts_are_overdue_in_the_end():
    judge = Judge(CONFIG, BEGAN)
    looks = [running(BEGAN + t, 0.0, changed_at=BEGAN + t - t % 10) for t in range(120)]
    assert remedies(judge, looks) == [(91, "end-workers")]


def test_remedies_grow_stronger_and_end():
    judge = Judge(CONFIG, BEGAN)
    looks = [running(BEGAN + t, BEGAN + 1) for t in range(2, 2000)]
    found = remedies(judge, looks)
    assert [remedy for _, remedy in found[:4]] == [*LADDER, "resubmit"]
    assert len(found) == CONFIG.max_remedies
    assert judge.judge(looks[-1]).state == "given-up"
    # A checkpoint by other means ends it, and the ladder begins anew.
    assert judge.judge(running(BEGAN + 2001, BEGAN + 2000.5)).state == "healthy"
    assert judge.judge(running(BEGAN + 3500, BEGAN + 2000.5)).remedy == "end-workers"


def test_a_failed_job_is_submitted_again():
    judge = Judge(CONFIG, BEGAN)
    failed = running(BEGAN + 50, BEGAN + 40, state="FAILED")
    assert judge.judge(failed).remedy == "resubmit"
    again = running(BEGAN + 51, BEGAN + 40, state="FAILED")
    assert "next remedy waits" in judge.judge(again).reason
    without = Judge(WatchdogConfig(job="fraud"), BEGAN)
    assert "no command" in without.judge(failed).reason


def test_a_job_that_fails_again_and_again_is_given_up_however_slowly():
    judge = Judge(CONFIG, BEGAN)
    looks = [running(BEGAN + 400 * t, 0.0, state="FAILED") for t in range(1, 40)]
    assert len(remedies(judge, looks)) == CONFIG.max_remedies


@pytest.mark.parametrize("state", ["CANCELED", "FINISHED"])
def test_a_job_ended_on_purpose_stays_ended(state):
    judge = Judge(CONFIG, BEGAN)
    looks = [running(BEGAN + t, BEGAN + 1, state=state) for t in range(100)]
    assert remedies(judge, looks) == []
    assert judge.judge(looks[-1]).state == "stopped"


def test_a_missing_job_is_submitted_after_a_while():
    judge = Judge(CONFIG, BEGAN)
    looks = [Observation(at=BEGAN + t, reachable=True) for t in range(30)]
    assert remedies(judge, looks)[0] == (12, "resubmit")


def test_a_silent_jobmanager_is_replaced():
    judge = Judge(CONFIG, BEGAN)
    looks = [Observation(at=BEGAN + t) for t in range(30)]
    assert remedies(judge, looks) == [(20, "replace-jobmanager")]


def test_lag_is_told_but_nothing_is_restarted():
    judge = Judge(WatchdogConfig(job="fraud", lag_limit=1000), BEGAN)
    judge.judge(running(BEGAN + 2, BEGAN + 1))
    verdict = judge.judge(running(BEGAN + 4, BEGAN + 3, lag=5000))
    assert (verdict.state, verdict.remedy) == ("lagging", "")
    assert "5,000 records behind" in verdict.reason


def test_without_a_job_it_is_idle():
    assert Judge(WatchdogConfig(), BEGAN).judge(Observation(at=BEGAN)).state == "idle"


LOOKS = st.lists(
    st.tuples(
        st.floats(0.1, 40.0),
        st.sampled_from(["RUNNING", "RESTARTING", "FAILED", "CANCELED", "absent", "away"]),
        st.booleans(),
    ),
    max_size=120,
)


@settings(max_examples=60, deadline=None)
@given(LOOKS)
def test_never_more_remedies_than_allowed(looks):
    """Whatever is seen: bounded in every window, spaced, and none while all is well."""
    judge, at, checkpoint_at, given_at = Judge(CONFIG, BEGAN), BEGAN, 0.0, []
    for step, state, checkpointed in looks:
        at += step
        checkpoint_at = at - 0.05 if checkpointed and state == "RUNNING" else checkpoint_at
        if state == "away":
            seen = Observation(at=at)
        elif state == "absent":
            seen = Observation(at=at, reachable=True)
        else:
            seen = running(at, checkpoint_at, state=state)
        verdict = judge.judge(seen)
        if checkpointed and state == "RUNNING":
            assert verdict.state == "healthy"
        if verdict.remedy:
            assert state != "CANCELED"
            assert not given_at or at - given_at[-1] >= CONFIG.backoff_s
            given_at.append(at)
            window = [each for each in given_at if at - each <= CONFIG.window_s]
            assert len(window) <= CONFIG.max_remedies


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"poll_s": 0}, "poll_s is 0"),
        ({"max_remedies": 0}, "max_remedies"),
        ({"backoff_s": 90.0}, "Raise backoff_max_s"),
    ],
)
def test_impossible_settings_are_refused(fields, told):
    with pytest.raises(ConfigurationError, match=told):
        WatchdogConfig(**fields)


def test_the_file_round_trips_and_a_broken_one_is_told(settings):
    assert load_config(settings) == WatchdogConfig()
    save_config(settings, CONFIG)
    assert load_config(settings) == CONFIG
    for text in ("{", "[]", '{"unknown": 1}', '{"poll_s": -1}'):
        config_path(settings).write_text(text)
        with pytest.raises(ConfigurationError):
            load_config(settings)


def test_a_job_that_somebody_is_changing_is_left_to_them():
    judge = Judge(CONFIG, BEGAN)
    looks = [running(BEGAN + t, 0.0, state="FINISHED", holder="alive") for t in range(1, 300)]
    assert remedies(judge, looks) == []
    assert judge.judge(looks[-1]).state == "held"
    away = Observation(at=BEGAN + 301, holder="alive")
    assert judge.judge(away).state == "held"


def test_a_job_whose_changer_died_is_submitted_again():
    judge = Judge(CONFIG, BEGAN)
    stopped = running(BEGAN + 60, BEGAN + 50, state="FINISHED", holder="dead")
    verdict = judge.judge(stopped)
    assert (verdict.state, verdict.remedy) == ("missing", "resubmit")
    # One that still runs is none the worse.
    judge = Judge(CONFIG, BEGAN)
    assert judge.judge(running(BEGAN + 60, BEGAN + 59, holder="dead")).state == "healthy"
