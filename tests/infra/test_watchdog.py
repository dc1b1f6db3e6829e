"""The watchdog as it acts: on small real services, with a made-up job where one is needed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from typing import ClassVar

import psutil
import pytest

from infra.errors import ServiceError
from infra.flink_rest import FlinkRest, FlinkRestError
from infra.services.ports import any_free_port
from infra.services.registry import end_service, service_status, start_service
from infra.services.state import load_state
from infra.watchdog.actions import ServiceActions, is_usable, newest_restore, run_command
from infra.watchdog.config import WatchdogConfig, save_config
from infra.watchdog.loop import Watchdog
from infra.watchdog.observe import Observation, Observer
from infra.watchdog.report import Report, ReportServer, as_metrics, read_status, write_status
from tests.processes import alive, wait_for


@pytest.fixture
def web(settings, registered, http_service):
    registered("web", lambda _, port: http_service(port))
    start_service(settings, "web")
    yield "web"
    end_service(settings, "web")


@pytest.fixture
def watch(settings):
    """Runs a watchdog in a thread until the test ends."""
    stops = []

    def run(config: WatchdogConfig, observer=None) -> Watchdog:
        watchdog = Watchdog(settings, config, ServiceActions(settings), observer)
        stop = threading.Event()
        thread = threading.Thread(target=watchdog.run, args=(stop,))
        thread.start()
        stops.append((stop, thread))
        return watchdog

    yield run
    for stop, thread in stops:
        stop.set()
        thread.join(timeout=30)


WEB = WatchdogConfig(services=("web",), poll_s=0.1, look_s=0.1)


def test_a_crashed_service_is_back_within_seconds(settings, web, watch):
    watchdog = watch(WEB)
    wait_for(lambda: watchdog.report.services == {"web": "running"})
    before = load_state(settings, "web").pid
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: watchdog.report.counts == {"revive": 1}, seconds=10)
    after = service_status(settings, "web")
    assert (after.state, after.pid != before) == ("running", True)
    assert watchdog.report.state == "idle"


def test_a_service_stopped_on_purpose_stays_stopped(settings, web, watch):
    watchdog = watch(WEB)
    wait_for(lambda: watchdog.report.services == {"web": "running"})
    end_service(settings, "web")
    wait_for(lambda: watchdog.report.services == {})
    time.sleep(0.5)
    assert service_status(settings, "web").state == "stopped"


def test_a_service_that_cannot_come_back_is_tried_with_pauses(settings, web, watch, registered):
    watchdog = watch(WEB)

    def broken(_, port):
        raise ServiceError("web: no disk", "Buy one")

    registered("web", broken)
    os.kill(load_state(settings, "web").pid, signal.SIGKILL)
    wait_for(lambda: watchdog.report.counts.get("revive", 0) >= 2)
    results = [action["result"] for action in watchdog.report.actions]
    assert "attempt 2 to start web failed: web: no disk. Buy one" in results[1]
    assert watchdog.report.actions[1]["at"] - watchdog.report.actions[0]["at"] >= 1.9


def test_a_taskmanager_waits_while_the_job_comes_back_on_the_other(settings):
    class Fake:
        revived: ClassVar[list[str]] = []
        crashed: ClassVar[set[str]] = {"flink-taskmanager"}

        def states(self, services):
            return {name: "crashed" if name in self.crashed else "running" for name in services}

        def revive(self, name):
            self.revived.append(name)
            return True

    two = ("flink-taskmanager", "flink-standby")
    config = WatchdogConfig(job="fraud", services=two, look_s=0.01, standby_s=30)
    seen = Observation(at=time.time(), reachable=True, job="a", state="RESTARTING")
    watchdog = Watchdog(settings, config, Fake(), lambda: seen)
    for _ in range(5):
        watchdog.step()
        time.sleep(0.02)
    assert Fake.revived == []
    seen = replace(seen, state="RUNNING", checkpoint_at=time.time() + 1)
    wait_for(lambda: watchdog.step() or Fake.revived == ["flink-taskmanager"])
    # Where both are gone, neither waits.
    both = Watchdog(settings, config, Fake(), lambda: replace(seen, checkpoint_at=0.0))
    Fake.crashed, Fake.revived = set(two), []
    wait_for(lambda: both.step() or sorted(Fake.revived) == sorted(two))


def test_a_failed_job_is_submitted_by_the_command(settings, watch, tmp_path):
    made = tmp_path / "submitted"
    script = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(' '.join(sys.argv[2:]))"
    kept = settings.home / "flink" / "checkpoints" / "job1" / "chk-7"
    kept.mkdir(parents=True)
    (kept / "_metadata").touch()
    failed = Observation(at=0, reachable=True, job="job1", state="FAILED")
    config = WatchdogConfig(
        job="fraud", submit=(sys.executable, "-c", script, str(made)), services=(), look_s=0.1
    )
    # No cluster runs, so that the job cannot be cancelled: told, and tried again.
    watchdog = watch(config, lambda: failed_at(failed))
    wait_for(lambda: watchdog.report.counts.get("resubmit", 0) >= 1)
    assert "no Flink cluster runs" in str(watchdog.report.actions[0]["result"])
    assert not made.exists()
    actions = ServiceActions(settings)
    assert actions.resubmit(config.submit, "", kept.as_uri()) == kept.as_uri()
    assert made.read_text() == f"--restore {kept.as_uri()}"


def failed_at(failed: Observation) -> Observation:
    return Observation(at=time.time(), reachable=True, job=failed.job, state=failed.state)


def test_new_settings_are_taken_up_and_broken_ones_are_not(settings, watch):
    watchdog = watch(WEB)
    path = settings.home / "watchdog" / "config.json"
    wait_for(lambda: read_status(settings) is not None)
    path.write_text("{")
    time.sleep(0.3)
    assert watchdog.config == WEB
    save_config(settings, WatchdogConfig(job="fraud", services=(), look_s=0.1, poll_s=0.1))
    wait_for(lambda: watchdog.report.state == "unreachable")
    assert watchdog.report.job == "fraud"


def test_an_error_within_one_look_does_not_end_the_watch(settings, watch):
    looks = []

    def look() -> Observation:
        looks.append(1)
        if len(looks) == 1:
            raise RuntimeError("a mistake of ours")
        return Observation(at=time.time(), reachable=True, job="a", state="RUNNING")

    watchdog = watch(WatchdogConfig(job="fraud", services=(), poll_s=0.1, look_s=0.1), look)
    wait_for(lambda: watchdog.report.state == "healthy")


def test_the_process_tells_its_state_and_ends_on_sigterm(settings):
    save_config(settings, WatchdogConfig(job="fraud", services=()))
    try:
        status = start_service(settings, "watchdog")
        metrics = fetch(f"{status.url}/metrics")
        assert 'penstock_stream_state{state="unreachable"} 1' in metrics
        found = json.loads(fetch(f"{status.url}/status"))
        assert (found["job"], found["state"]) == ("fraud", "unreachable")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(f"{status.url}/nowhere")
        wait_for(lambda: (read_status(settings) or {}).get("job") == "fraud")
        leader = psutil.Process(status.pid)
        os.kill(status.pid, signal.SIGTERM)
        psutil.wait_procs([leader], timeout=5)
        assert service_status(settings, "watchdog").state == "crashed"
    finally:
        end_service(settings, "watchdog")


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def test_a_watchdog_that_hangs_is_not_live():
    server = ReportServer(0, alive_s=1.0)
    server.start()
    try:
        server.report = Report(updated_at=time.time() - 5, state="healthy")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            fetch(f"http://127.0.0.1:{server.server_port}/health/live")
    finally:
        server.shutdown()
        server.server_close()


def test_metrics_tell_the_job_and_the_services(settings):
    report = Report(state="healthy", services={"kafka": "running", "redis": "crashed"})
    report.observation = {"checkpoint_at": time.time() - 2, "lag": 7, "restarts": 1}
    report.act("revive redis", "done")
    told = as_metrics(report)
    assert 'penstock_stream_state{state="healthy"} 1' in told
    assert "penstock_stream_lag_records 7" in told
    assert 'penstock_service_up{service="redis"} 0' in told
    assert 'penstock_watchdog_remedies_total{remedy="revive"} 1' in told
    write_status(settings, report)
    assert read_status(settings)["services"] == report.services


def test_a_cluster_that_is_away_is_an_observation(settings):
    assert not Observer(settings, WatchdogConfig(job="fraud")).look().reachable
    with pytest.raises(FlinkRestError, match="does not answer"):
        FlinkRest("127.0.0.1", any_free_port()).jobs()


def test_a_command_is_ended_with_all_it_started(tmp_path):
    note = tmp_path / "pid"
    code = f"""
