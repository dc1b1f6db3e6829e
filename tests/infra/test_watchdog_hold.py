"""Who changes the watched job: alone, marked while it lives, and known to have given up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from infra.services.process import is_alive
from infra.watchdog.config import WatchdogConfig, load_config, save_config
from infra.watchdog.hold import ABANDONED, hold, settle
from infra.watchdog.loop import Watchdog
from infra.watchdog.observe import Observation

HELD = """
import sys, time
from infra.settings import Settings
from infra.watchdog.hold import hold
with hold(Settings(home=sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(settings):
    config = load_config(settings)
    return config.holder, config.holder_since


def test_a_hold_is_marked_and_let_go(settings):
    save_config(settings, WatchdogConfig(job="fraud", submit=("x",)))
    with hold(settings):
        assert holder(settings)[0] == os.getpid()
        assert is_alive(*holder(settings))
    assert holder(settings) == (0, 0.0)
    assert load_config(settings).job == "fraud"


def test_who_gives_up_counts_as_dead(settings):
    with pytest.raises(KeyboardInterrupt), hold(settings):
        raise KeyboardInterrupt
    assert holder(settings) == (os.getpid(), ABANDONED)
    assert not is_alive(*holder(settings))
    settle(settings, os.getpid() + 1, ABANDONED)
    assert holder(settings)[0], "that was another one"
    settle(settings, *holder(settings))
    assert holder(settings) == (0, 0.0)


def test_one_at_a_time_and_a_killed_one_lets_the_next_in(settings):
    settings.home.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, str(settings.home)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        dead = holder(settings)
        assert dead[0] == process.pid
        entered = threading.Event()

        def wait():
            with hold(settings):
                entered.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.wait(0.5)
        settle(settings, *dead)
        assert holder(settings) == dead, "another process is at work"
        process.kill()
        assert entered.wait(10)
        thread.join()
        assert not is_alive(*dead)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_watchdog_forgets_a_dead_holder_once_the_job_is_well(settings):
    class Nothing:
        def states(self, _):
            return {}

    config = WatchdogConfig(job="fraud", look_s=0.01, holder=1, holder_since=ABANDONED)
    save_config(settings, config)
    now = time.time()
    seen = Observation(
        at=now,
        reachable=True,
        job="a",
        state="RUNNING",
        holder="dead",
        interval_s=1.0,
        started_at=now - 9,
        checkpoint_at=now - 1,
    )
    watchdog = Watchdog(settings, config, Nothing(), lambda: seen)
    watchdog.step()
    assert holder(settings)[0] == 1, "a savepoint may be about to end the job"
    seen = Observation(**{**vars(seen), "at": now + 7, "checkpoint_at": now + 6})
    watchdog._looked_at = 0.0
    watchdog.step()
    assert holder(settings) == (0, 0.0)
