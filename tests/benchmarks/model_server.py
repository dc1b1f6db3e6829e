"""Model server: most requests a second at p99 <= 50 ms, requests put together or one at a time.

Requests of one row leave by a Poisson process, answered or not (the open-loop generator of the
fraud API), binary tensors, one server process, one core per run. The highest rate without an error
and with p99 within the limit is looked for with dynamic batching on and off, in turns. Generator
and server share the cores of this machine, so a rate is a lower bound.

Three networks: ``mlp`` (5.4 million weights over 512 features: one row reads all weights from
memory, so many rows cost little more), ``conv`` (pictures of 64 pixels: work grows with the rows,
batching saves only overhead) and ``tiny`` (nearly all of a request is HTTP).
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from connectors.model_server.client import Client
from connectors.model_server.messages import BINARY, HEADER_LENGTH, pack
from connectors.model_server.onnx_model import OnnxModel
from tests.benchmarks._api_server import ROOT, TOKEN, ModelServerProcess, running_models
from tests.benchmarks._compared import mean_interval
from tests.benchmarks._harness import emit, parser, run_program, table
from tests.benchmarks._load_generator import Load, Result
from tests.onnx_files import convolutional, dense, put

LIMIT_MS = 50.0
FACTOR = 1.5
BISECTIONS = 3
DISTINCT = 64
"""Different requests that are sent in turn."""

MODES = {"on": 32, "off": 1}
"""Rows of a batch."""


def models() -> dict[str, tuple[bytes, str, tuple[int, ...]]]:
    """Return name -> file, name of the input, shape of one row."""
    return {
        "mlp": (dense((512, 2_048, 2_048, 64)), "x", (512,)),
        "conv": (convolutional(), "pixels", (3, 64, 64)),
        "tiny": (dense((32, 64, 1)), "x", (32,)),
    }


def write_requests(path: Path, name: str, fed: str, shape: tuple[int, ...], seed: int) -> None:
    """Write the requests that the generator sends in turn."""
    rng = np.random.default_rng(seed)
    listed = []
    for _ in range(DISTINCT):
        array = rng.normal(size=(1, *shape)).astype(np.float32)
        document = {"parameters": {"binary_data_output": True}}
        body, length = pack(document, "inputs", {fed: array}, None)
        headers = {"Content-Type": BINARY, HEADER_LENGTH: length}
        listed.append(
            {
                "path": f"/v2/models/{name}/infer",
                "headers": headers,
                "body": base64.b64encode(body).decode(),
            }
        )
    path.write_text(json.dumps(listed))


class Bench:
    """One server and the load for it."""

    def __init__(self, server: ModelServerProcess, replay: Path, seed: int) -> None:
        self.server, self._replay, self._seed = server, replay, seed

    def run(self, rate: float, seconds: float) -> Result:
        """Send a load from a process of its own."""
        self._seed += 1
        load = Load(
            port=self.server.port,
            token=TOKEN,
            rate=rate,
            seconds=seconds,
            first_id=0,
            first_time=0,
            seed=self._seed,
            replay=str(self._replay),
        )
        process = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks._load_generator"],
            input=json.dumps(asdict(load)),
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
            timeout=seconds + 120,
        )
        time.sleep(0.3)
        return Result(**json.loads(process.stdout))

    def sustains(self, rate: float, seconds: float) -> bool:
        """Tell whether a rate is answered without an error and within the limit."""
        result = self.run(rate, seconds)
        return not result.errors and result.p99_ms <= LIMIT_MS

    def most(self, start: float, seconds: float) -> float:
        """Return the highest rate that is sustained, to within 5 %; 0: none."""
        low, high = 0.0, start
        while self.sustains(high, seconds):
            low, high = high, high * FACTOR
        while not low and high > 10:
            high /= FACTOR
            if self.sustains(high, seconds):
                low, high = high, high * FACTOR
        for _ in range(BISECTIONS):
            middle = (low * high) ** 0.5
            if low and self.sustains(middle, seconds):
                low = middle
            else:
                high = middle
        return low


@contextmanager
def served(folder: Path, name: str, rows: int, seed: int) -> Iterator[Bench]:
    """A server of one model, batching as asked."""
    content, fed, shape = models()[name]
    replay = folder / f"{name}-{seed}.json"
    write_requests(replay, name, fed, shape, seed)
    put(folder / "models", name, 1, content)
    settings = {
        "serve": str(folder / "models" / name),
        "max_rows": rows,
        "reload_seconds": 0,
        "log_level": "WARNING",
    }
    with running_models(folder / "home", settings) as server:
        check_answers(server, name, content, fed, shape)
        bench = Bench(server, replay, seed * 1_000)
        bench.run(50, 1.0)  # caches and clocks
        yield bench


def check_answers(
    server: ModelServerProcess, name: str, content: bytes, fed: str, shape: tuple[int, ...]
) -> None:
    """See that the server answers what the file says."""
    rows = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    expected = OnnxModel(content, name).run({fed: rows})["y"]
    with Client(server.url, TOKEN) as client:
        np.testing.assert_allclose(client.infer(name, {fed: rows})["y"], expected, rtol=1e-4)


def compare(folder: Path, name: str, seeds: Sequence[int], args: Any) -> dict[str, Any]:
    """Return the highest rates with batching on and off, by seed, and their ratio."""
    rates: dict[str, list[float]] = {mode: [] for mode in MODES}
    for seed in seeds:
        for mode, rows in MODES.items():
            start = rates[mode][0] / FACTOR**0.5 if rates[mode] else args.start
            with served(folder, name, rows, seed) as bench:
                rates[mode].append(bench.most(start, args.step_seconds))
    ratios = [on / off if off else 0.0 for on, off in zip(rates["on"], rates["off"], strict=True)]
    return {
        "rps_on": float(np.median(rates["on"])),
        "rps_off": float(np.median(rates["off"])),
        "x_batching": mean_interval(ratios) if len(ratios) > 1 else [ratios[0]] * 3,
        "rates": rates,
    }


def steady(folder: Path, name: str, rate: float, args: Any) -> dict[str, Any]:
    """Return latency below the highest rate, and what happens at twice that."""
    with served(folder, name, MODES["on"], args.seed) as bench:
        calm = bench.run(0.8 * rate, args.seconds)
        high = bench.run(2 * rate, args.step_seconds)
        after = bench.run(0.5 * rate, args.step_seconds)
    turned = high.statuses.get("503", 0)
    return {
        "rate": 0.8 * rate,
        "p50_ms": calm.p50_ms,
        "p99_ms": calm.p99_ms,
        "errors": calm.errors + after.errors + high.errors - turned,
        "shed_at_2x": turned / max(high.sent, 1),
        "goodput_at_2x": high.good / max(high.seconds, 1e-9),
        "p99_ms_at_2x": high.p99_ms,
        "p99_ms_after": after.p99_ms,
        "generator_cpu_us": calm.cpu_us,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("model-server", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=5, help="of mlp (default %(default)s)")
    made.add_argument("--others", type=int, default=2, help="seeds of the others")
    made.add_argument("--models", nargs="+", default=list(models()), help="which")
    made.add_argument("--start", type=float, default=300.0, help="first rate tried")
    made.add_argument("--step-seconds", type=float, default=3.0, help="length of a step")
    made.add_argument("--seconds", type=float, default=20.0, help="length of the steady run")
    args = made.parse_args(argv)
    if args.smoke:
        smoke(args)
        return
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-model-server-") as place:
        folder = Path(place)
        for name in args.models:
            count = args.seeds if name == args.models[0] else args.others
            seeds = range(args.seed, args.seed + count)
            found[name] = compare(folder, name, seeds, args)
        first = args.models[0]
        calm = steady(folder, first, found[first]["rps_on"], args)
    show(found, calm)
    first_ratio = found[first]["x_batching"]
    emit(
        {
            "rps": found[first]["rps_on"],
            **calm,
            "x_batching": first_ratio[0],
            "x_batching_low": first_ratio[1],
            "models": found,
        },
        args,
    )


def smoke(args: argparse.Namespace) -> None:
    """One short run against one server."""
    with (
        tempfile.TemporaryDirectory(prefix="penstock-model-server-") as place,
        served(Path(place), "tiny", MODES["on"], args.seed) as bench,
    ):
        result = bench.run(50, 0.5)
    emit({"rps": 50.0, "p99_ms": result.p99_ms, "x_batching": None, "errors": result.errors}, args)


def show(found: dict[str, dict[str, Any]], calm: dict[str, Any]) -> None:
    """Print the tables for people."""
    table(
        f"most requests a second at p99 <= {LIMIT_MS:g} ms",
        ("model", "batching on", "off", "ratio", "from", "to"),
        [(name, one["rps_on"], one["rps_off"], *one["x_batching"]) for name, one in found.items()],
        note="open loop, Poisson, one row a request; generator and server share the cores",
    )
    table("below that, and above", ("figure", "value"), list(calm.items()))


if __name__ == "__main__":
    run_program("model-server", main)
