"""``penstock-lite``: look at a file, check it, run it, time it; answers are lines of JSON."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connectors.lite.model import LiteModel

DIFFERENT, REFUSED, STOPPED = 1, 2, 130
"""Exit codes: decides otherwise than recorded; a file or an input is not run; Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    args = _parsed(argv)
    # Before numpy is loaded: its threads reserve memory each, and all work is ONNX Runtime's.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        code: int = args.action(args)
    except (ValueError, OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return REFUSED
        _complain(error)
        return REFUSED
    except KeyboardInterrupt:
        return STOPPED
    return code


def info(args: argparse.Namespace) -> int:
    """Tell what a file is."""
    import numpy as np
    import onnxruntime

    versions = {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__}
    _say({**_opened(args).described(), "versions": versions})
    return 0


def check(args: argparse.Namespace) -> int:
    """Check a file, and where images are given, whether it decides here as it did there."""
    model = _opened(args)
    told: dict[str, Any] = {"file": args.model, "sha256": model.sha256, "checked": 0}
    if not args.inputs:
        _say(told)
        return 0
    found = model.check(args.inputs, threads=args.threads)
    _say(
        told
        | {
            "checked": found.images,
            "same": found.same,
            "flips": found.against_shipped.flips,
            "score_max": found.against_shipped.score_max,
            "flips_trained": found.against_trained.flips,
        }
    )
    return 0 if found.same else DIFFERENT


def run(args: argparse.Namespace) -> int:
    """Answer to each input; one that is refused does not keep the others."""
    from connectors.lite.lines import kept

    model = _opened(args)
    code = 0
    for place, name in enumerate(args.inputs):
        begun = time.perf_counter()
        try:
            answer = model.run(name)
        except (ValueError, OSError, MemoryError) as error:
            _complain(error)
            code = REFUSED
            continue
        taken = 1e3 * (time.perf_counter() - begun)
        told = kept(answer, args.out, f"{place:05d}-{Path(name).stem}")
        _say({"input": name, **told, "ms": round(taken, 3)})
    return code


def bench(args: argparse.Namespace) -> int:
    """Time one input again and again."""
    import numpy as np

    begun = time.perf_counter()
    model = _opened(args)
    loaded = 1e3 * (time.perf_counter() - begun)
    given = model.prepared(args.inputs[0]) if args.inputs else _noise(model, args.side)
    for _ in range(3):
        model.run(given)
    taken, busy = [], []
    for _ in range(args.rounds):
        begun, worked = time.perf_counter(), time.process_time()
        model.run(given)
        taken.append(1e3 * (time.perf_counter() - begun))
        busy.append(1e3 * (time.process_time() - worked))
    low, middle, high = np.quantile(taken, [0.0, 0.5, 0.95])
    _say(
        {
            "file": args.model,
            "shape": list(given.shape),
            "threads": args.threads,
            "rounds": args.rounds,
            "load_ms": round(loaded, 3),
            "ms_min": round(low, 3),
            "ms_p50": round(middle, 3),
            "ms_p95": round(high, 3),
            "cpu_ms_p50": round(float(np.median(busy)), 3),
            "rss_mb": _peak_mb(),
        }
    )
    return 0


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(prog="penstock-lite", description=__doc__)
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for action, inputs in ((info, None), (check, "*"), (run, "+"), (bench, "?")):
        one = commands.add_parser(action.__name__, help=action.__doc__, description=action.__doc__)
        one.set_defaults(action=action)
        one.add_argument("model", help="the .onnx file; its record is looked for beside it")
        if inputs is not None:
            one.add_argument("inputs", nargs=inputs, help="files: .npy, .png, .pgm, .ppm")
        one.add_argument("--threads", type=_positive, default=2, help="cores (default 2)")
        if action is check:
            one.set_defaults(demand_record=True)
        else:
            one.add_argument("--demand-record", action="store_true", help="refuse a file without")
        one.add_argument("--sha256", default="", help="that the file must have")
        if action is run:
            one.add_argument("--out", type=Path, help="folder for heat maps and other arrays")
        if action is bench:
            one.add_argument("--rounds", type=_positive, default=50, help="runs (default 50)")
            one.add_argument("--side", type=_positive, default=256, help="pixels (default 256)")
    args = made.parse_args(argv)
    if args.action is bench:
        args.inputs = [args.inputs] if args.inputs else []
    return args


def _opened(args: argparse.Namespace) -> LiteModel:
    from connectors.lite.model import open_model

    return open_model(
        args.model, threads=args.threads, demand_record=args.demand_record, sha256=args.sha256
    )


def _noise(model: LiteModel, side: int) -> Any:
    """Return an image of noise that a detector takes."""
    import numpy as np

    if not model.is_detector:
        raise ValueError(f"{model.path}: is no detector; give an input to time it with")
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return model.prepared(noise)


def _peak_mb() -> float | None:
    """Return the most memory that was held so far, None where the system does not tell.

    Not by `getrusage`: there it is never less than what the program that started this one held.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return round(int(found[1]) / 1024, 1) if found else None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 on")
    return int(text)


def _say(line: dict[str, Any]) -> None:
    from connectors.lite.lines import plain

    sys.stdout.write(json.dumps(plain(line), allow_nan=False) + "\n")
    sys.stdout.flush()


def _complain(error: BaseException) -> None:
    told = " ".join(str(error).split()) or "out of memory"
    sys.stderr.write(f"penstock-lite: {told}\n")
