"""A client's JVM may say what it likes on its standard error: nothing waits for a reader."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SAY = """
import logging, sys
from connectors.flink.client_jvm import client_jvm, end_client_jvm, is_client_jvm_running
from connectors.flink.remote import prepare_client
from infra.settings import get_settings

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
prepare_client(get_settings())
try:
    error = client_jvm().jvm.java.lang.System.err
    for number in range(400):
        error.println(f"line {number} " + "x" * 1000)
    error.println("the last one")
    assert client_jvm() is client_jvm()
finally:
    end_client_jvm()
assert not is_client_jvm_running()
"""


@pytest.mark.slow
def test_what_the_jvm_says_is_logged_and_does_not_hold_it_up(tmp_path):
    """400 KB: several times what a pipe holds that nobody reads."""
    done = subprocess.run(
        [sys.executable, "-c", SAY],
        env={**os.environ, "PENSTOCK_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("Flink: line")]
    assert [int(line.split()[2]) for line in said] == list(range(400))
