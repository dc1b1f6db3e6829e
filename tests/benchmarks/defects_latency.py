"""Defects-latency: the int8 edge file against the same graph in float32 and against torch.

A detector is trained on a generated line, and int8 ranges are measured there. Other parts set
thresholds that keep a promise: the detector's by its scores, the edge file's by the scores of the
file. A third group is judged by both; a flip is a part that the two, each by its own thresholds,
decide otherwise.

The contenders take turns, so that a busy machine slows all alike. Times are of one decoded image at
batch 1: for the edge file with all that a user gets, the heat enlarged to the image; for the ratio
the graphs alone. CPU time on one thread, which other programs hardly change, stands beside.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from connectors.defects.edge_file import write_edge_file
from kernels.compression.parity import Answer, answers_of, difference
from kernels.compression.qdq import QdqConfig
from kernels.compression.sessions import open_session
from models.defect_net import DefectNet, DefectNetShape
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.detector import FACTS, WEIGHTS, Detector
from tasks.defects.detect.fit import fit
from tasks.defects.edge.build import EdgeConfig, build_edge
from tasks.defects.edge.format import VERDICTS, EdgeFile
from tasks.defects.edge.graph import EdgeGraph
from tasks.defects.edge.session import EdgeSession
from tasks.defects.judgement import Thresholds
from tasks.defects.samples import Sample, rgb
from tasks.defects.textures.line import LineConfig, make_line
from tasks.defects.training import judge, settle
from tests.benchmarks._harness import emit, parser, run_program, table, threads
from tests.processes import unmeasured

CORES = 2
REST_SECONDS = 0.05
BURST = 10
"""Images of a turn."""
CHILD = """
import sys
from pathlib import Path
import numpy as np
from connectors.defects.edge_file import open_edge_file
session = open_edge_file(Path(sys.argv[1]), demand_record=True)
rng = np.random.default_rng(0)
for side in map(int, sys.argv[2:]):
    session.judge(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
peak = next(x for x in open("/proc/self/status") if x.startswith("VmHWM"))
print(int(peak.split()[1]) / 1024)
"""


def parts(args: Any) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """Return parts of one line: to fit and to measure ranges on, to set thresholds, to judge."""
    fitted, held, _ = args.parts
    kinds = ("scratch", "pit", "stain")
    many = sum(args.parts)
    line = make_line(
        LineConfig(
            texture="brushed",
            shape=(args.side, args.side),
            ok=many,
            ng=dict.fromkeys(kinds, many // 3),
            seed=args.seed,
        )
    )
    found: tuple[list[Sample], list[Sample], list[Sample]] = ([], [], [])
    for kind in ("", *kinds):
        own = [sample for sample in line if sample.kind == kind]
        first = fitted if not kind else fitted // 3
        second = first + (held if not kind else held // 3)
        for group, some in zip(found, (own[:first], own[first:second], own[second:]), strict=True):
            group.extend(some)
    return found


def fitted(samples: Sequence[Sample], args: Any) -> Detector:
    """Return a detector of the line; a tiny one for the smoke test, the kept one where there is."""
    if args.smoke:
        shape = DefectNetShape(stem=8, widths=(16, 16, 16), blocks=(1, 1, 1), dense=16)
        torch.manual_seed(args.seed)
        small = DetectConfig(steps=2, memory=32, projected=8, piece=32, batch=2)
        return fit(samples, small, DefectNet(shape).eval())
    name = f"{args.side}-{args.steps}-{args.seed}"
    kept = None if args.kept is None else args.kept / name
    if kept is not None and kept.is_dir():
        return Detector.from_bytes({n: (kept / n).read_bytes() for n in (WEIGHTS, FACTS)})
    config = DetectConfig(steps=args.steps, fold_steps=min(args.steps, 50), seed=args.seed)
    made = fit(samples, config)
    if kept is not None:
        kept.mkdir(parents=True)
        for file, content in made.to_bytes().items():
            (kept / file).write_bytes(content)
    return made


def shipped(
    detector: Detector,
    first: Sequence[Sample],
    second: Sequence[Sample],
    args: Any,
    proof: Sequence[Sample] = (),
) -> tuple[EdgeFile, Thresholds]:
    """Return the edge file of a detector, and the detector's own thresholds."""
    scores = [one.score for one in judge(detector, second)]
    thresholds = settle(second, scores, None).thresholds
    config = EdgeConfig(calibration=60)
    if args.smoke:
        config = EdgeConfig(qdq=QdqConfig(rules=("min-max",), most_float=0))
    edge = build_edge(
        detector.scorer,
        thresholds,
        [s.pixels for s in first],
        settle=lambda session: (
            settle(second, [session.judge(s.pixels).score for s in second], None).thresholds
        ),
        proof=[s.pixels for s in proof],
        config=config,
    )
    return edge, thresholds


def in_turns(
    contenders: Mapping[str, Callable[[NDArray[np.uint8]], object]],
    images: Sequence[NDArray[np.uint8]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, NDArray[np.float64]]:
    """Return milliseconds [rounds, BURST], by a clock, of contenders that take turns on the images.

    A turn is a rest, then image after image: threads of the contender before wait for more work by
    spinning, and no line runs two models on the same cores. The first image of a turn finds cold
    caches and sleeping threads.
    """
    taken: dict[str, list[list[float]]] = {name: [] for name in contenders}
    warm = max(1, rounds // 10)
    for turn in range(warm + rounds):
        for name, answer in contenders.items():
            time.sleep(REST_SECONDS)
            times = [clock()]
            for place in range(BURST):
                answer(images[(turn * BURST + place) % len(images)])
                times.append(clock())
            taken[name].append([1e3 * (b - a) for a, b in pairwise(times)])
    return {name: np.array(each[warm:]) for name, each in taken.items()}


def timed(
    edge: EdgeFile, graph: EdgeGraph, images: Sequence[NDArray[np.uint8]], cores: int, rounds: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, float]]:
    """Return milliseconds by `in_turns`, and median CPU milliseconds of the ONNX files."""
    session = EdgeSession(edge.model, threads=cores)
    models = {"int8": edge.model, "float32": edge.float32}
    graphs = {name: open_session(model, threads=cores) for name, model in models.items()}
    with torch.inference_mode(), threads(cores):
        taken = in_turns(
            {
                "edge file": session.judge,
                "int8": lambda x: graphs["int8"].run(None, {"pixels": x}),
                "float32": lambda x: graphs["float32"].run(None, {"pixels": x}),
                "torch": lambda x: graph(torch.from_numpy(x)),
            },
            images,
            rounds,
        )
    single = {name: open_session(model, threads=1) for name, model in models.items()}
    alone = in_turns(
        {name: lambda x, one=one: one.run(None, {"pixels": x}) for name, one in single.items()},
        images,
        max(1, rounds // 4),
        time.process_time,
    )
    return taken, {name: float(np.median(each[:, 1:])) for name, each in alone.items()}


def peak_mb(path: Path, sides: Sequence[int]) -> float:
    """Return the largest resident size of a process that judges images of these sides."""
    command = [sys.executable, "-c", CHILD, str(path), *map(str, sides)]
    done = subprocess.run(command, capture_output=True, text=True, env=unmeasured(), check=True)
    return float(done.stdout)


def errors(samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, float]:
    """Return the shares of escapes, of false rejects and of images for a person."""
    verdicts = [
        (sample.label, VERDICTS[given]) for sample, (_, given) in zip(samples, answers, strict=True)
    ]
    ng, ok = (sum(label == one for label, _ in verdicts) for one in ("ng", "ok"))
    return {
        "escapes": verdicts.count(("ng", "OK")) / ng,
        "false_rejects": verdicts.count(("ok", "NG")) / ok,
        "review": sum(verdict == "REVIEW" for _, verdict in verdicts) / len(verdicts),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("defects-latency", __doc__.splitlines()[0])
    made.add_argument("--side", type=int, default=256, help="pixels per side (default 256)")
    made.add_argument("--rounds", type=int, default=40, help=f"turns of {BURST} images each")
    steps = DetectConfig().steps
    made.add_argument("--steps", type=int, default=steps, help="of training (default %(default)s)")
    made.add_argument("--kept", type=Path, help="folder of fitted detectors, filled where needed")
    args = made.parse_args(argv)
    args.parts = (6, 6, 6) if args.smoke else (30, 60, 300)
    if args.smoke:
        args.side, args.rounds = 32, 1
    cores = 1 if args.smoke else CORES
    first, second, third = parts(args)
    with threads(cores):
        detector = fitted(first, args)
    scorer = detector.scorer
    edge, thresholds = shipped(detector, first, second, args)
    judged = [np.ascontiguousarray(rgb(sample.pixels)) for sample in third]
    graph = EdgeGraph(scorer, thresholds).eval()
    with torch.inference_mode():
        trained = [(float(a[0]), int(a[3])) for a in (graph(torch.from_numpy(x)) for x in judged)]
    exported = difference(trained, answers_of(edge.float32, judged))
    answered = answers_of(edge.model, judged)
    quantised = difference(trained, answered)
    taken, cpu = timed(edge, graph, judged, cores, args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "line.onnx"
        write_edge_file(path, edge)
        rss = peak_mb(path, (args.side,) if args.smoke else (args.side, 1024, 7000))
    rested = {name: float(np.median(each[:, 0])) for name, each in taken.items()}
    busy = {name: each[:, 1:] for name, each in taken.items()}
    middle = {name: float(np.median(each)) for name, each in busy.items()}
    of_turns = {name: np.median(each, axis=1) for name, each in busy.items()}
    result = {
        "ms_p50": middle["edge file"],
        "ms_p95": float(np.quantile(busy["edge file"], 0.95)),
        "ms_rested": rested["edge file"],
        "mb": len(edge.model) / 1e6,
        "mb_float32": len(edge.float32) / 1e6,
        "x_ort_fp32": middle["float32"] / middle["int8"],
        "x_ort_fp32_low": float(np.quantile(of_turns["float32"] / of_turns["int8"], 0.05)),
        "x_ort_fp32_rested": rested["float32"] / rested["int8"],
        "x_torch": middle["torch"] / middle["int8"],
        "cpu_ms_int8": cpu["int8"],
        "cpu_ms_float32": cpu["float32"],
        "x_cpu": cpu["float32"] / cpu["int8"],
        "int8_ms": middle["int8"],
        "float32_ms": middle["float32"],
        "torch_ms": middle["torch"],
        "flips_fp32": exported.flips / len(judged),
        "flips_int8": quantised.flips / len(judged),
        "score_max_fp32": exported.score_max,
        "score_max_int8": quantised.score_max,
        "verdicts_int8": quantised.table,
        "errors_torch": errors(third, trained),
        "errors_int8": errors(third, answered),
        "rss_mb": rss,
        "images": len(judged),
        "quantisation": json.loads(json.dumps(dict(edge.record.facts))),
    }
    rows = [
        (name, *(float(np.quantile(each, q)) for q in (0.5, 0.95))) for name, each in busy.items()
    ]
    table(f"defects-latency: {args.side} pixels, {cores} cores", ("", "ms p50", "ms p95"), rows)
    emit(result, args)


if __name__ == "__main__":
    run_program("defects-latency", main)
