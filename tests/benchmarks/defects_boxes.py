"""Defects-boxes: boxes with types from 50 images, and golden samples beside a plain difference.

With ``--data`` boxes are learned from the images of each committed draw, eight of each type and two
more, and judged on all others; near-duplicates are taken out as in defects-classify. Without, both
parts run on generated lines. Golden samples are always measured on generated prints and boards:
three good images, each shifted, turned and lit otherwise, are compared with ten good and ten
defective ones that are so, too; the plain difference takes the first golden image as it lies.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from tasks.defects.boxes.average_precision import average_precisions
from tasks.defects.boxes.config import BoxConfig
from tasks.defects.boxes.fit import fit_boxes
from tasks.defects.classify.descriptors import Cache
from tasks.defects.data.voc import parse_voc
from tasks.defects.detect.metrics import auroc
from tasks.defects.samples import Pixels, Sample
from tasks.defects.template.config import AlignError
from tasks.defects.template.fit import fit_template
from tasks.defects.textures.camera import Camera
from tasks.defects.textures.line import LineConfig, make_line
from tests.benchmarks._harness import emit, parser, peak_gib, run_program, stopwatch, table
from tests.benchmarks.defects_classify import (
    Places,
    all_draws,
    read_folder,
    without_copies,
)

PRINTS = ("print", "pcb")
WANTED = {"missing": 4, "foreign": 3, "scratch": 3}
GOLDENS, SIDE, MARGIN = 3, 128, 16


def with_annotations(samples: Sequence[Sample], folder: Path) -> list[Sample]:
    """Return the samples with the boxes of their VOC files, ``annotations/NAME.xml``."""
    found = []
    for sample in samples:
        path = folder / "annotations" / f"{Path(sample.name).stem}.xml"
        boxes = parse_voc(path.read_bytes(), path.name).boxes
        found.append(replace(sample, boxes=boxes))
    return found


def drawn_boxes(
    samples: Sequence[Sample], labels: Places, config: BoxConfig, cache: Cache
) -> dict[str, Any]:
    """Return the figures of one draw: fitted on its labels, judged on all other images."""
    with stopwatch() as fitting:
        detector = fit_boxes([samples[i] for i in labels], config, cache=cache)
    others = [samples[i] for i in np.setdiff1d(np.arange(len(samples)), labels)]
    images = [sample.pixels for sample in others]
    labelled = [sample.boxes for sample in others]
    with stopwatch() as judging:
        seen = [detector.propose(pixels) for pixels in images]
        factors = detector.evidence(images, cache)
    figures = []
    for each in (factors, np.ones_like(factors)):
        told = [
            detector.merge(one, factor, pixels.shape[:2])
            for one, factor, pixels in zip(seen, each, images, strict=True)
        ]
        figures.append(average_precisions(told, labelled))
    by_type, alone = figures
    return {
        "map50": float(np.mean(list(by_type.values()))),
        "net_alone_map50": float(np.mean(list(alone.values()))),
        "types": by_type,
        "seconds": fitting.cpu,
        "judge_ms": 1e3 * judging.cpu / len(others),
    }


def boxes_measured(
    samples: Sequence[Sample], draws: Sequence[Places], config: BoxConfig, cache: Cache, args: Any
) -> dict[str, Any]:
    """Return the figures of all draws; those that stand in the folder of results are read."""
    each = [
        kept(
            args.results,
            f"draw_{number}",
            partial(drawn_boxes, samples, labels, config, cache),
        )
        for number, labels in enumerate(draws)
    ]
    names = ("map50", "net_alone_map50", "seconds", "judge_ms")
    columns = {name: [one[name] for one in each] for name in names}
    kinds = sorted({kind for one in each for kind in one["types"]})
    table("defects-boxes", ("draw", *names), [(k, *row) for k, row in
          enumerate(zip(*columns.values(), strict=True))])  # fmt: skip
    result: dict[str, Any] = {name: float(np.mean(values)) for name, values in columns.items()}
    spread = float(np.std(columns["map50"], ddof=1)) if len(each) > 1 else None
    return result | {
        "map50_sd": spread,
        "map50_worst": min(columns["map50"]),
        "draws": columns["map50"],
        "types": {k: float(np.mean([one["types"].get(k, math.nan) for one in each]))
                  for k in kinds},
    }  # fmt: skip


def photographed(part: Pixels, rng: Generator, side: int, *, first: bool = False) -> Pixels:
    """Return a part, shifted by up to 6 pixels, turned by 3 degrees, zoomed by 2 %, lit anew.

    Args:
        part: uint8 [h, w], with a margin around what is shown.
        rng: Source of randomness.
        side: Of the image.
        first: Whether it lies straight: the sample that the plain difference is taken to.
    """
    turn, zoom = math.radians(rng.uniform(-3, 3)), 1 + rng.uniform(-0.02, 0.02)
    shift = rng.uniform(-6, 6, 2)
    if first:
        turn, zoom, shift = 0.0, 1.0, np.zeros(2)
    along, across = zoom * math.cos(turn), zoom * math.sin(turn)
    matrix = np.array([[along, across], [-across, along]])
    own, other = (np.array(part.shape) - 1) / 2, np.full(2, (side - 1) / 2)
    levels = part.astype(np.float32) / 255
    moved = ndimage.affine_transform(
        levels, matrix, own + shift - matrix @ other, output_shape=(side, side), order=1
    )
    camera = Camera(
        gain=math.exp(rng.uniform(-0.25, 0.25)),
        slant=rng.uniform(0, 0.3),
        slant_angle=rng.uniform(0, 2 * math.pi),
        noise=0.01,
    )
    return camera.taken(moved, rng)


def plain_score(pixels: Pixels, golden: Pixels) -> float:
    """Return the mean of the nine largest differences, at one mean brightness."""
    apart = np.abs(pixels / pixels.mean() - golden / golden.mean())
    return float(np.sort(ndimage.gaussian_filter(apart, 0.7).ravel())[-9:].mean())


def golden_samples(
    texture: str, seed: int, good: int, wanted: Mapping[str, int]
) -> tuple[float, float, int]:
    """Return AUROC of the golden sample and of the plain difference, and images refused."""
    whole = SIDE + 2 * MARGIN
    line = make_line(
        LineConfig(texture=texture, shape=(whole, whole), ok=GOLDENS + good, ng=wanted,
                   strength=(2, 6), noise=0.0, seed=seed)
    )  # fmt: skip
    rng = np.random.default_rng((seed, 1))
    images = [photographed(s.pixels, rng, SIDE, first=k == 0) for k, s in enumerate(line)]
    detector = fit_template(images[:GOLDENS])
    truth = [sample.label == "ng" for sample in line[GOLDENS:]]
    scores, refused = [], 0
    for pixels in images[GOLDENS:]:
        try:
            scores.append(detector.judge([pixels])[0].score)
        except AlignError:  # nobody would ship such a part
            scores.append(math.inf)
            refused += 1
    plain = [plain_score(pixels, images[0]) for pixels in images[GOLDENS:]]
    return auroc(scores, truth), auroc(plain, truth), refused


def template_measured(
    seeds: Sequence[int], good: int = 10, wanted: Mapping[str, int] = WANTED
) -> dict[str, Any]:
    """Return the figures of golden samples over all seeds."""
    each = {t: [golden_samples(t, seed, good, wanted) for seed in seeds] for t in PRINTS}
    rows = [(t, *np.mean(values, axis=0)) for t, values in each.items()]
    table("golden samples", ("texture", "template_auroc", "plain_auroc", "refused"), rows)
    own, plain, refused = np.array([v for values in each.values() for v in values]).T
    return {
        "template_auroc": float(own.mean()),
        "template_auroc_worst": float(own.min()),
        "plain_auroc": float(plain.mean()),
        "template_refused": int(refused.sum()),
        **{f"{texture}_auroc": float(auroc) for texture, auroc, *_ in rows},
    }


def kept(folder: Path | None, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what stands in the folder of results under a name; else measure it and keep it."""
    path = folder and folder / f"{name}.json"
    if path is not None and path.is_file():
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found
    found = measure()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found), encoding="utf-8")
    return found


