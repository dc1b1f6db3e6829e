"""Defects-augment: what each augmentation changes, beside the same training without it.

*Types*: the small net is trained for a short time on about 50 labelled images of NEU-DET, and names
a fixed sample of the others. *Surfaces*: it is trained with 40 normal and 10 defective magnetic
tiles, and finds the defects of other tiles. An arm is the baseline (random windows, flips) and one
augmentation; each is compared with the baseline on the same draws, and the mean difference has a
95 % t interval over the draws. With ``--kept FILE`` an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import nn

from models.defect_net import DefectNet, DefectNetShape
from tasks.defects.samples import Sample
from tests.benchmarks._augment_arms import (
    SURFACE_ARMS,
    TYPE_ARMS,
    Measure,
    Size,
    surface_aurocs,
    type_accuracy,
)
from tests.benchmarks._harness import emit, parser, peak_gib, run_program, stopwatch, table, threads
from tests.benchmarks.defects_anomaly import generated, read_draws, read_tiles
from tests.benchmarks.defects_classify import all_draws, drawn, made_up, read_folder, without_copies

ARMS = {"types": TYPE_ARMS, "surfaces": SURFACE_ARMS}
JUDGED = {"types": 400, "surfaces": 40}
"""Images named per draw, and good and defective ones each that are judged."""
START_DRAWS = 1_000
"""Number of the first development draw."""


def types(net: DefectNet, size: Size, args: Any) -> Measure:
    """Return the measurement of types."""
    real = args.data and read_folder(args.data / "neu_det")
    samples = without_copies(real or made_up(args.seed, 8))
    kinds = np.array([sample.kind for sample in samples])
    if real and not args.development:
        draws = all_draws(samples, argparse.Namespace(labels=8, more=2, **vars(args)))
    else:
        count = (8, 2) if real else (4, 0)
        first = START_DRAWS if args.development else 0
        draws = [drawn(kinds, *count, (args.seed, first + k)) for k in range(args.draws)]

    def measure(arm: str, number: int) -> dict[str, float]:
        labels = draws[number]
        rest = np.setdiff1d(np.arange(len(samples)), labels)
        rest = np.random.default_rng((args.seed, number)).permutation(rest)[: JUDGED["types"]]
        labelled, others = ([samples[i] for i in each] for each in (labels, rest))
        return type_accuracy(copy.deepcopy(net), labelled, others, arm, (args.seed, number), size)

    return measure


def surfaces(net: DefectNet, head: nn.Conv2d, size: Size, args: Any) -> Measure:
    """Return the measurement of surfaces."""
    if args.data:
        samples = read_tiles(args.data)
        draws = development(samples, args.draws) if args.development else read_draws()
    else:
        samples, draws = generated(args.seed)
    named = {sample.name: sample for sample in samples}

    def measure(arm: str, number: int) -> dict[str, float]:
        normals, defects = ([named[name] for name in names] for names in draws[number])
        parts = {sample.part for sample in (*normals, *defects)}
        rng, others = np.random.default_rng((args.seed, number)), []
        for label in ("ok", "ng"):
            free = [s for s in samples if s.label == label and s.part not in parts]
            others += [free[i] for i in rng.permutation(len(free))[: JUDGED["surfaces"]]]
        both = nn.Conv2d(net.shape.dense, 2, 1)
        with torch.no_grad():
            for own, given in zip(both.parameters(), head.parameters(), strict=True):
                own.copy_(given.expand(2, *given.shape[1:]))
        start = copy.deepcopy(net), both
        return surface_aurocs(*start, (normals, defects), others, arm, (args.seed, number), size)

    return measure


def development(samples: Sequence[Sample], count: int) -> list[tuple[list[str], list[str]]]:
    """Draw 40 normal and 10 defective tiles as the fixed draws were, by other seeds."""
    found = []
    for number in range(count):
        rng = np.random.default_rng(START_DRAWS + number)
        names = []
        for label, size in (("ok", 40), ("ng", 10)):
            by_part: dict[str, list[str]] = {}
            for sample in samples:
                if sample.label == label:
                    by_part.setdefault(sample.part, []).append(sample.name)
            parts = rng.permutation(sorted(by_part))[:size]
            names.append([str(rng.choice(by_part[part])) for part in parts])
        found.append((names[0], names[1]))
    return found


def difference(values: Sequence[float], baseline: Sequence[float]) -> dict[str, float | None]:
    """Return the mean difference and its 95 % t interval over the draws."""
    apart = np.subtract(values, baseline)
    found = {"delta": float(apart.mean()), "low": None, "high": None}
    if len(apart) > 1:
        reach = stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
        found |= {"low": found["delta"] - reach, "high": found["delta"] + reach}
    return found


def measured(half: str, measure: Measure, args: Any) -> dict[tuple[str, int], dict[str, float]]:
    """Return the figures by arm and draw; those in the file are not measured again."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    told = {"half": half, "seed": args.seed, "development": args.development}
    if args.kept and args.kept.is_file():
        for line in args.kept.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if all(row[name] == value for name, value in told.items()):
                found[row["arm"], row["draw"]] = row["figures"]
    for number in range(args.draws):
        for arm in args.arms or ARMS[half]:
            if arm not in ARMS[half] or (arm, number) in found:
                continue
            with stopwatch() as took:
                found[arm, number] = measure(arm, number)
            found[arm, number]["cpu_seconds"] = took.cpu
            if args.kept:
                row = told | {"arm": arm, "draw": number, "figures": found[arm, number]}
                with args.kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    return found


