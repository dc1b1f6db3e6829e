"""Encrypted scoring over HTTP: owner and scorer as two processes on the same two cores.

A logistic regression of 30 columns. A request goes the whole way: rows to ciphertexts, signed, over
HTTP, every check, scored in a process of its own, signed answer, canaries, scores. Rows a second
are those of requests of 16,384 rows, one after the other; the time of 128 rows is that of a small
request, the whole way.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from connectors.private.bundle import write_bundle
from connectors.private.client.http import Scorer
from connectors.private.client.key_file import KeyFile
from connectors.private.client.registration import write_registration
from connectors.private.client.session import Session
from tasks.privacy.compile import compile_model
from tests.benchmarks._api_server import PrivateServerProcess, running_private
from tests.benchmarks._harness import emit, parser, run_program
from tests.benchmarks._he import Reals, credit_rows
from tests.benchmarks.he_linear import TRAIN, fitted

TENANT, TOKEN = "bank", "benchmark-0123456789abcdef"
MANY, FEW = 16_384 - 3, 128
"""Rows of the owner; three canaries come with every request."""


class Bench:
    """An owner of a running scorer."""

    def __init__(self, server: PrivateServerProcess) -> None:
        self.scorer = Scorer(server.url, TOKEN)
        offer = self.scorer.offer("credit")
        key = KeyFile.new(TENANT, offer.plan.parameters.name)
        self.scorer.register(write_registration(key.registration, key.signing_key))
        self.session = Session(offer, key)

    def score(self, rows: Reals) -> Reals:
        """Return the scores of rows, the whole way."""
        sealed = self.session.seal(rows)
        asked = self.session.ask(self.scorer, sealed)
        return self.session.open(sealed, asked.request, asked.answer)


def resident_gib(server: PrivateServerProcess) -> float:
    """Return the memory of the server and its processes."""
    leader = psutil.Process(server.process.pid)
    return sum(p.memory_info().rss for p in (leader, *leader.children(recursive=True))) / 2**30


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("he-service", __doc__.splitlines()[0])
    made.add_argument("--requests", type=int, default=0, help="of each size (default 20, 400)")
    args = made.parse_args(argv)
    large, small = (args.requests or 20, args.requests or 400)
    if args.smoke:
        large, small = 2, 5
    x, y, test, _ = credit_rows(TRAIN if not args.smoke else 2_000, MANY, args.seed)
    model = fitted(x, y)
    figures: dict[str, Any] = {"requests": [large, small]}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_bundle(folder / "credit", compile_model(model, x[:2_000]), "credit")
        settings = {
            "models": folder / "credit",
            "rows_rate": 1e9,
            "rows_burst": 1e9,
            "rate": 1e6,
            "burst": 1e6,
            "log_level": "WARNING",
        }
        tokens = f"{TENANT}:score:{TOKEN}"
        with running_private(folder / "home", settings, tokens) as server:
            bench = Bench(server)
            bench.score(test[:FEW])
            bench.score(test)
            figures |= timed_many(bench, test, large)
            figures |= timed_few(bench, test[:FEW], small)
            figures["rss_gib"] = resident_gib(server)
            figures["max_err"] = float(np.abs(bench.score(test) - model.score(test)).max())
            figures["proved_err"] = bench.session.offer.error
    emit(figures, args)


def timed_many(bench: Bench, rows: Reals, requests: int) -> dict[str, float]:
    """Return rows a second of large requests, and the owner's CPU time per row."""
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(requests):
        bench.score(rows)
    wall = time.perf_counter() - began
    return {
        "rows_s": requests * len(rows) / wall,
        "owner_us_per_row": (time.process_time() - cpu) / (requests * len(rows)) * 1e6,
    }


def timed_few(bench: Bench, rows: Reals, requests: int) -> dict[str, float]:
    """Return the milliseconds of small requests, the whole way."""
    taken = []
    for _ in range(requests):
        began = time.perf_counter()
        bench.score(rows)
        taken.append((time.perf_counter() - began) * 1e3)
    return {
        "p50_ms_128_rows": float(np.quantile(taken, 0.5)),
        "p99_ms_128_rows": float(np.quantile(taken, 0.99)),
    }


if __name__ == "__main__":
    run_program("he-service", main)
