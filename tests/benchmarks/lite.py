"""Lite: the defect detector's int8 edge file run by penstock-lite alone, under 2 GiB of addresses.

The detector of `defects-latency` is fitted and exported. Its file is then run in an empty
environment that holds the wheel, ONNX Runtime and numpy. A start counts from the moment before the
process is made until its first answer can be read, the interpreter that sets the limit included;
files are in the system's cache, as on a box that was started before. The very first start, which
compiles the modules, is told apart. Memory is the most that a process held while it judged again
and again. The check holds the answers against the record of images that nothing was fitted on.

With --bundle and --data the file is that of an inspection bundle, as of one that was compressed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from connectors.compress.inspection import read_subject
from connectors.defects.edge_file import record_path, write_edge_file
from infra.errors import PenstockError
from tasks.defects.bundle.bundle import EDGE
from tasks.defects.detect.config import DetectConfig
from tasks.defects.samples import Sample, rgb
from tests.benchmarks._harness import emit, parser, run_program, table, threads
from tests.benchmarks.defects_latency import CORES, fitted, parts, shipped
from tests.lite_venv import UnreachableError, bare, limited, make_environment

PROVEN = 60
"""Images of the record."""
BENCHES = 5
"""Processes that time the file."""


def prepared(folder: Path, args: Any) -> tuple[Path, list[Path]]:
    """Write the edge file with its record; returns it and images of the record."""
    path = folder / "line.onnx"
    proof = _of_bundle(path, args) if args.bundle else _of_detector(path, args)
    images = []
    for place, sample in enumerate(proof):
        images.append(folder / f"{place}.npy")
        np.save(images[-1], np.ascontiguousarray(rgb(sample.pixels)))
    return path, images


def _of_bundle(path: Path, args: Any) -> Sequence[Sample]:
    subject = read_subject(args.bundle, args.data)
    path.write_bytes(subject.bundle.read(EDGE))
    record_path(path).write_bytes(subject.bundle.read("parity.json"))
    return subject.samples["test"][:PROVEN]


def _of_detector(path: Path, args: Any) -> Sequence[Sample]:
    cores = 1 if args.smoke else args.threads
    first, second, third = parts(args)
    with threads(cores):
        detector = fitted(first, args)
        step = max(1, len(third) // PROVEN)
        proof = third[::step][:PROVEN]
        edge, _ = shipped(detector, first, second, args, proof)
    write_edge_file(path, edge)
    return proof


def started(command: Sequence[str]) -> tuple[float, float, dict[str, Any]]:
    """Return milliseconds until the first line of a process, those of CPU in all, and that line."""
    before, begun = _child_seconds(), time.perf_counter()
    with subprocess.Popen(
        list(command), stdout=subprocess.PIPE, text=True, env=bare(), start_new_session=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        taken = 1e3 * (time.perf_counter() - begun)
        process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"penstock-lite ended with {process.returncode}")
    return taken, 1e3 * (_child_seconds() - before), json.loads(line)


def _child_seconds() -> float:
    """Return CPU seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parser("lite", __doc__.splitlines()[0])
    options.add_argument("--side", type=int, default=256, help="pixels per side (default 256)")
    options.add_argument("--starts", type=int, default=25, help="processes (default 25)")
    options.add_argument("--rounds", type=int, default=100, help="images of a process")
    steps = DetectConfig().steps
    options.add_argument(
        "--steps", type=int, default=steps, help="of training (default %(default)s)"
    )
    options.add_argument(
        "--kept", type=Path, help="folder of fitted detectors, see defects-latency"
    )
    options.add_argument(
        "--bundle", type=Path, help="whose file is run, not one made here; needs --data"
    )
    options.add_argument("--data", type=Path, help="folder of images that the bundle was made of")
    options.add_argument("--threads", type=int, default=CORES, help="cores (default %(default)s)")
    args = options.parse_args(argv)
    if (args.bundle is None) != (args.data is None):
        options.error("--bundle and --data belong together: a bundle and the folder of its images")
    args.parts = (6, 6, 6) if args.smoke else (30, 60, 300)
    if args.smoke:
        args.side, args.starts, args.rounds = 32, 3, 3
    cores = 1 if args.smoke else args.threads
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            programs = make_environment(folder)
        except UnreachableError as error:
            raise PenstockError(f"no packages for the empty environment: {error}") from error
        path, images = prepared(folder, args)
        program, chosen = str(programs / "penstock-lite"), ["--threads", str(cores)]
        run = limited([program, "run", str(path), str(images[0]), *chosen])
        first, _, answer = started(run)
        starts = np.array([started(run)[:2] for _ in range(args.starts)])
        bench = limited([program, "bench", str(path), str(images[0]), *chosen])
        bench += ["--rounds", str(args.rounds)]
        benches = [started(bench)[2] for _ in range(2 if args.smoke else BENCHES)]
        check = limited([program, "check", str(path), *map(str, images), *chosen])
        checked = started(check)[2]
        size = path.stat().st_size
        shape = np.load(images[0], mmap_mode="r").shape
    result = {
        "rss_mb": max(one["rss_mb"] for one in benches),
        "cold_start_ms": float(np.median(starts[:, 0])),
        "cold_start_ms_p95": float(np.quantile(starts[:, 0], 0.95)),
        "cold_start_cpu_ms": float(np.median(starts[:, 1])),
        "first_start_ms": first,
        "load_ms": float(np.median([one["load_ms"] for one in benches])),
        "ms_p50": float(np.median([one["ms_p50"] for one in benches])),
        "ms_p95": float(np.median([one["ms_p95"] for one in benches])),
        "ms_min": min(one["ms_min"] for one in benches),
        "cpu_ms_p50": float(np.median([one["cpu_ms_p50"] for one in benches])),
        "mb": size / 1e6,
        "images": checked["checked"],
        "flips": checked["flips"],
        "score_max": checked["score_max"],
        "verdict": answer["verdict"],
        "starts": len(starts),
        "threads": cores,
        "shape": shape[:2],
    }
    shown = ("rss_mb", "cold_start_ms", "cold_start_ms_p95", "ms_p50", "ms_p95")
    table(
        f"lite: {shape[0]} x {shape[1]} pixels, {cores} threads",
        ("", "value"),
        [(k, result[k]) for k in shown],
    )
    emit(result, args)


if __name__ == "__main__":
    run_program("lite", main)
