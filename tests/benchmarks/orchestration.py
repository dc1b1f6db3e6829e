"""What one Prefect task costs: with the one-certificate bundle, by default, and called inline.

Every variant runs in a process of its own against the same fresh Prefect server on loopback.
``ms_per_task`` is a trivial task inside a flow under Penstock's environment,
``default_ms_per_task`` the same with Prefect's own CA bundle, ``inline_ms`` the task's function
called without Prefect, as tests and small runs do. Each figure is the best of the repeats, as
other programs on the machine can only add to it; the client's CPU time stands beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from infra.environment import apply_environment
from infra.services.ports import any_free_port
from infra.services.registry import end_service, start_service
from infra.settings import Settings
from tests.benchmarks._harness import emit, parser, run_program, table

TARGETS = {"ms_per_task": 12.0, "default_ms_per_task": None, "inline_ms": 1.0}

# Runs in a fresh process: Prefect reads its settings when it is imported.
PROBE = """
import json, logging, sys, time
from prefect import flow, task

logging.getLogger("prefect").setLevel("ERROR")
tasks, repeats, inline = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "inline"

@task
def noop(number):
    return number

def timed(call):
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(tasks):
        call(number)
    return (time.perf_counter() - wall) / tasks, (time.process_time() - cpu) / tasks

@flow
def measure():
    return timed(noop)

if inline:
    figures = [timed(noop.fn) for _ in range(repeats)]
else:
    measure()  # the first one warms connections and code
    figures = [measure() for _ in range(repeats)]
print(json.dumps([1000 * min(column) for column in zip(*figures)]))
"""


def measure(variant: str, tasks: int, repeats: int) -> tuple[float, float]:
    """Wall and client CPU milliseconds per task, best of the repeats, of one variant."""
    environment = dict(os.environ)
    if variant == "default_ms_per_task":
        del environment["PREFECT_API_SSL_CERT_FILE"]
    kind = "inline" if variant == "inline_ms" else "prefect"
    result = subprocess.run(
        [sys.executable, "-c", PROBE, str(tasks), str(repeats), kind],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if result.returncode != 0:
        raise RuntimeError(f"{variant} failed: {result.stderr.strip().splitlines()[-1:]}")
    wall, cpu = json.loads(result.stdout.strip().splitlines()[-1])
    return wall, cpu


def run(tasks: int, repeats: int) -> dict[str, Any]:
    """Measure all variants against one fresh server; nothing of it stays."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        settings = Settings(home=Path(folder), prefect_port=any_free_port())
        start_service(settings, "prefect")
        try:
            apply_environment(settings)
            figures = {name: measure(name, tasks, repeats) for name in TARGETS}
        finally:
            end_service(settings, "prefect")
    result: dict[str, Any] = {name: wall for name, (wall, _) in figures.items()}
    result |= {name.replace("ms", "cpu_ms", 1): cpu for name, (_, cpu) in figures.items()}
    result["ratio"] = result["default_ms_per_task"] / result["ms_per_task"]
    return result | {"tasks": tasks, "repeats": repeats}


def main(argv: list[str] | None = None) -> int:
    """Measure, show, and print the JSON line when asked for."""
    options = parser("orchestration", __doc__.split("\n", 1)[0])
    options.add_argument("--tasks", type=int, default=0, help="tasks in a flow run (default 100)")
    options.add_argument("--repeats", type=int, default=0, help="flow runs (default 5)")
    args = options.parse_args(argv)
    result = run(
        args.tasks or (10 if args.smoke else 100), args.repeats or (1 if args.smoke else 5)
    )
    rows = [
        (name, result[name], result[name.replace("ms", "cpu_ms", 1)], target or "")
        for name, target in TARGETS.items()
    ]
    table(
        "Cost of one trivial task",
        ("variant", "wall ms", "client CPU ms", "target ms"),
        rows,
        note=f"default costs {result['ratio']:.1f} times the tuned one",
    )
    emit(result, args)
    return 0


if __name__ == "__main__":
    run_program("orchestration", main)