def made_up(seed: int, number: int) -> list[Sample]:
    """Make up a line with three types of defects and their boxes."""
    ng = dict.fromkeys(("scratch", "pit", "stain"), number)
    return make_line(LineConfig(shape=(96, 96), ok=0, ng=ng, strength=(3, 8), seed=seed))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("defects-boxes", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder with images and VOC annotations (NEU-DET)")
    made.add_argument("--draws", type=int, default=10, help="draws of 50 images (default 10)")
    made.add_argument("--results", type=Path, help="folder that keeps each draw, to go on from")
    args = made.parse_args(argv)
    args.labels, args.more = 8, 2
    config, templates = BoxConfig(), partial(template_measured, range(args.seed, args.seed + 10))
    samples = None if args.smoke else read_folder(args.data)
    real = samples is not None
    if samples is not None:
        folder = args.data or Path(os.environ["PENSTOCK_DATA"]) / "defects"
        inner = folder / "neu_det"
        samples = with_annotations(without_copies(samples), inner if inner.is_dir() else folder)
    elif args.smoke:
        config = replace(config, steps=3, piece=48, batch=2, evidence=0)
        args.labels, args.more, args.draws = 3, 0, 1
        samples = made_up(args.seed, 5)
        templates = partial(template_measured, [args.seed], 2, {"missing": 2})
    else:
        config = replace(config, steps=150, piece=96)
        samples = made_up(args.seed, 24)
    cache: Cache = {}
    with stopwatch() as took:
        result = boxes_measured(samples, all_draws(samples, args), config, cache, args)
        result |= kept(args.results, "template", templates)
    result |= {"made_up": not real, "images": len(samples), "whole_seconds": took.wall}
    emit(result | {"peak_gib": peak_gib()}, args)


if __name__ == "__main__":
    run_program("defects-boxes", main)
