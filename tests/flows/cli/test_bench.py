from __future__ import annotations

import signal
import subprocess
import time

import psutil
import pytest

from flows.cli import bench
from flows.cli import main as cli
from flows.cli.interrupts import Terminated

PASSING = "import sys, json; print(json.dumps({'arguments': sys.argv[1:]}))"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout whose benchmarks the test writes."""
    folder = tmp_path / "tests" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    for helper in ("_harness.py", "test_some_speed.py", "conftest.py"):
        (folder / helper).touch()
    (folder / "some_speed.py").write_text(PASSING)
    monkeypatch.setattr("infra.logging.configure_logging", lambda level, *, debug: None)
    monkeypatch.setattr(bench.benchmark_names, "__defaults__", (tmp_path,))
    monkeypatch.setattr(bench.run_benchmark, "__defaults__", (tmp_path,))
    return folder


@pytest.mark.parametrize("name", ["some-speed", "some_speed"])
def test_options_reach_the_benchmark(checkout, capfd, name):
    assert cli.run(["bench", name, "--smoke", "--json", "--data", "x.parquet"]) == 0
    assert capfd.readouterr().out.strip() == (
        '{"arguments": ["--smoke", "--json", "--data", "x.parquet"]}'
    )


def test_its_exit_code_is_ours(checkout):
    (checkout / "some_speed.py").write_text("raise SystemExit(3)")
    assert cli.run(["bench", "some-speed"]) == 1


def test_an_unknown_name_lists_the_names(checkout, capsys):
    assert cli.run(["bench", "nosuch"]) == 1
    assert "no benchmark named 'nosuch'. Choose one of: some-speed" in capsys.readouterr().err


@pytest.mark.parametrize("line", [["bench"], ["bench", "--help"]])
def test_the_names_are_listed(checkout, capsys, line):
    assert cli.run(line) == 0
    assert capsys.readouterr().out.endswith("Benchmarks:\n  some-speed\n")


def test_all_run_even_after_a_failure_which_is_named(checkout, capfd):
    (checkout / "a_broken.py").write_text("raise SystemExit(1)")
    assert cli.run(["bench", "all", "--smoke"]) == 1
    told = capfd.readouterr()
    assert '["--smoke"]' in told.out
    assert "failed: a-broken" in told.err


TIDYING = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    pathlib.Path({started!r}).touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    pathlib.Path({tidied!r}).touch()
"""


@pytest.fixture
def interrupted_benchmark(checkout, monkeypatch):
    """Runs a benchmark that takes a moment to tidy up, and interrupts us; whether it tidied."""
    started, tidied = checkout / "started", checkout / "tidied"
    code = TIDYING.format(started=str(started), tidied=str(tidied))
    (checkout / "some_speed.py").write_text(code)
    monkeypatch.setattr(bench, "TIDY_SECONDS", 5)
    wait, waited = subprocess.Popen.wait, []

    def run(interrupt) -> bool:
        def interrupted(process, timeout=None):
            waited.append(process)
            if len(waited) == 1:
                while not started.exists():
                    time.sleep(0.05)
                interrupt(process)
            return wait(process, timeout)

        monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bench.run_benchmark("some-speed", [])
        return tidied.exists()

    return run


def test_ctrl_c_in_a_terminal_reaches_the_benchmark_once(interrupted_benchmark):
    """It comes from the terminal; a second one from us would break the tidying."""

    def press(process) -> None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        raise KeyboardInterrupt

    assert interrupted_benchmark(press)


def test_a_benchmark_that_was_not_interrupted_is_after_a_while(interrupted_benchmark, monkeypatch):
    monkeypatch.setattr(bench, "TIDY_SECONDS", 1)

    def press(process) -> None:
        raise KeyboardInterrupt

    assert interrupted_benchmark(press)


def test_sigterm_is_passed_on(interrupted_benchmark):
    def end(process) -> None:
        raise Terminated

    assert interrupted_benchmark(end)


def test_a_benchmark_that_hangs_is_killed(checkout, interrupted_benchmark, monkeypatch):
    monkeypatch.setattr(bench, "TIDY_SECONDS", 0.2)
    pids = []

    def press(process) -> None:
        pids.append(process.pid)
        process.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    (checkout / "some_speed.py").write_text(f"""
import pathlib, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
pathlib.Path({str(checkout / "started")!r}).touch()
time.sleep(60)
""")
    assert not interrupted_benchmark(press)
    assert not psutil.pid_exists(pids[0])


def test_ctrl_c_while_libraries_load_shows_no_traceback(checkout, capfd):
    (checkout / "some_speed.py").write_text("raise KeyboardInterrupt")
    assert bench.run_benchmark("some-speed", []) == 130
    assert capfd.readouterr().err == ""
