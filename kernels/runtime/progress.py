"""A bar of a run's progress in the terminal."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kernels.runtime.callbacks import StepMetrics


class ProgressBar:
    """Callback that draws step, loss and throughput; to be entered around the run.

    Example:
        ``with ProgressBar() as bar: Runner(..., callbacks=[bar]).run()``
    """

    def __init__(self, title: str = "training", console: Console | None = None) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task(title, total=None, figures="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def on_step(self, metrics: StepMetrics) -> None:
        """Move the bar."""
        figures = f"loss {metrics.loss:.4g}, {metrics.items_per_second:,.0f} items/s"
        if metrics.metric is not None:
            figures += f", metric {metrics.metric:.4g}"
        self._progress.update(
            self._task, completed=metrics.step, total=metrics.steps, figures=figures
        )
