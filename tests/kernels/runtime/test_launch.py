"""Processes of a run end with whoever launched them, saved where they were given the time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from kernels.runtime import checkpoint_files
from kernels.runtime import launch as launching
from kernels.runtime.launch import RankFailedError, launch
from kernels.runtime.termination import Terminated

ROOT = Path(__file__).resolve().parents[3]
LAUNCHER = """
import sys
from kernels.runtime.launch import launch
launch([sys.executable, "-S", "-c", sys.argv[1], *sys.argv[3:]], 2, grace=float(sys.argv[2]))
"""
# Saves for a while when it is told to end.
SAVES = """
import os, pathlib, signal, sys, time
folder, rank = pathlib.Path(sys.argv[1]), os.environ["RANK"]
def save(*_):
    time.sleep(0.4)
    (folder / f"saved-{rank}").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
(folder / f"new-{rank}").write_text(str(os.getpid()))
(folder / f"new-{rank}").rename(folder / f"pid-{rank}")
time.sleep(60)
"""
# Hears nothing, and has started another that hears nothing.
DEAF = """
import os, pathlib, signal, subprocess, sys, time
folder, rank = pathlib.Path(sys.argv[1]), os.environ["RANK"]
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "60"])
for name, pid in {f"child-{rank}": child.pid, f"pid-{rank}": os.getpid()}.items():
    (folder / "new").with_suffix(f".{rank}").write_text(str(pid))
    (folder / "new").with_suffix(f".{rank}").rename(folder / name)
time.sleep(60)
"""


def wait_for(sign: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not sign():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def started(tmp_path, end_with_run):
    """Launches two processes from a program of its own; gives that and their numbers."""
    programs, pids = [], []

    def start(program: str, grace: float) -> tuple[subprocess.Popen[str], list[int]]:
        launcher = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, program, str(grace), str(tmp_path)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        programs.append(launcher)
        names = [tmp_path / f"pid-{rank}" for rank in range(2)]
        wait_for(lambda: all(name.exists() for name in names), "the processes did not start")
        pids.extend(int(path.read_text()) for path in names)
        for pid in pids:
            end_with_run(pid)
        pids.extend(int(path.read_text()) for path in tmp_path.glob("child-*"))
        return launcher, pids

    yield start
    for launcher in programs:
        launcher.kill()
        launcher.communicate()
    left = [pid for pid in pids if lives(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    for path in tmp_path.glob("pid-*"):
        end_with_run(-int(path.read_text()))
    assert not left, "processes were left behind"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_all_save(started, tmp_path, number):
    launcher, pids = started(SAVES, 30)
    launcher.send_signal(number)
    _, told = launcher.communicate(timeout=10)
    assert launcher.returncode == -number
    assert f"{number.name}: 2 processes save and end, within 30 seconds" in told
    assert not any(map(lives, pids))
    assert {path.name for path in tmp_path.glob("saved-*")} == {"saved-0", "saved-1"}


@pytest.mark.long
def test_a_training_in_two_processes_saves_its_step(tmp_path):
    program = str(Path(__file__).with_name("group_run.py"))
    words = [sys.executable, program, str(tmp_path), "1000000"]
    code = f"from kernels.runtime.launch import launch\nlaunch({words!r}, 2)"
    launcher = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        run = tmp_path / "run"
        wait_for(lambda: checkpoint_files.stored_in(run), "no checkpoint was written", 60)
        before = checkpoint_files.stored_in(run)[-1].step
        launcher.terminate()
        assert launcher.wait(60) == -signal.SIGTERM
    finally:
        launcher.kill()
        launcher.wait()
    newest = checkpoint_files.stored_in(run)[-1]
    assert newest.step >= before
    assert json.loads((newest.path / "state.json").read_text())["step"] == newest.step
    assert checkpoint_files.damage(newest.path) == ""


def test_who_does_not_end_in_time_is_killed_with_what_it_started(started):
    launcher, pids = started(DEAF, 0.3)
    launcher.terminate()
    launcher.communicate(timeout=10)
    assert launcher.returncode == -signal.SIGTERM
    assert len(pids) == 4
    wait_for(lambda: not any(map(lives, pids)), "processes were left", 2)


def test_ctrl_c_again_waits_no_longer(started):
    launcher, pids = started(DEAF, 60)
    launcher.send_signal(signal.SIGINT)
    time.sleep(0.3)
    launcher.send_signal(signal.SIGINT)  # a terminal's, which came to the group, too
    time.sleep(1)
    assert all(map(lives, pids))
    launcher.send_signal(signal.SIGINT)
    launcher.communicate(timeout=10)
    assert launcher.returncode == -signal.SIGINT


@pytest.mark.parametrize("program", [SAVES, DEAF])
def test_a_killed_launcher_leaves_nothing_behind(started, tmp_path, program):
    launcher, pids = started(program, 1)
    launcher.kill()
    wait_for(lambda: not any(map(lives, pids)), "processes outlived their launcher", 5)
    assert len(list(tmp_path.glob("saved-*"))) == (2 if program == SAVES else 0)


ASKS = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"


def test_who_handles_the_signal_itself_is_told_and_keeps_its_handler():
    heard = []
    before = signal.signal(signal.SIGTERM, handler := lambda *_: heard.append(1))
    try:
        with pytest.raises(Terminated, match="ended by SIGTERM; so were 1 processes"):
            launch([sys.executable, "-S", "-c", ASKS], 1)
        assert heard == [1]
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_stays_ignored_where_it_is():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        launch([sys.executable, "-S", "-c", ASKS.replace("TERM", "INT").replace("60", "0.2")], 1)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_launch_and_leave_the_signals_alone():
    seen = []
    before = signal.getsignal(signal.SIGTERM)
    code = "import time; time.sleep(0.5)"
    thread = threading.Thread(target=launch, args=([sys.executable, "-S", "-c", code], 2))
    thread.start()
    while thread.is_alive():
        seen.append(signal.getsignal(signal.SIGTERM) is before)
        time.sleep(0.05)
    thread.join()
    assert len(seen) > 2
    assert all(seen)


def test_one_told_to_end_leaves_the_others_the_time_to_save(tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "NOTICE_SECONDS", 0.05)
    second = "import os, signal, time\ntime.sleep(0.3)\nos.kill(os.getpid(), signal.{})\n"
    for name, saved in {"SIGTERM": True, "SIGSEGV": False}.items():
        programs = {"0": SAVES, "1": second.format(name)}
        code = f"import os\nexec({programs!r}[os.environ['RANK']])"
        folder = tmp_path / name
        folder.mkdir()
        with pytest.raises(RankFailedError, match=f"rank 1 of 2 was killed by {name}"):
            launch([sys.executable, "-S", "-c", code, str(folder)], 2)
        assert (folder / "saved-0").exists() == saved


def test_a_program_that_is_not_there_and_a_wrong_grace_are_told():
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        launch(["no-such-program"], 2)
    with pytest.raises(ValueError, match="grace must not be negative, got -1 seconds"):
        launch(["true"], 1, grace=-1)
