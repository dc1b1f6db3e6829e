"""Defects-promise: how often thresholds of n calibration parts keep their promise, over redraws.

Calibration parts are drawn, with all their images, from a pool that stands for the line: scores of
magnetic tiles (a tile is a part, exposures are its images) or made-up ones. The true rate is that
of the whole pool. Beside it what must fail: one rank more, images counted as parts, scores of parts
that the model was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.defects.promise.bounds import average_needed, needed
from tasks.defects.promise.parts import Per, Scored, Side, part_scores
from tasks.defects.promise.rates import rate
from tasks.defects.promise.thresholds import (
    Promise,
    TooFewPartsError,
    promised_thresholds,
)
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table
from tests.benchmarks._part_scores import made_up, tiles

Floats = NDArray[np.float64]
ALPHAS = (0.05, 0.1, 0.2)
CONFIDENCE = 0.95
FEATURES = 20


class Pool:
    """Images of many parts, all defective or all good: draws of parts, true rates."""

    def __init__(self, images: Scored, side: Side) -> None:
        places, self.parts = images.places()
        order = np.argsort(places, kind="stable")
        self.side, self.sign = side, 1.0 if side == "escape" else -1.0
        self.scores = images.scores[order]
        self.starts = np.searchsorted(places[order], np.arange(self.parts + 1))
        sizes = np.diff(self.starts)
        self.worst = {
            per: np.sort(self.sign * part_scores(images, side, per))
            for per in ("every image", "part")
        }
        by_image = np.argsort(self.sign * self.scores)
        self.images = (self.sign * self.scores)[by_image]
        weights = np.repeat(1.0 / sizes, sizes)[by_image] / self.parts
        self.weights = np.concatenate([[0.0], np.cumsum(weights)])

    def draw(self, rng: np.random.Generator, n: int) -> Scored:
        """Return n parts with all their images; a part drawn twice is two parts."""
        chosen = rng.integers(0, self.parts, n)
        spans = [np.arange(self.starts[i], self.starts[i + 1]) for i in chosen]
        names = np.repeat(np.arange(n), [len(span) for span in spans]).astype(str)
        return Scored(self.scores[np.concatenate(spans)], names.tolist())

    def wrong(self, threshold: float, per: Per) -> float:
        """Return the true share of parts judged wrongly at a threshold."""
        # Strictly below passes; from it on is rejected.
        edge = "left" if self.side == "escape" else "right"
        if per == "one image":
            place = np.searchsorted(self.images, self.sign * threshold, edge)
            return float(self.weights[place])
        return float(np.searchsorted(self.worst[per], self.sign * threshold, edge) / self.parts)


def held(
    pool: Pool, alpha: float, n: int, per: Per, args: Any, *, average: bool = False, off: int = 0
) -> list[float]:
    """Return the true rates at thresholds of redraws, or at so many ranks more."""
    escape = pool.side == "escape"
    promise = Promise(
        max_escape=alpha if escape else None,
        max_false_reject=None if escape else alpha,
        confidence=CONFIDENCE,
        per=per,
        average=average,
    )
    rates = []
    for draw in range(args.redraws):
        images = pool.draw(np.random.default_rng((args.seed, n, draw)), n)
        sides = {"ng": images} if escape else {"ok": images}
        one = promised_thresholds(promise, **sides, seed=draw).kept[0]
        at = one.threshold
        if off:
            scores = np.sort(pool.sign * part_scores(images, pool.side, per, draw))
            at = pool.sign * scores[one.rank - 1 + off]
            at = at if escape else math.nextafter(at, math.inf)
        rates.append(pool.wrong(at, per))
    return rates


def by_image(pool: Pool, alpha: float, n: int, args: Any) -> list[float]:
    """Return the true rates where n images, whatever part they show, are counted as n parts."""
    promise, rates = Promise(max_escape=alpha, confidence=CONFIDENCE), []
    for draw in range(args.redraws):
        drawn = pool.draw(np.random.default_rng((args.seed, n, draw)), n)
        naive = Scored(drawn.scores[:n], [str(i) for i in range(n)])
        rates.append(
            pool.wrong(promised_thresholds(promise, naive).thresholds.ok_below, "one image")
        )
    return rates


def by_source(alpha: float, n: int, args: Any) -> dict[str, list[float]]:
    """Return the true rates where scores are held out, out of fold, or of the training itself.

    Features are normal, so the miss rate of a direction is known exactly. The model is a linear
    discriminant of few defects, as a detector's head is.
    """
    from scipy.special import ndtr

    promise = Promise(max_escape=alpha, confidence=CONFIDENCE)
    found: dict[str, list[float]] = {"held_out": [], "out_of_fold": [], "training": []}
    shift = np.full(FEATURES, 2.5 / math.sqrt(FEATURES))
    for draw in range(args.redraws // 2):
        rng = np.random.default_rng((args.seed, n, draw))
        good, bad, new = (rng.normal(size=(n, FEATURES)) for _ in range(3))
        bad, new = bad + shift, new + shift
        whole = _direction(good, bad)
        folds = np.arange(n) % 5
        unseen = np.empty(n)
        for fold in range(5):
            own = _direction(good[folds != fold], bad[folds != fold])
            unseen[folds == fold] = bad[folds == fold] @ own
        scores = {"held_out": new @ whole, "out_of_fold": unseen, "training": bad @ whole}
        for name, each in scores.items():
            images = Scored(each, [str(i) for i in range(n)])
            at = promised_thresholds(promise, images).thresholds.ok_below
            found[name].append(float(ndtr(at - shift @ whole)))
    return found


def _direction(good: Floats, bad: Floats) -> Floats:
    within = (np.cov(good.T) + np.cov(bad.T)) / 2 + 0.1 * np.eye(FEATURES)
    direction = np.linalg.solve(within, bad.mean(0) - good.mean(0))
    return np.asarray(direction / np.linalg.norm(direction))


def refused_when_small(pool: Pool, args: Any) -> bool:
    """Whether one part too few is always refused, however many images, and just enough never."""
    rng = np.random.default_rng(args.seed)
    for alpha in ALPHAS:
        for promise, least in (
            (Promise(max_escape=alpha), needed(alpha, CONFIDENCE)),
            (Promise(max_escape=alpha, average=True), average_needed(alpha)),
        ):
            promised_thresholds(promise, pool.draw(rng, least))
            few = pool.draw(rng, least - 1)
            many = Scored(np.tile(few.scores, 50), list(few.parts) * 50)
            for images in (few, many, None):
                try:
                    promised_thresholds(promise, images)
                except TooFewPartsError as error:
                    short = least if images is None else 1
                    if error.missing != {"defective parts": short}:
                        return False
                else:
                    return False
    return True


def share(rates: list[float], alpha: float) -> tuple[float, float]:
    """Return the share of redraws that keep the promise, and its upper limit."""
    kept = rate("", sum(one <= alpha for one in rates), len(rates))
    return kept.rate, kept.high


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("defects-promise", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of magnetic_tile")
    made.add_argument("--redraws", type=int, default=2_000)
    args = made.parse_args(argv)
    args.redraws = 150 if args.smoke else args.redraws
    real = None if args.smoke else tiles(args.data, args.seed)
    ng, ok = made_up(np.random.default_rng(args.seed), 400 if args.smoke else 20_000)
    pools = {"made up": Pool(ng, "escape")}
    good = {"made up": Pool(ok, "false reject")}
    if real is not None:
        pools = {"tiles": Pool(real[0], "escape")} | pools
        good = {"tiles": Pool(real[1], "false reject")} | good
    result: dict[str, Any] = {"redraws": args.redraws, "pools": list(pools)}
    rows: list[tuple[Any, ...]] = []
    uppers, others = [], []
    with stopwatch() as took:
        for alpha in ALPHAS:
            key, least = f"{alpha:g}"[1:].ljust(3, "0")[1:], needed(alpha, CONFIDENCE)
            for name, pool in pools.items():
                cases: list[tuple[Pool, int, Per]] = [
                    (pool, least, "every image"),
                    (pool, least, "one image"),
                    (pool, least, "part"),
                    (pool, 2 * least, "every image"),
                    (good[name], least, "every image"),
                ]
                for place, (drawn_from, n, per) in enumerate(cases):
                    kept, upper = share(held(drawn_from, alpha, n, per, args), alpha)
                    others.append(upper)
                    more = None
                    if place == 0:
                        more, _ = share(held(pool, alpha, n, per, args, off=1), alpha)
                        tag = key if name == next(iter(pools)) else f"{key}_made_up"
                        result[f"held_share_{tag}"], result[f"upper_{tag}"] = kept, upper
                        result[f"held_share_rank_off_{tag}"] = more
                        uppers.append(upper)
                    what = f"{name}: {drawn_from.side} <= {alpha:g}"
                    rows.append((what, n, per, kept, upper, more))
            first = pools[next(iter(pools))]
            naive, _ = share(by_image(first, alpha, least, args), alpha)
            result[f"held_share_images_{key}"] = naive
            mean = held(first, alpha, average_needed(alpha), "every image", args, average=True)
            result[f"average_rate_{key}"] = float(np.mean(mean))
            result[f"average_rate_se_{key}"] = float(np.std(mean) / math.sqrt(len(mean)))
        for name, rates in by_source(0.1, needed(0.1, CONFIDENCE), args).items():
            result[f"held_share_{name}"] = share(rates, 0.1)[0]
    result |= {
        "upper_min": min(uppers),
        "upper_min_all": min(others),
        "cases": len(others),
        "refused_when_small": refused_when_small(first, args),
        "seconds": took.wall,
    }
    columns = ("promise", "parts", "counts", "held", "upper", "held, one rank more")
    table(f"defects-promise: {CONFIDENCE:g} promised, {args.redraws} redraws", columns, rows)
    emit(result, args)


if __name__ == "__main__":
    run_program("defects-promise", main)
