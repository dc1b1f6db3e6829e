from __future__ import annotations

import subprocess
import time

import pytest

from flows.cli import bench
from flows.cli import main as cli

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


def test_ctrl_c_gives_the_benchmark_time_to_tidy_up(checkout, monkeypatch):
    started, tidied = checkout / "started", checkout / "tidied"
    (checkout / "some_speed.py").write_text(f"""
import pathlib, time
try:
    pathlib.Path({str(started)!r}).touch()
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path({str(tidied)!r}).touch()
""")
    wait = subprocess.Popen.wait

    def interrupted(process, timeout=None):
        if timeout is None and not tidied.exists():
            while not started.exists():
                time.sleep(0.05)
            raise KeyboardInterrupt
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.run_benchmark("some-speed", [])
    assert tidied.exists()