import pathlib, subprocess, time
pathlib.Path({str(note)!r}).write_text(str(subprocess.Popen(["sleep", "60"]).pid))
time.sleep(60)
"""
    with pytest.raises(ServiceError, match="longer than"):
        run_command((sys.executable, "-c", code), 2.0)
    wait_for(lambda: not alive(int(note.read_text())))
    with pytest.raises(ServiceError, match="failed: no such thing"):
        run_command((sys.executable, "-c", "import sys; sys.exit('no such thing')"), 20)
    with pytest.raises(ServiceError, match="cannot be run"):
        run_command(("/nowhere/submit",), 20)


def test_the_newest_complete_checkpoint_or_savepoint_of_the_job_is_found(settings):
    checkpoints = settings.home / "flink" / "checkpoints" / "abcdef0123"
    savepoints = settings.home / "flink" / "savepoints"

    def make(folder, moment, *, complete=True):
        folder.mkdir(parents=True)
        if complete:
            (folder / "_metadata").touch()
            os.utime(folder / "_metadata", (moment, moment))

    make(checkpoints / "chk-1", 1)
    make(checkpoints / "chk-2", 2)
    make(checkpoints / "chk-3", 3, complete=False)
    make(savepoints / "savepoint-fedcba-77", 9)
    assert newest_restore(settings, "abcdef0123") == (checkpoints / "chk-2").as_uri()
    assert newest_restore(settings, "another") == newest_restore(settings, "") == ""
    make(savepoints / "savepoint-abcdef-55", 4)
    wanted = (savepoints / "savepoint-abcdef-55").as_uri()
    assert newest_restore(settings, "abcdef0123") == wanted
    assert is_usable((checkpoints / "chk-2").as_uri())
    assert not is_usable((checkpoints / "chk-3").as_uri())
    assert not is_usable("")
    assert is_usable("s3://bucket/chk-1")
