"""Shows a running flow on the terminal: finished steps as lines, the present one with a clock."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

OURS = ("tasks", "connectors", "flows", "kernels")


class _Lines(logging.Handler):
    """Prints our log records above the spinner, with the seconds since the start."""

    def __init__(self, progress: Progress, began: float) -> None:
        super().__init__(logging.INFO)
        self._progress = progress
        self._began = began

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        seconds = time.perf_counter() - self._began
        style = "yellow" if record.levelno >= logging.WARNING else "default"
        text = escape(record.getMessage())
        self._progress.console.print(
            f"[dim]{seconds:6.1f} s[/dim]  [{style}]{text}[/{style}]",
            highlight=False,
            soft_wrap=True,
        )


def quieten() -> None:
    """Have libraries speak only of trouble, unless details are asked for."""
    if "PENSTOCK_DEBUG" not in os.environ and logging.getLogger().level > logging.DEBUG:
        os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
        for name in ("mlflow", "prefect", "onnxscript", "onnx_ir", "torch"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # ONNX Runtime's quantiser speaks by the root logger itself, a line for every bias.
        logging.getLogger().addFilter(_is_trouble)


def _is_trouble(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


@contextmanager
def shown(title: str, console: Console) -> Iterator[None]:
    """Show what our packages log while a flow runs; Prefect itself speaks only of trouble."""
    quieten()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(title, total=None)
        handler = _Lines(progress, time.perf_counter())
        loggers = [logging.getLogger(name) for name in OURS]
        before = [logger.propagate for logger in loggers]
        for logger in loggers:
            logger.addHandler(handler)
            logger.propagate = False
        try:
            yield
        finally:
            for logger, propagate in zip(loggers, before, strict=True):
                logger.removeHandler(handler)
                logger.propagate = propagate
