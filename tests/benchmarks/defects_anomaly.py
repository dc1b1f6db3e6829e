"""Defects-anomaly: normal images and 0, 5 or 10 labelled defects, beside PatchCore.

Magnetic tiles are split by the physical tile: each draw labels one image each of 40 flawless and 10
defective tiles, and all images of all other tiles are judged, one at a time, without looking at
them before. PatchCore sees the same 40 images by the same weights. Draws are fixed in a file.
``n10`` looks once, as the file on the edge does; ``n10_centre`` is the same detector asked in four
mirrored positions, as the central machine does. The folds that calibrate a score change no ranking,
so that their nets are not trained here by default. Ten draws take hours of one core: `--first K
--draws 1 --json` runs one, `--merge FILE ...` tells the means of such runs.
"""

from __future__ import annotations

import csv
import json
from argparse import BooleanOptionalAction
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from connectors.defects.inspect.central.ensemble import (
    USUAL_POSITIONS,
    log_odds,
    turned,
    turned_back,
)
from models.defect_net import DefectNet, DefectNetShape, Features
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.detector import Detector, tensor_of
from tasks.defects.detect.fit import fit
from tasks.defects.detect.metrics import auroc, heat_metrics
from tasks.defects.judgement import Heat
from tasks.defects.samples import Pixels, Sample
from tasks.defects.textures.line import LineConfig, make_line
from tests.benchmarks._harness import emit, parser, peak_gib, run_program, stopwatch, table, threads
from tests.benchmarks._patchcore import PatchCore

DRAWS = Path(__file__).parent / "draws" / "defects_anomaly.csv"
SIZES = (0, 5, 10)
Draw = tuple[list[str], list[str]]
"""Names of the normal and of the defective images that are labelled."""
Start = tuple[DefectNet, nn.Conv2d | None]
"""Net and mask head that all start from."""
Figures = dict[str, dict[str, dict[str, float]]]
"""By contender, number of the draw and name of the figure."""
Judge = Callable[[Pixels, Callable[[], Features]], tuple[float, Heat]]


@dataclass(slots=True)
class Contender:
    """One detector on one draw, and what it said of the images of other tiles.

    Attributes:
        draw: Number of the draw.
        key: ``n0``, ``n5``, ..., those with ``_centre``, or ``patchcore``.
        parts: Tiles of the labelled images.
        judge: Score and heat of an image, given its pixels, and what gives its features by the
            weights that all start from; each image once.
        scores: By image name.
        heats: By image name, float16 to save memory.
    """

    draw: int
    key: str
    parts: set[str]
    judge: Judge
    scores: dict[str, float] = field(default_factory=dict)
    heats: dict[str, np.ndarray] = field(default_factory=dict)


