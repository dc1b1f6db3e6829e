"""A process that hangs is named, with where, since when, and its stack; others are not blamed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kernels.runtime.hang_detector import (
    HANG_EXIT_CODE,
    HangConfig,
    HangDetector,
    Status,
    judged,
    read_statuses,
    told,
)
from kernels.runtime.launch import RankFailedError, launch

PROGRAM = Path(__file__).with_name("hang_run.py")
CONFIG = HangConfig(timeout=10.0, interval=1.0)
MOVING = Status(0, os.getpid(), socket.gethostname(), 7, 1000.0, 1030.0, doing="f (a.py:1)")
WAITING = replace(MOVING, waits=True, doing="all_reduce, called by step (b.py:2)")


@pytest.mark.long
def test_a_rank_that_hangs_in_a_real_group_is_named(tmp_path, capfd):
    began = time.monotonic()
    with pytest.raises(RankFailedError, match=f"rank 1 of 2 ended with {HANG_EXIT_CODE}"):
        launch([sys.executable, str(PROGRAM), str(tmp_path)], 2)
    assert time.monotonic() - began < 45  # start-up on a busy machine; the group's own would be 60
    said = (tmp_path / "hang.txt").read_text()
    assert "rank 1 of 2 hangs since" in said
    assert "at step 3 in read_for_ever (hang_run.py:" in said
    assert "waiting for it: rank 0 in all_reduce, called by main (hang_run.py:" in said
    assert "read_for_ever" in (tmp_path / "rank-1.stack").read_text()
    stack = tmp_path / "rank-0.stack"  # gone, where the end of its neighbour reached it first
    assert not stack.exists() or not stack.read_text()
    assert said.strip() in capfd.readouterr().err


def test_a_stopped_process_is_told_apart(tmp_path):
    child = subprocess.Popen(["sleep", "60"])
    try:
        os.kill(child.pid, signal.SIGSTOP)
        stopped = replace(MOVING, rank=1, pid=child.pid, now=1000.5)
        deadline = time.monotonic() + 10
        while "SIGSTOP" not in (said := judged([WAITING, stopped], 2, 1030.0, CONFIG)):
            assert time.monotonic() < deadline, said
            time.sleep(0.01)
        assert f"rank 1 of 2 hangs since {time.strftime('%H:%M:%S', time.localtime(1000))}" in said
        assert "(30 s) at step 7" in said
    finally:
        child.kill()
        child.wait()
    assert "is gone" in judged([WAITING, stopped], 2, 1030.0, CONFIG)
    busy = replace(MOVING, rank=1, now=1000.5)
    assert "does not let Python run" in judged([WAITING, busy], 2, 1030.0, CONFIG)
    elsewhere = replace(busy, host="another")
    assert "is its machine up" in judged([WAITING, elsewhere], 2, 1030.0, CONFIG)


SILENT = """
import re, sys
from pathlib import Path
from kernels.runtime.hang_detector import HangConfig, HangDetector

def catastrophic():
    re.match("(a+)+$", "a" * 64 + "b")  # for hours, and no other thread of Python runs

plan = HangConfig(timeout=0.4, interval=0.1)
with HangDetector(Path(sys.argv[1]), plan, rank=0, size=1):
    catastrophic()
"""


def test_code_that_lets_no_python_run_leaves_its_stack_as_well(tmp_path):
    root = Path(__file__).resolve().parents[3]
    child = subprocess.Popen([sys.executable, "-c", SILENT, str(tmp_path)], cwd=root)
    try:
        stack = tmp_path / "rank-0.stack"
        deadline = time.monotonic() + 30
        while not (stack.exists() and "catastrophic" in stack.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        plan = HangConfig(timeout=0.4, interval=0.1)
        assert "does not let Python run" in judged(read_statuses(tmp_path), 1, time.time(), plan)
    finally:
        child.kill()
        child.wait()


HANGING = """
import sys, time
from pathlib import Path
from kernels.runtime.hang_detector import HangConfig, HangDetector

with HangDetector(Path(sys.argv[1]), HangConfig(timeout=0.4, interval=0.1), rank=0, size=1):
    time.sleep(20)
"""


def test_a_process_that_hangs_is_ended_also_where_that_cannot_be_written_down(tmp_path):
    """A folder lies where the file would be; a full disk refuses by the same kind of error."""
    root = Path(__file__).resolve().parents[3]
    (tmp_path / "hang.txt").mkdir()
    command = [sys.executable, "-c", HANGING, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == HANG_EXIT_CODE, done.stderr
    assert "rank 0 of 1 hangs" in done.stderr


def test_who_only_waits_or_moves_is_not_blamed():
    moving = replace(MOVING, rank=1, since=1029.0)
    assert judged([WAITING, moving], 2, 1030.0, CONFIG) == ""
    assert "rank 1 of 2 never began" in judged([WAITING], 2, 1030.0, CONFIG)
    both = [WAITING, replace(WAITING, rank=1, doing="broadcast, called by g (c.py:3)")]
    assert "their calls do not match" in judged(both, 2, 1030.0, CONFIG)
    ended = replace(moving, ended=True)
    assert "rank 1 of 2 has ended" in judged([WAITING, ended], 2, 1030.0, CONFIG)
    assert judged([replace(MOVING, since=1029.0), ended], 2, 1030.0, CONFIG) == ""


def test_one_process_alone_is_watched_without_being_ended(tmp_path, caplog):
    plan = HangConfig(timeout=0.08, interval=0.02, end=False)
    with HangDetector(tmp_path, plan, rank=0, size=1) as detector:
        assert detector.watching(lambda i: i * 2)(4) == 8
        for _ in range(10):
            time.sleep(0.02)
            detector.beat(5)
        assert detector.message == ""
        deadline = time.monotonic() + 10
        while not detector.message and time.monotonic() < deadline:
            time.sleep(0.02)
    assert "rank 0 of 1 hangs" in detector.message
    assert "test_one_process_alone" in detector.message
    assert "test_one_process_alone" in detector.stack_path(0).read_text()
    assert detector.message in caplog.text
    (status,) = read_statuses(tmp_path)
    assert (status.step, status.ended) == (5, True)
    (tmp_path / "rank-1.json").write_text("{torn")
    assert read_statuses(tmp_path) == [status]


def test_a_thread_that_waits_is_recognised():
    ready = threading.Event()

    def wait():
        ready.wait()

    thread = threading.Thread(target=wait, name="waiter")
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not (found := told(sys._current_frames()[thread.ident]))[0]:
            assert time.monotonic() < deadline
    finally:
        ready.set()
        thread.join()
    assert "test_hang_detector.py" in found[1]
    waits, doing = told(sys._getframe())
    assert not waits
    assert "test_a_thread_that_waits" in doing
    assert told(None) == (False, "no code of its own")


def test_settings_are_checked():
    with pytest.raises(ValueError, match="at least four"):
        HangConfig(timeout=1.0, interval=0.5)
