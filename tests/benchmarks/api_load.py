"""How the API stands load: latency at a given rate, the most it sustains, batches, overload."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks._api_server import ROOT, TOKEN, ApiProcess, running_api
from tests.benchmarks._harness import emit, parser, run_program, table
from tests.benchmarks._load_generator import Load, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

P99_LIMIT_MS = 25.0
STEPS = (1_500, 2_000, 2_500, 3_000, 3_500, 4_000, 5_000)
PAUSE_SECONDS = 1.0
DAY = 86_400


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = _parser().parse_args(argv)
    if args.smoke:
        args.rate, args.seconds, args.step_seconds = 100.0, 2.0, 1.5
    result: dict[str, Any] = {"rate": args.rate, "seconds": args.seconds, "freshness_p99_ms": None}
    with serving(args, graph=False) as session:
        session.warm()
        result |= steady(session, args)
        if not args.quick:
            result |= most(session, args)
            result |= bulk(session, args)
            result |= overload(session, args, result["max_rps"] or args.rate)
    if not args.quick:
        with serving(args, graph=True) as session:
            session.warm()
            both = session.run(args.rate, args.seconds / 3)
            result |= {"p99_ms_both": both.p99_ms, "errors_both": both.errors}
        result |= freshness(args)
    show(result)
    emit(result, args)
    return 0


def freshness(args: argparse.Namespace) -> dict[str, Any]:
    """Measure how soon the API sees what came by the stream."""
    import numpy as np

    from infra.settings import get_settings
    from tests.benchmarks._freshness import freshness_ms
    from tests.benchmarks._model import serving_model

    base = get_settings().home / "bench"
    base.mkdir(parents=True, exist_ok=True)
    bundle = serving_model(args.models or base / "models", graph=False, smoke=args.smoke)
    seconds, warm_up_s = (3.0, 2.0) if args.smoke else (30.0, 30.0)
    spans = freshness_ms(base, bundle, seconds, warm_up_s)
    return {
        "freshness_events": len(spans),
        "freshness_p50_ms": float(np.percentile(spans, 50)),
        "freshness_p99_ms": float(np.percentile(spans, 99)),
    }


class Session:
    """One running API and the events sent to it so far."""

    def __init__(self, api: ApiProcess, template: Load) -> None:
        self.api, self._template = api, template
        self._sent = 0

    def warm(self) -> None:
        """Let caches fill before anything is measured."""
        self.run(200, 2.0)

    def run(self, rate: float, seconds: float) -> Result:
        """Send a load of its own events from a process of its own."""
        load = replace(
            self._template,
            rate=rate,
            seconds=seconds,
            first_id=self._template.first_id + self._sent,
            first_time=self._template.first_time + self._sent,
            seed=self._template.seed + self._sent,
        )
        self._sent += int(rate * seconds * 1.2) + 1_000
        process = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks._load_generator"],
            input=json.dumps(asdict(load)),
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
            timeout=seconds + 120,
        )
        time.sleep(PAUSE_SECONDS)
        return Result(**json.loads(process.stdout))

    def batch(self, n: int) -> bytes:
        """Return the body of a batch of fresh events."""
        import numpy as np

        from tests.benchmarks._load_generator import transactions

        load = replace(
            self._template,
            first_id=self._template.first_id + self._sent,
            first_time=self._template.first_time + self._sent,
        )
        self._sent += n
        rows = transactions(load, n, np.random.default_rng(self._sent))
        return json.dumps({"transactions": rows}).encode()


@contextmanager
def serving(args: argparse.Namespace, *, graph: bool, **changes: str) -> Iterator[Session]:
    """An API with a real model, the state of a whole history, and changed settings."""
    from infra.settings import get_settings
    from tests.benchmarks._model import BANK, serving_model

    models = args.models or get_settings().home / "bench" / "models"
    bundle = serving_model(models, graph=graph, smoke=args.smoke)
    home = Path(tempfile.mkdtemp(prefix="penstock-api-load-"))
    try:
        first_id, first_time = seed(home, args)
        settings = {"model": bundle.folder, "ui": "false", "log_level": "WARNING", **changes}
        with running_api(home, settings) as api:
            yield Session(
                api,
                Load(
                    port=api.port,
                    token=TOKEN,
                    rate=args.rate,
                    seconds=args.seconds,
                    first_id=first_id,
                    first_time=first_time,
                    customers=BANK.cards,
                    terminals=BANK.terminals,
                    seed=args.seed,
                ),
            )
    finally:
        shutil.rmtree(home, ignore_errors=True)


def seed(home: Path, args: argparse.Namespace) -> tuple[int, int]:
    """Fill the store with the bank's history; returns the first free id and time."""
    from connectors.online_store.record import epoch_of
    from connectors.online_store.seed import seed_store
    from connectors.online_store.store import open_store
    from tasks.fraud.dataset import find_config
    from tests.benchmarks._model import simulated

    config = find_config("demo")
    _, tx = simulated(config)
    if args.smoke:
        tx = tx.take(slice(0, 20_000))
    with open_store(f"lmdb://{home / 'store'}") as store:
        seed_store(store, tx, config, epoch=epoch_of(time.time_ns() // 1_000_000))
    last = (int(tx.time[-1]) - config.origin_ms) // 1000
    return int(tx.event_id.max()) + 1, last + 1


def steady(session: Session, args: argparse.Namespace) -> dict[str, Any]:
    """Measure the latency at the rate asked for, everything on."""
    before = session.api.cpu_seconds()
    result = session.run(args.rate, args.seconds)
    cpu = (session.api.cpu_seconds() - before) / max(result.sent, 1) * 1e6
    return {
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "p999_ms": result.p999_ms,
        "max_ms": result.max_ms,
        "sent": result.sent,
        "errors": result.errors,
        "statuses": result.statuses,
        "with_reasons": result.with_reasons,
        "complete": result.complete,
        "api_cpu_us": cpu,
        "generator_cpu_us": result.cpu_us,
    }


def most(session: Session, args: argparse.Namespace) -> dict[str, Any]:
    """Find the highest rate that is answered without an error and with p99 within the limit."""
    best, steps = 0.0, []
    for rate in (200.0,) if args.smoke else STEPS:
        result = session.run(rate, args.step_seconds)
        reached = result.good / max(result.seconds, args.step_seconds)
        steps.append(
            {
                "rate": rate,
                "reached": reached,
                "p99_ms": result.p99_ms,
                "errors": result.errors,
                "complete": result.complete,
            }
        )
        if result.errors or result.p99_ms > P99_LIMIT_MS:
            break
        best = rate
    return {"max_rps": best, "steps": steps}


def bulk(session: Session, args: argparse.Namespace) -> dict[str, Any]:
    """Measure transactions per second in batches, sent one after the other."""
    size, seconds = (200, 1.0) if args.smoke else (1_000, 8.0)
    bodies = [session.batch(size) for _ in range(3 if args.smoke else 150)]
    done, failures, spans = 0, 0, []
    began = time.perf_counter()
    for body in bodies:
        start = time.perf_counter()
        answer = session.api.call("POST", "/v1/score", body, timeout=60)
        spans.append(time.perf_counter() - start)
        failures += answer.status != 200 or b'"problem"' in answer.body
        done += size
        if time.perf_counter() - began > seconds:
            break
    spent = time.perf_counter() - began
    return {
        "bulk_tx_per_s": done / spent,
        "bulk_errors": failures,
        "bulk_batch_p50_ms": statistics.median(spans) * 1e3,
    }


def overload(session: Session, args: argparse.Namespace, capacity: float) -> dict[str, Any]:
    """Send twice the capacity: what is turned away, what still works, whether it recovers."""
    high = session.run(2 * capacity, args.step_seconds)
    after = session.run(min(args.rate, capacity / 2), args.step_seconds)
    shed = sum(high.statuses.get(status, 0) for status in ("429", "503"))
    return {
        "shed_at_2x": shed / max(high.sent, 1),
        "unanswered_at_2x": high.statuses.get("none", 0),
        "goodput_at_2x": high.good / max(high.seconds, 1e-9),
        "p99_ms_at_2x": high.p99_ms,
        "p99_ms_after": after.p99_ms,
        "errors_after": after.errors,
    }


def show(result: dict[str, Any]) -> None:
    """Print the table for people."""
    names = (
        ("rate", "requests a second"),
        ("p50_ms", "median, ms"),
        ("p99_ms", "p99, ms"),
        ("p999_ms", "p99.9, ms"),
        ("errors", "errors"),
        ("with_reasons", "share with reasons"),
        ("complete", "share with nothing left out"),
        ("api_cpu_us", "CPU of the API per request, us"),
        ("max_rps", f"most requests a second with p99 <= {P99_LIMIT_MS:g} ms"),
        ("bulk_tx_per_s", "transactions a second in batches"),
        ("shed_at_2x", "share turned away at twice that"),
        ("p99_ms_at_2x", "p99 of the others then, ms"),
        ("p99_ms_after", "p99 afterwards, ms"),
        ("p99_ms_both", "p99 with mail and embeddings, ms"),
    )
    rows = [(text, result[name]) for name, text in names if name in result]
    table("API under load", ("figure", "value"), rows, note="open loop, Poisson, Zipf")


def _parser() -> argparse.ArgumentParser:
    options = parser("api-load", "Latency, capacity, batches and overload of the API, open loop.")
    options.add_argument("--rate", type=float, default=1_000.0, help="requests a second")
    options.add_argument("--seconds", type=float, default=60.0, help="length of the main run")
    options.add_argument("--step-seconds", type=float, default=8.0, help="length of other runs")
    options.add_argument("--models", type=Path, help="folder of the benchmark's models")
    options.add_argument("--quick", action="store_true", help="the main run alone")
    return options


if __name__ == "__main__":
    run_program("api-load", main)
