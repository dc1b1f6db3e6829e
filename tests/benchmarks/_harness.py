"""What every benchmark shares: options, machine facts, timers, the table and the JSON line.

A benchmark is a module with ``main(argv)``; it builds its parser here, measures with
`stopwatch`, shows people a table with `table`, and ends with `emit`, which prints one JSON object
as the last line of standard output when ``--json`` was given. As a program it is started by
`run_program`, which tells a failure or Ctrl-C in one line.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from flows.cli.failures import complain, describe
from flows.cli.interrupts import watch_interrupts


def run_program(name: str, main: Callable[[], int | None]) -> NoReturn:
    """Run a benchmark as a program; ends by ``SystemExit`` with one line for any failure.

    Args:
        name: Name as typed after ``penstock bench``, which itself tells of Ctrl-C.
        main: The benchmark; reads the command line.
    """
    title = f"penstock bench {name}"
    debug = "PENSTOCK_DEBUG" in os.environ
    with watch_interrupts() as interrupts:
        try:
            sys.exit(main())
        except KeyboardInterrupt:
            pass
        except Exception as error:  # noqa: BLE001 - told here, whatever it is
            if debug:
                traceback.print_exc()
            if not interrupts.number:  # else it is the consequence
                complain(describe(error, debug=debug), title)
                sys.exit(1)
        if os.environ.get("PENSTOCK_BENCH") != name:
            complain(interrupts.word, title)
        sys.exit(interrupts.code)


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has.

    Args:
        name: Name as typed after ``penstock bench``.
        description: One sentence: what is measured against what.
    """
    made = argparse.ArgumentParser(prog=f"penstock bench {name}", description=description)
    made.set_defaults(benchmark=name)
    made.add_argument("--smoke", action="store_true", help="small size, for tests")
    made.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    made.add_argument("--seed", type=int, default=7, help="seed of generated data (default 7)")
    return made


@dataclass(slots=True)
class Timing:
    """Seconds spent inside a `stopwatch` block.

    Attributes:
        wall: Elapsed seconds.
        cpu: User plus system CPU seconds of this process, all threads.
    """

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def stopwatch() -> Iterator[Timing]:
    """Measure wall and CPU seconds of the block; read the `Timing` after it ends."""
    timing = Timing()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield timing
    finally:
        timing.wall = time.perf_counter() - wall
        timing.cpu = time.process_time() - cpu


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute on ``count`` threads in the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_gib() -> float:
    """Return the largest resident size of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def machine() -> dict[str, Any]:
    """Return the facts of this machine that a figure depends on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
    }


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, note: str = ""
) -> None:
    """Print a table for people; numbers are right-aligned and thousands grouped."""
    shown = Table(title=title, caption=note or None)
    for position, column in enumerate(columns):
        shown.add_column(column, justify="left" if position == 0 else "right")
    for row in rows:
        shown.add_row(*(_cell(value) for value in row))
    Console().print(shown)


def emit(result: Mapping[str, Any], args: argparse.Namespace) -> None:
    """Print ``result`` with benchmark name, size, seed and machine; JSON last when asked for.

    Args:
        result: The benchmark's keys; numpy values become Python's, NaN and
            infinity become null.
        args: What `parser` parsed.
    """
    full = {
        "benchmark": args.benchmark,
        "smoke": args.smoke,
        "seed": args.seed,
        **result,
        "machine": machine(),
    }
    if args.json:
        print(json.dumps(_plain(full), allow_nan=False), flush=True)
        return
    scalars = {k: v for k, v in full.items() if not isinstance(v, dict | list | tuple)}
    table("result", ("key", "value"), list(scalars.items()))


def _cell(value: Any) -> str:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a benchmark result may not hold {type(value).__name__}")
