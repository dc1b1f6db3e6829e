"""``up``, ``down``, ``status`` and ``doctor`` over a small real service."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from flows.cli import main as cli
from infra.services.registry import SERVICES, end_service
from infra.services.service import Service, ServiceDefinition
from infra.settings import get_settings


@pytest.fixture
def web(tmp_path, monkeypatch):
    """The only service of the registry: Python's own web server."""

    def build(settings, port: int) -> Service:
        command = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port))
        return Service("web", command, port)

    monkeypatch.setattr("infra.logging.configure_logging", lambda level, *, debug: None)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    before = dict(SERVICES)
    SERVICES.clear()
    SERVICES["web"] = ServiceDefinition("web", "Web", 0, lambda _: 0, build)
    yield "web"
    end_service(get_settings(), "web")
    SERVICES.clear()
    SERVICES.update(before)


def served_by(*command: str) -> None:
    """Let another command be the service."""
    other = ServiceDefinition(
        "web", "Web", 0, lambda _: 0, lambda _, port: Service("web", command, port)
    )
    SERVICES["web"] = other


def told_status(capsys) -> dict:
    assert cli.run(["status", "--json"]) == 0
    return json.loads(capsys.readouterr().out)[0]


def test_up_status_down(web, capsys):
    assert told_status(capsys)["state"] == "stopped"

    assert cli.run(["up"]) == 0
    assert "Web started: http://127.0.0.1:" in capsys.readouterr().out
    first = told_status(capsys)
    assert first["state"] == "running"

    assert cli.run(["up", "web"]) == 0
    assert f"Web already running: {first['url']}" in capsys.readouterr().out

    assert cli.run(["status"]) == 0
    assert str(first["pid"]) in capsys.readouterr().out

    assert cli.run(["down"]) == 0
    assert "Web stopped" in capsys.readouterr().out
    assert cli.run(["down"]) == 0
    assert "Web was not running" in capsys.readouterr().out


def test_a_service_that_cannot_start_is_one_line(web, capsys):
    served_by("/x")
    assert cli.run(["up"]) == 1
    assert "penstock: web: /x is not installed. Run: make setup" in capsys.readouterr().err


def test_ctrl_c_while_starting_leaves_nothing_behind(web, capsys, monkeypatch):
    served_by(sys.executable, "-c", "import time; time.sleep(60)")

    def interrupted(futures) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.cli.services.wait", interrupted)
    assert cli.run(["up"]) == 130
    assert told_status(capsys)["state"] == "stopped"


def test_an_unknown_service_is_told(web, capsys):
    assert cli.run(["up", "kafka"]) == 1
    assert "no service named 'kafka'. Known: web" in capsys.readouterr().err


@pytest.fixture
def streamed(web):
    """Beside it: a service of the stream, what that one needs, and one that starts when named."""
    build = SERVICES["web"].build

    def add(name: str, **fields) -> None:
        def made(settings, port: int) -> Service:
            return replace(build(settings, port), name=name)

        SERVICES[name] = ServiceDefinition(name, name.title(), 0, lambda _: 0, made, **fields)

    add("broker", group="stream", address="127.0.0.1:{port}")
    add("engine", group="stream", needs=("broker",), ready=lambda *_: True)
    add("unset", group="stream", wanted=lambda _: False)
    add("extra", group="extra")
    yield
    for name in reversed(SERVICES):
        end_service(get_settings(), name)


def running(capsys) -> list[str]:
    assert cli.run(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return [each["name"] for each in found if each["state"] == "running"]


def test_up_alone_leaves_the_stream_out(streamed, capsys):
    assert cli.run(["up"]) == 0
    capsys.readouterr()
    assert running(capsys) == ["web"]


def test_up_stream_adds_what_is_wanted_of_it(streamed, capsys):
    assert cli.run(["up", "--stream"]) == 0
    told = capsys.readouterr().out
    assert "Broker started: 127.0.0.1:" in told
    assert "already" not in told
    assert running(capsys) == ["web", "broker", "engine"]
    assert cli.run(["down"]) == 0
    told = capsys.readouterr().out
    assert told.index("Engine stopped") < told.index("Broker stopped") < told.index("Web stopped")
    assert "Extra" not in told, "it did not run, and a plain up would not start it"
    assert running(capsys) == []


def test_a_named_service_brings_what_it_needs(streamed, capsys):
    assert cli.run(["up", "engine", "extra"]) == 0
    capsys.readouterr()
    assert running(capsys) == ["broker", "engine", "extra"]


def test_what_needs_a_service_that_fails_is_not_started(streamed, capsys):
    broken = Service("broker", ("/x",), 1)
    SERVICES["broker"] = replace(SERVICES["broker"], build=lambda *_: broken)
    assert cli.run(["up", "engine"]) == 1
    assert "broker: /x is not installed" in capsys.readouterr().err
    assert running(capsys) == []


def test_doctor_shows_findings_and_fails_on_a_problem(web, capsys, monkeypatch):
    monkeypatch.setattr("infra.doctor.DISK_GIB", 1e9)
    assert cli.run(["doctor"]) == 1
    assert "disk" in capsys.readouterr().out
    assert cli.run(["doctor", "--json"]) == 1
    findings = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["disk"]["level"] == "problem"
    assert findings["disk"]["fix"]
