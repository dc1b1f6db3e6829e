"""The stream-state benchmark prints its keys; it ends the JVM it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_smoke(end_with_run):
    # In a process of its own: PyFlink holds one JVM for ever, and this test run needs another.
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.stream_state", "--smoke", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    end_with_run(process.pid)
    out, _ = process.communicate()
    assert process.returncode == 0
    result = json.loads(out.splitlines()[-1])
    assert result["benchmark"] == "stream-state"
    assert result["labels"] > 0
    for key in ("rows_per_core_s", "rows_per_s", "sql_over_rows_per_core_s", "ratio"):
        assert result[key] > 0
    assert "2 entities x 3 windows" in out
    left = [p for p in Path("/proc").glob("[0-9]*") if group_of(p) == process.pid]
    assert left == []
    end_with_run(-process.pid)


def group_of(process: Path) -> int:
    """Return the process group of an entry of /proc, 0 if it is gone."""
    try:
        return os.getpgid(int(process.name))
    except ProcessLookupError:
        return 0
