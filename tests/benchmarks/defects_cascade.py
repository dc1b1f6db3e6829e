"""Defects-cascade: a small edge model sends what it doubts to a larger one; misses of both.

For every seed a line is drawn anew (or, with ``--data``, tiles of a real one, apart by the physical
tile): parts to fit both models on, parts to set thresholds on, parts to judge. The band of REVIEW
is the stretch of edge scores, holding a fixed share of the calibration images, outside of which the
edge errs least there. Edge alone parts the same scores at its cheapest single threshold. A miss
costs five false rejects, at every choice alike; false rejects are told beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from connectors.defects.inspect.central.ensemble import EnsembleInspector, Member, calibrated
from connectors.defects.inspect.inspector import EdgeInspector, Inspector
from models.defect_net import DefectNet, DefectNetShape
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.detector import Detector
from tasks.defects.detect.fit import fit
from tasks.defects.edge.build import EdgeConfig, build_edge
from tasks.defects.judgement import Judgement, Thresholds
from tasks.defects.samples import Pixels, Sample, parts_of
from tasks.defects.textures.line import LineConfig, make_line
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table, threads
from tests.benchmarks.defects_anomaly import read_tiles

MISS_COST = 5.0
SHARE = 0.12
"""Of the calibration images that lie in the band; less than .15, for test images vary."""
SMALL = {"steps": 0, "memory": 32, "projected": 8, "folds": 2}
TEXTURES = ("cast", "brushed", "weave", "perlin", "stripes")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Good and defective parts of each purpose."""

    fit: tuple[int, int] = (30, 8)
    calibrate: tuple[int, int] = (80, 20)
    judge: tuple[int, int] = (160, 40)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one seed gave; counts of images."""

    sent: int
    missed_edge: int
    missed_cascade: int
    rejected_edge: int
    rejected_cascade: int
    ng: int
    ok: int


class Asked:
    """A fitted detector as an inspector; its own thresholds are not used here."""

    thresholds = Thresholds(0.0, 0.0)

    def __init__(self, detector: Detector, name: str) -> None:
        self._detector, self.digest = detector, name

    def judge(self, pixels: Pixels) -> Judgement:
        """Judge one image."""
        return self._detector.judge([pixels])[0]


def scores_of(inspector: Inspector, samples: Sequence[Sample]) -> Floats:
    """Return the score of each image."""
    return np.array([inspector.judge(sample.pixels).score for sample in samples])


def cheapest(scores: Floats, bad: NDArray[np.bool_]) -> float:
    """Return the threshold, between two scores, at which errors cost least."""
    low, _ = cheapest_band(scores, bad, 0)
    return low


def cheapest_band(scores: Floats, bad: NDArray[np.bool_], inside: int) -> tuple[float, float]:
    """Return the ends of the stretch of ``inside`` images outside of which errors cost least."""
    order = np.argsort(scores, kind="stable")
    ranked, defective = scores[order], bad[order]
    missed = np.concatenate([[0], np.cumsum(defective)])  # below each place
    rejected = np.concatenate([np.cumsum(~defective[::-1])[::-1], [0]])  # from each place on
    starts = np.arange(len(scores) - inside + 1)
    cost = MISS_COST * missed[starts] + rejected[starts + inside]
    best = starts[cost == cost.min()]
    start = int(best[len(best) // 2])  # the middle one: as far from errors as can be

    def between(place: int) -> float:
        if place == 0:
            return float(ranked[0]) - 1e-6
        if place == len(ranked):
            return float(ranked[-1]) + 1e-6
        return float(ranked[place - 1] + ranked[place]) / 2

    return between(start), between(start + inside)


def split(samples: Sequence[Sample], sizes: Sizes, seed: int) -> list[list[Sample]]:
    """Return images to fit on, to calibrate by and to judge; no part is in two of them."""
    rng = np.random.default_rng(seed)
    groups: dict[str, list[Sample]] = {}
    for part, sample in zip(parts_of(samples), samples, strict=True):
        groups.setdefault(part, []).append(sample)
    found: list[list[Sample]] = [[], [], []]
    for bad in (False, True):
        parts = [g for g in groups.values() if (g[0].label == "ng") == bad]
        # One image of each part: exposures of one tile would count as several.
        chosen = [parts[i][int(rng.integers(len(parts[i])))] for i in rng.permutation(len(parts))]
        wanted = [size[bad] for size in (sizes.fit, sizes.calibrate, sizes.judge)]
        scale = min(1.0, len(chosen) / sum(wanted))
        at = 0
        for place, want in enumerate(wanted):
            count = max(2, int(want * scale))
            found[place] += chosen[at : at + count]
            at += count
    return found


def one_seed(samples: Sequence[Sample], sizes: Sizes, seed: int, args: Any) -> Outcome:
    """Fit, calibrate and judge once."""
    to_fit, to_calibrate, to_judge = split(samples, sizes, seed)
    small = fit(to_fit, DetectConfig(seed=seed, **SMALL), args.net)
    edge = Asked(small, "edge") if args.smoke else edge_of(small, to_fit, int8=args.int8)
    central = central_of(to_fit, seed, args)
    bad = np.array([sample.label == "ng" for sample in to_calibrate])
    scores = scores_of(edge, to_calibrate)
    alone = cheapest(scores, bad)
    low, high = cheapest_band(scores, bad, int(SHARE * len(scores)))
    beyond = cheapest(scores_of(central, to_calibrate), bad)
    # From here on nothing is chosen any more.
    bad = np.array([sample.label == "ng" for sample in to_judge])
    scores = scores_of(edge, to_judge)
    doubtful = (scores >= low) & (scores < high)
    final = scores >= high
    for place in np.flatnonzero(doubtful):
        final[place] = central.judge(to_judge[place].pixels).score >= beyond
    by_edge = scores >= alone
    return Outcome(
        sent=int(doubtful.sum()),
        missed_edge=int((bad & ~by_edge).sum()),
        missed_cascade=int((bad & ~final).sum()),
        rejected_edge=int((~bad & by_edge).sum()),
        rejected_cascade=int((~bad & final).sum()),
        ng=int(bad.sum()),
        ok=int((~bad).sum()),
    )


def edge_of(detector: Detector, to_fit: Sequence[Sample], *, int8: bool) -> EdgeInspector:
    """Return the detector as its edge file, which ONNX Runtime runs."""
    pixels = [sample.pixels for sample in to_fit]
    made = build_edge(detector.scorer, Thresholds(0.0, 0.0), pixels, config=EdgeConfig(int8=int8))
    return EdgeInspector(made.model, threads=1)


def central_of(to_fit: Sequence[Sample], seed: int, args: Any) -> EnsembleInspector:
    """Return fine-tuned models with deeper memories, in all positions."""
    good = [sample.pixels for sample in to_fit if sample.label == "ok"]
    members: list[Member] = []
    for number in range(args.members):
        config = DetectConfig(seed=seed + 1_000 * (number + 1), **args.central)
        fitted = fit(to_fit, config, args.net)
        members.append(calibrated(Asked(fitted, f"central {number}"), good))
    return EnsembleInspector(members, Thresholds(0.0, 0.0), positions=args.positions)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the middle 95 % of bootstrap means."""
    rng = np.random.default_rng(1)
    drawn = rng.choice(np.asarray(values), (2_000, len(values)))
    low, high = np.quantile(drawn.mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def ratio_interval(found: Sequence[Outcome]) -> tuple[float, float]:
    """Return the middle 95 % of bootstrap ratios of misses, seeds drawn with repetition."""
    rng = np.random.default_rng(2)
    missed = np.array([[one.missed_cascade, one.missed_edge] for one in found])
    drawn = missed[rng.integers(0, len(found), (2_000, len(found)))].sum(axis=1)
    ratios = drawn[:, 0] / np.maximum(drawn[:, 1], 1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def generated(sizes: Sizes, seed: int, side: int) -> list[Sample]:
    """Return a generated line; its texture goes by the seed."""
    ok, ng = (sum(size[k] for size in (sizes.fit, sizes.calibrate, sizes.judge)) for k in (0, 1))
    kinds = ("scratch", "pit", "stain")
    counts = {kind: -(-ng // len(kinds)) for kind in kinds}
    return make_line(
        LineConfig(
            texture=TEXTURES[seed % len(TEXTURES)],
            shape=(side, side),
            ok=ok,
            ng=counts,
            strength=(1.0, 3.0),
            seed=seed,
        )
    )


def summed(found: Sequence[Outcome]) -> dict[str, Any]:
    """Return the keys of the benchmark."""
    ng, ok = sum(one.ng for one in found), sum(one.ok for one in found)
    missed = sum(one.missed_edge for one in found)
    sent = [one.sent / (one.ng + one.ok) for one in found]
    edge = [one.missed_edge / one.ng for one in found]
    cascade = [one.missed_cascade / one.ng for one in found]
    return {
        "sent_share": float(np.mean(sent)),
        "sent_share_interval": interval(sent),
        "miss_edge": float(np.mean(edge)),
        "miss_edge_interval": interval(edge),
        "miss_cascade": float(np.mean(cascade)),
        "miss_cascade_interval": interval(cascade),
        "miss_ratio": sum(one.missed_cascade for one in found) / missed if missed else None,
        "miss_ratio_interval": ratio_interval(found) if missed else None,
        "reject_edge": sum(one.rejected_edge for one in found) / ok,
        "reject_cascade": sum(one.rejected_cascade for one in found) / ok,
        "images": ng + ok,
        "seeds": len(found),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = parser("defects-cascade", "An edge model with a central one behind it, and alone.")
    options.add_argument("--data", type=Path, help="folder of magnetic tiles with tile_groups.csv")
    options.add_argument("--draws", type=int, default=10, help="seeds (default 10)")
    options.add_argument("--steps", type=int, default=200, help="training steps of central models")
    options.add_argument("--members", type=int, default=2, help="central models")
    options.add_argument(
        "--positions", type=int, default=8, help="positions each image is judged in"
    )
    options.add_argument("--side", type=int, default=128, help="pixels of generated images")
    options.add_argument("--int8", action="store_true", help="quantise the edge model")
    args = options.parse_args(argv)
    sizes = Sizes()
    args.central, args.net = {"steps": args.steps, "memory": 1_024}, None
    if args.smoke:
        sizes = Sizes((6, 3), (10, 5), (10, 5))
        args.draws, args.members, args.positions, args.side = 1, 1, 2, 64
        args.central = {**SMALL, "piece": 32}
        torch.manual_seed(args.seed)
        args.net = DefectNet(DefectNetShape(4, (4, 6, 8), (1, 1, 1), 8)).eval()
    found: list[Outcome] = []
    with threads(1), stopwatch() as timing:
        tiles = None if args.data is None else read_tiles(args.data)
        for draw in range(args.draws):
            seed = args.seed + draw
            found.append(one_seed(tiles or generated(sizes, seed, args.side), sizes, seed, args))
    result = summed(found) | {"seconds": timing.wall}
    table(
        "misses of defective images",
        ("seed", "sent", "edge", "cascade", "of", "rejects edge", "cascade", "of"),
        [
            (
                args.seed + draw,
                one.sent,
                one.missed_edge,
                one.missed_cascade,
                one.ng,
                one.rejected_edge,
                one.rejected_cascade,
                one.ok,
            )
            for draw, one in enumerate(found)
        ],
    )
    emit(result, args)
    return 0


if __name__ == "__main__":
    run_program("defects-cascade", main)
