"""Reading CSV never swallows Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import unmeasured

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import os, signal, sys, threading, time
from pathlib import Path

from pyarrow import csv
from tasks.arrow_csv import read_csv

read, path = {"ours": read_csv, "arrow": csv.read_csv}[sys.argv[1]], Path(sys.argv[2])
turns, enough = int(sys.argv[3]), int(sys.argv[4])
begin = time.perf_counter()
read(path)
took, lost = time.perf_counter() - begin, 0
for turn in range(turns):
    if lost == enough:
        break
    press = lambda: os.kill(os.getpid(), signal.SIGINT)
    timer = threading.Timer(took * (0.2 + 0.01 * (turn % 100)), press)
    try:
        timer.start()
        while timer.is_alive():
            read(path)
        timer.join()
        time.sleep(0.01)
        lost += 1
    except KeyboardInterrupt:
        timer.join()
print(lost)
"""


def lost(which: str, path: Path, turns: int, enough: int) -> int:
    """How many of so many interrupts nobody was told of; no more are tried once it is enough."""
    path.write_text("a,b,c\n" + "1,2.5,three\n" * 40_000, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", CODE, which, str(path), str(turns), str(enough)],
        cwd=ROOT, env=unmeasured(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


def test_an_interrupt_while_a_file_is_read_is_never_lost(tmp_path):
    assert lost("ours", tmp_path / "long.csv", 120, 120) == 0


@pytest.mark.long
def test_pyarrow_by_itself_loses_some(tmp_path):
    # Once it does not, `tasks/arrow_csv.py` is not needed any more. How often it does is chance.
    assert lost("arrow", tmp_path / "long.csv", 2_000, 1) == 1
