from __future__ import annotations

import socket
from importlib import metadata
from pathlib import Path

import pytest

from infra import doctor
from infra.settings import CHECKOUT


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Puts a script of the given name on an otherwise empty PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    def make(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return make


def test_every_finding_that_is_not_ok_has_a_fix(settings):
    findings = doctor.diagnose(settings)
    assert {finding.check for finding in findings} >= {"Python", "packages", "Java", "disk"}
    assert [finding for finding in findings if finding.level != "ok" and not finding.fix] == []


def test_this_environment_stands_at_its_pins():
    assert doctor.check_pins(CHECKOUT / "constraints.txt").level == "ok"
    assert doctor.check_python().level == "ok"


def test_drifted_and_missing_packages_are_named(tmp_path):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("# comment\nnumpy==0.1\nno-such-package==1.0\n")
    finding = doctor.check_pins(constraints)
    assert finding.level == "problem"
    assert f"numpy {metadata.version('numpy')} (pinned 0.1)" in finding.found
    assert "no-such-package missing" in finding.found
    assert "make setup" in finding.fix


def test_many_drifted_packages_are_counted(tmp_path):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("".join(f"absent-{i}==1\n" for i in range(8)))
    assert doctor.check_pins(constraints).found.endswith("and 3 more")


def test_absent_constraints_are_a_problem(tmp_path):
    assert doctor.check_pins(tmp_path / "constraints.txt").level == "problem"


@pytest.mark.parametrize(
    ("script", "level", "told"),
    [
        ("echo 'openjdk version \"17.0.15\"' >&2", "ok", "17.0.15"),
        ("echo 'openjdk version \"11.0.2\"' >&2", "problem", "11.0.2 (need 17)"),
        ("echo hello", "problem", "does not tell its version"),
        (None, "problem", "missing"),
    ],
)
def test_java_must_be_17(tool, script, level, told):
    if script:
        tool("java", script)
    finding = doctor.check_java()
    assert finding.level == level
    assert told in finding.found
    assert level == "ok" or "openjdk-17-jdk-headless" in finding.fix


def test_java_home_wins_over_the_path(tool, tmp_path, monkeypatch):
    tool("java", "echo 'openjdk version \"17.0.15\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "absent"))
    assert doctor.check_java().found == "missing"


def test_a_java_that_cannot_run_is_a_problem(tool):
    tool("java", "")
    broken = doctor.shutil.which("java")
    Path(broken).write_text("#!/no/such/interpreter\n")
    assert "does not run" in doctor.check_java().found


def test_chromium_is_optional(tool):
    assert doctor.check_chromium().level == "note"
    tool("chromium", "")
    assert doctor.check_chromium().level == "ok"


def test_what_the_stream_needs_is_named_with_its_remedy(tool, monkeypatch, tmp_path):
    assert (doctor.check_maven().level, doctor.check_maven().found) == ("note", "missing")
    tool("mvn", "")
    assert doctor.check_maven().level == "ok"
    redis = doctor.check_optional("Redis", "redis-server", "a store")
    assert (redis.level, redis.fix) == ("note", "For a store: sudo apt-get install -y redis-server")
    monkeypatch.setattr("infra.jars.jar_folder", lambda: tmp_path)
    finding = doctor.check_jars()
    assert finding.level == "note"
    assert finding.found == ("missing: the Kafka broker, the Flink connectors, our own module")


def test_the_gpu_is_optional(tool):
    assert doctor.check_gpu().level == "ok"
    tool("nvidia-smi", "echo 'Some GPU, 24 GiB, 550'")
    assert doctor.check_gpu().found == "Some GPU, 24 GiB, 550"
    tool("nvidia-smi", "echo 'driver mismatch'; exit 9")
    assert (doctor.check_gpu().level, doctor.check_gpu().found) == ("note", "driver mismatch")


def test_ports_free_taken_and_configured(settings):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configured = settings.model_copy(update={"prefect_port": port})
        prefect, mlflow, *others = doctor.check_ports(configured)
    assert prefect.level == "problem"
    assert str(port) in prefect.found
    assert "PENSTOCK_PREFECT_PORT" in prefect.fix
    assert mlflow.level == "ok"
    assert "port of Kafka broker" in {finding.check for finding in others}


def test_low_memory_and_disk_are_told(settings, monkeypatch):
    monkeypatch.setattr(doctor, "MEMORY_GIB", 1e9)
    monkeypatch.setattr(doctor, "DISK_GIB", 1e9)
    assert doctor.check_memory().level == "note"
    assert doctor.check_disk(settings.home).level == "problem"