def read_tiles(folder: Path) -> list[Sample]:
    """Read the images of magnetic tiles with masks and groups, there or in `magnetic_tile`."""
    found = []
    if (folder / "magnetic_tile").is_dir():
        folder /= "magnetic_tile"
    with (folder / "tile_groups.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            path = folder / row["class"] / "Imgs" / row["file"]
            kind = row["class"].removeprefix("MT_").replace("Free", "")
            mask = np.asarray(Image.open(path.with_suffix(".png")).convert("L")) > 127
            found.append(
                Sample(
                    f"{row['class']}/{row['file']}",
                    np.asarray(Image.open(path).convert("L")),
                    "ng" if kind else "ok",
                    kind.lower(),
                    mask if kind else None,
                    part=row["tile_group"],
                )
            )
    return found


def read_draws(path: Path = DRAWS) -> list[Draw]:
    """Return the draws of the file, in order."""
    found: list[Draw] = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            while len(found) <= int(row["draw"]):
                found.append(([], []))
            found[int(row["draw"])][row["label"] == "ng"].append(row["name"])
    return found


def generated(seed: int) -> tuple[list[Sample], list[Draw]]:
    """Return a small generated line, and two draws of it."""
    line = make_line(LineConfig(shape=(64, 64), ok=14, ng={"pit": 5, "scratch": 5}, seed=seed))
    rng = np.random.default_rng(seed)
    names = [[s.name for s in line if s.label == label] for label in ("ok", "ng")]
    draws = []
    for _ in range(2):
        ok, ng = (list(rng.permutation(each)) for each in names)
        draws.append((ok[:6], ng[:4]))
    return line, draws


def contenders(
    samples: Sequence[Sample], draws: Sequence[Draw], start: Start, args: Any
) -> list[Contender]:
    """Fit PatchCore and a detector per size on each draw."""
    named = {sample.name: sample for sample in samples}
    found = []
    for number, (ok, ng) in enumerate(draws, args.first):
        normals = [named[name] for name in ok]
        parts = {named[name].part for name in (*ok, *ng)}
        if args.patchcore:
            core = PatchCore(start[0], seed=args.seed + number)
            core.fit([tensor_of(sample.pixels) for sample in normals])
            found.append(Contender(number, "patchcore", parts, _by_features(core)))
        for size in args.sizes:
            config = DetectConfig(seed=args.seed + number, **args.config)
            detector = fit([*normals, *(named[name] for name in ng[:size])], config, *start)
            asked = _Asked(detector)
            found.append(Contender(number, f"n{size}", parts, asked.once))
            if args.centre:
                found.append(Contender(number, f"n{size}_centre", parts, asked.as_the_centre))
            print(f"draw {number}, n{size}: {detector.provenance['held_out']}", flush=True)
    return found


def _by_features(core: PatchCore) -> Judge:
    return lambda _, seen: core.judge_features(seen())


class _Asked:
    """A detector asked in one position, or as the central machine asks; looks once at each view."""

    def __init__(self, detector: Detector) -> None:
        self._scorer = detector.scorer
        self._last: tuple[Pixels, tuple[float, Heat]] | None = None

    def once(self, pixels: Pixels, _: Callable[[], Features]) -> tuple[float, Heat]:
        if self._last is None or self._last[0] is not pixels:
            self._last = pixels, self._look(pixels)
        return self._last[1]

    def as_the_centre(self, pixels: Pixels, seen: Callable[[], Features]) -> tuple[float, Heat]:
        views = [self.once(pixels, seen)]
        for position in range(1, USUAL_POSITIONS):
            score, heat = self._look(turned(pixels, position))
            views.append((score, turned_back(heat, position)))
        scores, heats = zip(*views, strict=True)
        return float(np.mean(log_odds(scores))), np.mean(heats, axis=0)

    def _look(self, pixels: Pixels) -> tuple[float, Heat]:
        found = self._scorer(tensor_of(pixels)[None])
        return float(found.score[0]), found.heat[0, 0].numpy()


@torch.inference_mode()
def judge_all(samples: Sequence[Sample], net: DefectNet, all_of_them: list[Contender]) -> None:
    """Let every contender judge all images of tiles that no label of its draw came from."""
    for sample in samples:
        judges = [one for one in all_of_them if sample.part not in one.parts]
        if not judges:
            continue
        seen = cache(partial(net, tensor_of(sample.pixels)[None]))
        for one in judges:
            score, heat = one.judge(sample.pixels, seen)
            one.scores[sample.name] = score
            one.heats[sample.name] = heat.astype(np.float16)


def figures(one: Contender, named: dict[str, Sample]) -> dict[str, float]:
    """Return the figures of one contender, with those of single types."""
    names = sorted(one.scores)
    kinds = np.array([named[name].kind for name in names])
    scores = np.array([one.scores[name] for name in names])
    masks = [
        np.zeros(named[n].pixels.shape[:2], np.bool_) if named[n].mask is None else named[n].mask
        for n in names
    ]
    pixel, aupro = heat_metrics([one.heats[name].astype(np.float32) for name in names], masks)
    found = {"image_auroc": auroc(scores, kinds != ""), "pixel_auroc": pixel, "aupro": aupro}
    for kind in sorted(set(kinds) - {""}):
        kept = (kinds == "") | (kinds == kind)
        found[f"auroc_{kind}"] = auroc(scores[kept], kinds[kept] != "")
    return found


def merged(paths: Sequence[Path]) -> Figures:
    """Return the figures of runs of other draws each, from the last lines of their output.

    Raises:
        ValueError: Two runs judged the same draw by the same contender.
    """
    found: Figures = {}
    for path in paths:
        told = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        for key, each in told["each"].items():
            so_far = found.setdefault(key, {})
            if twice := so_far.keys() & each.keys():
                raise ValueError(f"{path}: {key} of draw {min(twice)} is in another file, too")
            so_far |= each
    return found


def summary(each: Figures) -> dict[str, Any]:
    """Show a table of the means over draws, and return them."""
    result: dict[str, Any] = {}
    rows = []
    for key, draws in each.items():
        told = {name: [one[name] for one in draws.values()] for name in next(iter(draws.values()))}
        image, pixel = told["image_auroc"], told["pixel_auroc"]
        mean = {name: float(np.mean(values)) for name, values in told.items()}
        spread = {"sd": _spread(image), "worst": min(image), "pixel_sd": _spread(pixel)}
        result[key] = mean | spread | {"draws": len(draws)}
        rows.append((key, len(draws), mean["image_auroc"], spread["sd"], spread["worst"],
                     mean["pixel_auroc"], mean["aupro"]))  # fmt: skip
    columns = ("labels", "draws", "image AUROC", "sd", "worst", "pixel AUROC", "AUPRO")
    table("defects-anomaly", columns, rows)
    if "patchcore" in result:
        result["patchcore_auroc"] = result["patchcore"]["image_auroc"]
    return result | {"each": each}


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("defects-anomaly", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of magnetic_tile, or that itself")
    made.add_argument("--draws", type=int, default=10, help="so many of the fixed draws")
    made.add_argument("--first", type=int, default=0, help="number of the first one")
    made.add_argument(
        "--steps", type=int, default=DetectConfig().steps, help="steps of training of the net"
    )
    made.add_argument("--fold-steps", type=int, default=0, help="steps of each calibrating one")
    made.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="labelled defects")
    made.add_argument("--patchcore", action=BooleanOptionalAction, default=True)
    made.add_argument(
        "--centre", action=BooleanOptionalAction, default=True, help="ask in four positions, too"
    )
    made.add_argument("--merge", type=Path, nargs="+", help="outputs of runs of single draws")
    args = made.parse_args(argv)
    if args.merge:
        emit(summary(merged(args.merge)), args)
        return
    args.config = {"steps": args.steps, "fold_steps": args.fold_steps}
    if args.data is None or args.smoke:
        print("a generated line; name the folder of magnetic tiles by --data FOLDER")
        samples, draws = generated(args.seed)
        torch.manual_seed(args.seed)
        start: Start = DefectNet(DefectNetShape(8, (8, 8, 8), (1, 1, 1), 8)).eval(), None
        args.config |= {
            "steps": 0,
            "piece": 32,
            "memory": 32,
            "projected": 8,
            "folds": 2,
        }
        args.sizes = (0, 4)
    else:
        from tasks.defects.weights import load_mask_head, load_net

        samples, draws = read_tiles(args.data), read_draws()[args.first :][: args.draws]
        start = load_net(), load_mask_head()
    named = {sample.name: sample for sample in samples}
    with threads(1), stopwatch() as took:
        all_of_them = contenders(samples, draws, start, args)
        judge_all(samples, start[0], all_of_them)
    each: Figures = {}
    for one in all_of_them:
        each.setdefault(one.key, {})[str(one.draw)] = figures(one, named)
    result = summary(each) | {"images": len(samples), "steps": args.steps}
    result |= {"seconds": took.wall, "cpu_seconds": took.cpu, "peak_gib": peak_gib()}
    emit(result, args)


if __name__ == "__main__":
    run_program("defects-anomaly", main)
