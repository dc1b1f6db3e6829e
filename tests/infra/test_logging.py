from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from infra.logging import configure_logging


@pytest.fixture(autouse=True)
def logging_restored(monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(os, "environ", os.environ.copy())
    level, handlers = root.level, list(root.handlers)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_lines_are_short_and_not_doubled(capsys):
    configure_logging("INFO")
    configure_logging("INFO")
    logging.getLogger("tasks.some").info("read 3 rows")
    logging.getLogger("tasks.some").debug("hidden")
    logging.getLogger("httpx").info("hidden too")
    logging.getLogger().info("of a library that names no logger")
    assert capsys.readouterr().err == "INFO read 3 rows\n"


def test_a_connection_that_a_full_pool_closes_is_no_news(capsys):
    configure_logging("INFO")
    pool = logging.getLogger("urllib3.connectionpool")
    pool.warning("Connection pool is full, discarding connection: %s", "127.0.0.1")
    pool.warning("Retrying after connection broken")
    assert capsys.readouterr().err == "WARNING Retrying after connection broken\n"


def test_debug_shows_where_a_line_comes_from(capsys):
    configure_logging("ERROR", debug=True)
    logging.getLogger("tasks.some").debug("read 3 rows")
    assert "DEBUG tasks.some:" in capsys.readouterr().err


def test_tracebacks_show_with_debug_only(capsys):
    logger = logging.getLogger("tasks.some")
    for debug in (False, True):
        configure_logging("INFO", debug=debug)
        try:
            int("wrong column")
        except ValueError:
            logger.exception("task failed")
        told = capsys.readouterr().err
        assert "task failed" in told
        assert ("Traceback" in told) is debug


def test_prefect_repeats_a_failure_with_debug_only(capsys):
    told_by = "prefect.task_runs"
    for debug in (False, True):
        configure_logging("INFO", debug=debug)
        for level, text in ((logging.ERROR, "task failed"), (logging.WARNING, "task is slow")):
            # Through the root alone: where Prefect is imported, its own handler wants a flow run.
            record = logging.LogRecord(told_by, level, __file__, 1, text, None, None)
            logging.getLogger().handle(record)
        told = capsys.readouterr().err
        assert ("task failed" in told) is debug
        assert "task is slow" in told


def test_a_failing_flow_shows_no_traceback(prefect_server):
    """Prefect must leave the terminal to our handler."""
    code = """
from infra.logging import configure_logging
configure_logging("INFO")
from prefect import flow

@flow(log_prints=True)
def fail():
    print("told by the flow")
    raise ValueError("wrong column")

try:
    fail()
except ValueError as error:
    print("raised", error)
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout == "raised wrong column\n"
    assert "INFO told by the flow\n" in result.stderr
    assert "ERROR" not in result.stderr
    assert "Traceback" not in result.stderr
