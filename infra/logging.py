"""Logging of the command line: short lines on stderr, details on request."""

from __future__ import annotations

import copy
import logging
import os
import sys

# Libraries whose INFO lines drown our own.
NOISY = ("httpx", "httpcore", "alembic", "matplotlib", "py4j", "urllib3", "git", "asyncio", "numba")


# Where Prefect repeats the failure of every step and flow.
REPEATING = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")


class ToldOnce(logging.Filter):
    """Keeps Prefect's records of a failure off the terminal: the command tells it in one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record says something new."""
        return not (record.levelno >= logging.ERROR and record.name.startswith(REPEATING))


def not_of_full_pools(record: logging.LogRecord) -> bool:
    """Whether a record is not of a connection that a full pool closes in the place of keeping it.

    Nothing is lost by it, and MLflow's client meets it when many threads log at a time.
    """
    return not (
        record.name == "urllib3.connectionpool" and str(record.msg).startswith("Connection pool is")
    )


def not_of_root(record: logging.LogRecord) -> bool:
    """Whether a record is of a logger with a name, or of trouble.

    ONNX Runtime's quantiser tells each bias that it copies by ``logging.info``.
    """
    return record.name != "root" or record.levelno >= logging.WARNING


class BriefFormatter(logging.Formatter):
    """Tells a record without its traceback: a failure is told once, by the command itself."""

    def format(self, record: logging.LogRecord) -> str:
        """The level and the message."""
        brief = copy.copy(record)
        brief.exc_info = brief.exc_text = brief.stack_info = None
        return super().format(brief)


def configure_logging(level: str = "INFO", *, debug: bool = False) -> None:
    """Send log records of this process to stderr; calling it again replaces the set-up.

    Prefect leaves the terminal to a root handler that it finds when it is imported, so its
    records come through here too; its server keeps the tracebacks for its pages.

    Args:
        level: name of the level for our own packages and for Prefect's console.
        debug: show everything, with times, file names and tracebacks.
    """
    root = logging.getLogger()
    for handler in [h for h in root.handlers if getattr(h, "penstock", False)]:
        root.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.penstock = True  # type: ignore[attr-defined]  # marks it for the next call
    if debug:
        layout = "%(asctime)s %(levelname)s %(name)s:%(lineno)d %(message)s"
        handler.setFormatter(logging.Formatter(layout))
    else:
        handler.setFormatter(BriefFormatter("%(levelname)s %(message)s"))
        handler.addFilter(ToldOnce())
        handler.addFilter(not_of_root)
        handler.addFilter(not_of_full_pools)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else level)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.WARNING)
    os.environ["PREFECT_LOGGING_LEVEL"] = "DEBUG" if debug else level
    # Its background services tell on stderr of every request that fails.
    os.environ["PREFECT_LOGGING_INTERNAL_LEVEL"] = "DEBUG" if debug else "CRITICAL"
    # MLflow reads this at import and tells table creation and the like at INFO.
    os.environ["MLFLOW_LOGGING_LEVEL"] = "DEBUG" if debug else "WARNING"
