"""Services as real processes: started, found again, stopped with all their children."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import psutil
import pytest

from infra.errors import ServiceError
from infra.services.ports import any_free_port, choose_port, hold, is_free
from infra.services.process import group_members, is_healthy, service_lock, spawn, stop_group
from infra.services.registry import end_service, service_status, start_service
from infra.services.service import Service
from infra.services.state import load_state, save_state, state_path
from tests.processes import alive, wait_for


@pytest.fixture
def web(settings, registered, http_service):
    """A registered web service; stopped after the test whatever happened."""
    registered("web", lambda _, port: http_service(port))
    yield "web"
    end_service(settings, "web")


def test_a_service_starts_answers_and_stops(settings, web):
    status = start_service(settings, web)
    assert (status.state, status.already) == ("running", False)
    assert service_status(settings, web).url == status.url
    assert end_service(settings, web)
    assert service_status(settings, web).state == "stopped"
    assert not psutil.pid_exists(status.pid)
    assert not end_service(settings, web)


def test_starting_twice_reports_the_running_one(settings, web):
    first = start_service(settings, web)
    second = start_service(settings, web)
    assert second.already
    assert second.pid == first.pid


def test_it_outlives_the_command_and_its_terminal(settings, web):
    pid = start_service(settings, web).pid
    assert os.getsid(pid) == pid != os.getsid(0)


def test_a_start_cut_short_is_adopted(settings, web, http_service):
    """The starting command dies right after the process began: the record is there already."""
    state, process = spawn(settings, http_service(any_free_port()))
    status = start_service(settings, web)
    assert status.already
    assert status.pid == state.pid
    end_service(settings, web)
    process.wait()


def test_a_port_in_use_is_told(settings, registered, http_service):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        registered("web", lambda _, port: http_service(port), port)
        with pytest.raises(ServiceError, match=f"port {port} .* in use.*PENSTOCK_WEB_PORT"):
            start_service(settings, "web")
    assert load_state(settings, "web") is None


def test_ports_are_chosen_configured_then_usual_then_any():
    free = any_free_port()
    assert is_free(free)
    assert choose_port(free, 1, service="x") == free
    assert choose_port(0, free, service="x") == free
    with socket.create_server(("127.0.0.1", free)):
        assert choose_port(0, free, service="x") not in {0, free}


def test_a_held_port_is_given_to_its_server_alone(monkeypatch):
    with hold(any_free_port()) as held:
        port = held.getsockname()[1]
        monkeypatch.setattr("infra.services.ports.LOWEST", port)
        monkeypatch.setattr("infra.services.ports.highest_port", lambda: port + 1)
        assert any_free_port() != port
        assert choose_port(port, 0, service="x") == port
        with socket.create_server(("127.0.0.1", port)) as server:
            assert server.getsockname()[1] == port
    assert any_free_port() == port


def test_a_process_that_ends_is_told_with_its_last_words(settings, registered, http_service):
    script = "import sys; sys.exit('no such database')"
    registered("web", lambda _, port: http_service(port, script))
    with pytest.raises(ServiceError, match=r"ended while starting: no such database.*web\.log"):
        start_service(settings, "web")
    assert not state_path(settings, "web").exists()


def test_a_process_that_never_answers_is_stopped(settings, registered, http_service):
    quick = settings.model_copy(update={"service_timeout": 0.5})
    registered("web", lambda _, port: http_service(port, "import time; time.sleep(60)"))
    with pytest.raises(ServiceError, match=r"did not answer on port \d+ within"):
        start_service(quick, "web")
    assert load_state(quick, "web") is None


def test_a_start_can_be_given_up(settings, registered, http_service):
    registered("web", lambda _, port: http_service(port, "import time; time.sleep(60)"))
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    with pytest.raises(ServiceError, match="given up"):
        start_service(settings, "web", cancel)
    assert load_state(settings, "web") is None


def test_waiting_for_another_command_can_be_given_up(settings, web):
    cancel, told = threading.Event(), []

    def start() -> None:
        with pytest.raises(ServiceError, match="given up") as refused:
            start_service(settings, web, cancel)
        told.append(refused)

    waiting = threading.Thread(target=start, daemon=True)
    with service_lock(settings, web):
        waiting.start()
        cancel.set()
        waiting.join(timeout=5)
        assert told
    assert load_state(settings, web) is None


def children_of(port):
    """Ids of our children that name a port; one that ended meanwhile names nothing."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if str(port) in child.cmdline():
                found.append(child.pid)
    return found


