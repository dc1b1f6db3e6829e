"""SIGTERM and SIGKILL: one line, the right code, and no server left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.cli.interrupts import Interrupts, Terminated, watch_interrupts
from tests.processes import alive, unmeasured, wait_for

PENSTOCK = Path(sys.executable).parent / "penstock"
PATIENCE = 120
# Stands for uvicorn; ends in order, if it is asked to.
UVICORN = """
import pathlib, sys, time

def main():
    pathlib.Path(sys.argv[sys.argv.index("--port") + 1]).touch()
    time.sleep(600)
"""
COMMAND = """
import os, time
from pathlib import Path
from flows.cli.interrupts import shield_temporary_server
from prefect.server.api.server import SubprocessASGIServer

shield_temporary_server(Path("logs") / "server.log")
server = SubprocessASGIServer(4321)
print(server._run_uvicorn_command().pid, flush=True)
time.sleep(600)
"""


def test_the_temporary_server_ends_with_a_killed_command(tmp_path, end_with_run):
    (tmp_path / "uvicorn.py").write_text(UVICORN)
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    server = int(command.stdout.readline())
    end_with_run(server)
    try:
        wait_for((tmp_path / "4321").exists, "the server did not start")
        assert os.getpgid(server) == server != os.getpgid(command.pid), "Ctrl-C would reach it"
    finally:
        command.kill()
        command.communicate()
    wait_for(lambda: not alive(server), "the server outlived its command", seconds=10)
    end_with_run(-server)
    assert (tmp_path / "logs" / "server.log").is_file()


@pytest.mark.long
def test_sigterm_in_training_ends_in_order_with_the_temporary_server(tmp_path, mlflow_server):
    home = tmp_path / "home"
    environment = unmeasured() | {
        "PENSTOCK_HOME": str(home),
        "PENSTOCK_MLFLOW_TRACKING_URI": mlflow_server,
    }
    size = ("--cards", "120", "--terminals", "60", "--days", "42")
    subprocess.run(
        [PENSTOCK, "simulate", "cards", "bank.parquet", *size],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
    )
    environment.pop("PREFECT_API_URL", None)
    with (tmp_path / "err.txt").open("wb") as err:
        command = subprocess.Popen(
            [PENSTOCK, "fraud", "train", "bank.parquet", "--no-graph", "--no-promote"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=err,
            start_new_session=True,
        )
    try:
        wait_for(psutil.Process(command.pid).children, "no temporary server", seconds=PATIENCE)
        (server,) = psutil.Process(command.pid).children()
        wait_for(lambda: list((home / "work").rglob(".*")), "no work under way", seconds=PATIENCE)
        command.terminate()
        assert command.wait(PATIENCE) == 143
    finally:
        command.kill()
        command.wait()
    assert not alive(server.pid)
    told = [line for line in (tmp_path / "err.txt").read_text().splitlines() if line.strip()]
    assert len(told) == 1, told
    assert told[0].startswith("penstock: ended by SIGTERM; nothing half-written is kept")
    assert list((home / "work").rglob(".*")) == []


def test_sigterm_while_simulating_leaves_no_file(tmp_path):
    words = ("simulate", "cards", "many.parquet", "--cards", "20000", "--days", "400")
    command = subprocess.Popen([PENSTOCK, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.glob(".many*")), "no temporary file", seconds=PATIENCE)
    command.terminate()
    told = command.communicate(timeout=PATIENCE)[1]
    assert command.returncode == 143
    assert "ended by SIGTERM" in told
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_comes_twice_at_once_counts_once(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    interrupts = Interrupts()
    with pytest.raises(Terminated):
        interrupts.handle(signal.SIGTERM, None)
    interrupts.handle(signal.SIGTERM, None)
    now += 5
    with pytest.raises(KeyboardInterrupt):
        interrupts.handle(signal.SIGINT, None)
    assert interrupts.code == 143


def test_handlers_of_others_are_left_and_ours_taken_back():
    def theirs(number, frame) -> None:
        pass

    before = signal.signal(signal.SIGTERM, theirs)
    try:
        with watch_interrupts() as interrupts:
            assert signal.getsignal(signal.SIGINT) == interrupts.handle
            assert signal.getsignal(signal.SIGTERM) is theirs
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
