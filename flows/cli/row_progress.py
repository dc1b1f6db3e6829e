"""Rows read, rows a second and the share set aside, while a file streams through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def row_progress(file: Path) -> Iterator[Callable[[int, int], None]]:
    """Yield what is to be called with rows read and rows set aside; shown on terminals only."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    began = time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as it:
        task = it.add_task(file.name, total=None)

        def told(rows: int, aside: int) -> None:
            rate = rows / max(time.perf_counter() - began, 1e-9)
            it.update(
                task,
                description=f"{file.name}  {rows:,} rows  {rate:,.0f} rows/s  "
                f"{aside / max(rows, 1):.2%} set aside",
            )

        yield told