def test_a_server_that_cannot_be_recorded_is_ended(settings, http_service, monkeypatch):
    def full(settings, state) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("infra.services.process.save_state", full)
    port = any_free_port()
    with pytest.raises(OSError, match="No space"):
        spawn(settings, http_service(port))
    assert [pid for pid in children_of(port) if alive(pid)] == []


def test_a_program_that_is_missing_is_told(settings, registered):
    registered("web", lambda _, port: Service("web", ("/nowhere/server",), port))
    with pytest.raises(ServiceError, match="/nowhere/server is not installed"):
        start_service(settings, "web")


def test_children_that_ignore_sigterm_end_too(settings, http_service, stubborn_script):
    state, process = spawn(settings, http_service(any_free_port(), stubborn_script))
    wait_for(lambda: len(group_members(state)) == 2)
    pids = [member.pid for member in group_members(state)]
    assert stop_group(state, timeout=0.5)
    process.wait()
    assert not [pid for pid in pids if psutil.pid_exists(pid) and alive(pid)]


def test_orphans_of_a_dead_leader_are_ended_before_a_new_start(
    settings, registered, http_service, stubborn_script
):
    obedient = stubborn_script.replace("SIG_IGN", "SIG_DFL")
    state, process = spawn(settings, http_service(any_free_port(), obedient))
    wait_for(lambda: len(group_members(state)) == 2)
    os.kill(state.pid, signal.SIGKILL)
    process.wait()
    orphan = group_members(state)[0].pid
    registered("web", lambda _, port: http_service(port))
    assert service_status(settings, "web").state == "crashed"
    try:
        assert start_service(settings, "web").pid != state.pid
        assert not alive(orphan)
    finally:
        end_service(settings, "web")


def test_a_reused_process_id_is_left_alone(settings, http_service):
    """Same id, other start time and no token: somebody else's process."""
    innocent = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
    )
    try:
        state, process = spawn(settings, http_service(any_free_port()))
        stop_group(state)
        process.wait()
        record = json.loads(state_path(settings, "web").read_text())
        record |= {"pid": innocent.pid, "created": record["created"] - 1000}
        state_path(settings, "web").write_text(json.dumps(record))
        stale = load_state(settings, "web")
        assert group_members(stale) == []
        assert not stop_group(stale)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_clock_set_anew_hides_no_server(settings, web):
    """The start times derived from the clock then differ; the token still tells."""
    pid = start_service(settings, web).pid
    record = json.loads(state_path(settings, web).read_text())
    record["created"] -= 3600
    state_path(settings, web).write_text(json.dumps(record))
    assert service_status(settings, web).state == "running"
    assert end_service(settings, web)
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"command": 3}', "[]"])
def test_a_broken_record_counts_as_none(settings, text):
    path = state_path(settings, "web")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert load_state(settings, "web") is None


def test_the_record_holds_no_secret(settings, http_service):
    service = http_service(any_free_port(), environment={"DATABASE": "hunter2"})
    state, process = spawn(settings, service)
    stop_group(state)
    process.wait()
    save_state(settings, state)
    assert "hunter2" not in state_path(settings, "web").read_text()
    assert "hunter2" not in repr(service)
    assert state_path(settings, "web").stat().st_mode & 0o077 == 0


def test_health_is_a_2xx_or_an_open_port(settings, web):
    port = int(start_service(settings, web).url.rsplit(":", 1)[1])
    assert is_healthy(port, "")
    assert is_healthy(port, "/")
    assert not is_healthy(port, "/absent")
    assert not is_healthy(any_free_port(), "/")


def test_an_unknown_service_is_told_with_those_known(settings):
    with pytest.raises(ServiceError, match=r"no service named 'kafka2'.*prefect, mlflow"):
        service_status(settings, "kafka2")