def summary(half: str, found: dict[tuple[str, int], dict[str, float]]) -> dict[str, Any]:
    """Return mean figures of each arm and its differences from the baseline; print them."""
    draws = sorted(number for arm, number in found if arm == "baseline")
    result: dict[str, Any] = {"draws": len(draws)}
    rows = []
    for arm in dict.fromkeys(arm for arm, _ in found):
        result[arm] = {}
        for name in found["baseline", draws[0]]:
            values = [found[arm, number][name] for number in draws]
            result[arm][name] = {"mean": float(np.mean(values)), "each": values}
            if arm != "baseline" and name != "cpu_seconds":
                before = [found["baseline", number][name] for number in draws]
                result[arm][name] |= difference(values, before)
            one = result[arm][name]
            rows.append((f"{arm}: {name}", one["mean"], *(one.get(k) for k in
                         ("delta", "low", "high"))))  # fmt: skip
    table(f"{half}, {len(draws)} draws", ("arm", "mean", "delta", "low", "high"), rows)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("defects-augment", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder with neu_det and magnetic_tile")
    made.add_argument("--draws", type=int, default=10, help="so many of the fixed draws")
    made.add_argument("--half", choices=sorted(ARMS), help="that one alone")
    made.add_argument("--arms", nargs="+", help="those alone, with baseline")
    made.add_argument("--kept", type=Path, help="JSON lines; what stands there is kept")
    made.add_argument("--development", action="store_true", help="draws to choose settings by")
    args = made.parse_args(argv)
    if args.smoke:
        args.data = None
    if args.data:
        from tasks.defects.weights import load_mask_head, load_net

        net, head, size = load_net(), load_mask_head(), Size()
    else:
        print("a generated line; name the folder of the images by --data FOLDER")
        args.draws = 2
        torch.manual_seed(args.seed)
        net = DefectNet(DefectNetShape(8, (8, 8, 8), (1, 1, 1), 8)).eval()
        head, size = nn.Conv2d(8, 1, 1), Size(3, 2, 32, (4, 2))
    result: dict[str, Any] = {"made_up": args.data is None}
    with threads(1), stopwatch() as took:
        for half in [args.half] if args.half else ARMS:
            measure = types(net, size, args) if half == "types" else surfaces(net, head, size, args)
            result[half] = summary(half, measured(half, measure, args))
    result |= {"seconds": took.wall, "cpu_seconds": took.cpu, "peak_gib": peak_gib()}
    emit(result, args)


if __name__ == "__main__":
    run_program("defects-augment", main)
