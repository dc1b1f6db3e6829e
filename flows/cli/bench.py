"""``penstock bench``: runs a benchmark of this checkout in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.interrupts import Terminated
from infra.errors import PenstockError
from infra.settings import CHECKOUT

TIDY_SECONDS = 20.0
# Ctrl-C while the libraries of a benchmark are imported ends it without a traceback, too.
LAUNCH = """
import runpy, sys
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
except KeyboardInterrupt:
    sys.exit(130)
"""

app = typer.Typer(add_completion=False)


def benchmark_names(checkout: Path = CHECKOUT) -> list[str]:
    """Names of the benchmarks in tests/benchmarks, dashed as on the command line."""
    files = (checkout / "tests" / "benchmarks").glob("[a-z]*.py")
    stems = (path.stem for path in files if not path.stem.startswith(("test_", "conftest")))
    return sorted(stem.replace("_", "-") for stem in stems)


def run_benchmark(name: str, arguments: list[str], checkout: Path = CHECKOUT) -> int:
    """Run one benchmark with its output passed through; returns its exit code."""
    module = f"tests.benchmarks.{name.replace('-', '_')}"
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, module, *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PENSTOCK_BENCH": name},
    )
    try:
        return process.wait()
    except BaseException as error:
        # A terminal sends Ctrl-C to the benchmark too, and a second one would break its tidying.
        if isinstance(error, Terminated):
            process.terminate()
        try:
            end_benchmark(process)
        finally:
            process.kill()  # it has ended, unless Ctrl-C came again
            process.wait()
        raise


def end_benchmark(process: subprocess.Popen[bytes]) -> None:
    """Wait while a benchmark tidies up; only then interrupt it, and in the end kill it."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            process.wait(timeout=TIDY_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        else:
            return


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Benchmark, or 'all'.")] = "",
) -> None:
    """Run benchmark NAME with the options that follow, e.g. --smoke --json; or all of them."""
    known = benchmark_names()
    if name in {"", "--help", "-h"}:
        typer.echo("Usage: penstock bench NAME|all [--smoke] [--json] [OPTIONS]\n\nBenchmarks:")
        typer.echo("\n".join(f"  {each}" for each in known))
        raise typer.Exit(0)
    chosen = known if name == "all" else [name.replace("_", "-")]
    if not set(chosen) <= set(known):
        raise PenstockError(f"no benchmark named {name!r}", f"Choose one of: {', '.join(known)}")
    failed = [each for each in chosen if run_benchmark(each, context.args) != 0]
    if len(chosen) > 1 and failed:
        raise PenstockError(f"failed: {', '.join(failed)}", "Run each alone to see why")
    raise typer.Exit(1 if failed else 0)
