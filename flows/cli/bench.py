"""``penstock bench``: runs a benchmark of this checkout in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from infra.errors import PenstockError
from infra.settings import CHECKOUT

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
        [sys.executable, "-m", module, *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        return process.wait()
    except BaseException:  # Ctrl-C reaches the child too; give it time to tidy up
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


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
