"""A full disk under a stream over files: it waits, and goes on without a loss or a repetition."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest

from connectors.flink.models import place_model
from connectors.flink.spec import StreamSpec
from tests.integrity.stream_banks import cards_bank, read_lines, write_lines

pytestmark = pytest.mark.slow
FREE = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def limit_files(process: psutil.Process, size: int) -> None:
    """Let no file of the JVM grow beyond a size, as on a disk that is full."""
    for child in [process, *process.children(recursive=True)]:
        if "java" in child.name():
            child.rlimit(psutil.RLIMIT_FSIZE, (size, FREE[1]))


def tell_threads(process: psutil.Process) -> None:
    """Have the JVM write the stacks of its threads into the log."""
    for child in process.children(recursive=True):
        if "java" in child.name():
            child.send_signal(signal.SIGQUIT)
    time.sleep(2)


def end_of_logs(folder):
    """Return what Flink and the submitting process wrote last."""
    logs = [folder / "log", *(folder / "home" / "logs").glob("*")]
    return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-60_000:]}" for log in logs)


def wait_for_scores(folder, count, seconds):
    deadline = time.monotonic() + seconds
    while len(read_lines(folder / "scores")) < count and time.monotonic() < deadline:
        time.sleep(0.2)
    return [row["event_id"] for row in read_lines(folder / "scores")]


@pytest.mark.long
def test_a_full_disk_holds_the_stream_up_and_loses_nothing(tmp_path):
    bank = cards_bank(tmp_path / "bank")
    model = place_model(bank.bundle.folder, tmp_path / "models")
    spec = StreamSpec(
        name="disk",
        models=str(tmp_path / "models"),
        model=model.folder.name,
        rules={"version": "r1", "review_at": 0.2, "block_at": 0.6},
        folder=str(tmp_path / "files"),
        target="local",
        labels=False,
        epoch=1,
    )
    spec.save(tmp_path / "spec.json")
    first, second = bank.rows[:300], bank.rows[300:600]
    write_lines(tmp_path / "files" / "transactions", first)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "connectors.flink.submit", str(tmp_path / "spec.json")],
            env={**os.environ, "PENSTOCK_HOME": str(tmp_path / "home")},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        assert len(wait_for_scores(tmp_path / "files", 300, 120)) == 300
        limit_files(psutil.Process(process.pid), 0)
        write_lines(tmp_path / "next", second)
        (tmp_path / "next" / "part-0.jsonl").rename(
            tmp_path / "files" / "transactions" / "part-1.jsonl"
        )
        time.sleep(8)
        assert process.poll() is None, end_of_logs(tmp_path)
        assert len(wait_for_scores(tmp_path / "files", 301, 0)) == 300
        limit_files(psutil.Process(process.pid), FREE[0])
        found = wait_for_scores(tmp_path / "files", 600, 120)
        if len(found) < 600:
            tell_threads(psutil.Process(process.pid))
        assert len(found) == 600, f"ended with {process.poll()}; {end_of_logs(tmp_path)}"
        assert sorted(found) == sorted(str(row["tx_id"]) for row in (*first, *second))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
