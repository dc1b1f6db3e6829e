"""Defects-watch: false alarms of a line's watch, and how many parts a change needs to be told.

*Alone*: a watched number or rate that does not change, until it alarms, against the mean that is
stated; beside it the usual rule, three sigma of a window's mean. *Line*: generated parts with an
outline on a belt; after some parts without change the state goes through JSON, and one thing
changes at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.defects.watch.line import LineWatch, WatchConfig
from tasks.defects.watch.ranks import RankWatch
from tasks.defects.watch.rates import RateWatch
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table
from tests.benchmarks._watched_line import Look, rough_score, surfaces, taken

Floats = NDArray[np.float64]
ARL = 10_000.0
SHORT_ARL = 500.0
WINDOW = 20
LIMIT = 0.01
CHANGES: dict[str, tuple[str, Look, float]] = {
    "exposure_10": ("brightness", Look(gain=1.10), LIMIT),
    "exposure_30": ("brightness", Look(gain=1.30), LIMIT),
    "camera_right_2": ("camera", Look(right=2.5), LIMIT),
    "camera_right_5": ("camera", Look(right=6.0), LIMIT),
    "camera_turn_3": ("camera", Look(turn=3.0), LIMIT),
    "camera_zoom_8": ("camera", Look(zoom=1.08), LIMIT),
    "unknown_20": ("unknown", Look(), 0.20),
}
"""What alarms, how the camera sees the line, and the rate of unknown defects."""


def until_alarm(look: Callable[[float], Any], values: Floats) -> int:
    """Return how many values an alarm needs, one more than there are where there is none."""
    for place, value in enumerate(values.tolist(), start=1):
        if look(value):
            return place
    return len(values) + 1


def three_sigma(reference: Floats) -> Callable[[float], bool]:
    """Return the usual rule: the mean of a window leaves three of its sigmas."""
    middle, sigma = float(reference.mean()), float(reference.std(ddof=1)) / WINDOW**0.5
    window: list[float] = []

    def look(value: float) -> bool:
        window.append(value)
        del window[:-WINDOW]
        return len(window) == WINDOW and abs(sum(window) / WINDOW - middle) > 3 * sigma

    return look


def alone(args: Any) -> dict[str, Any]:
    """Return mean parts to a false alarm, cut off at six times what is stated."""
    most = int(6 * SHORT_ARL)
    runs: dict[str, list[int]] = {"ranks": [], "rates": [], "three_sigma": []}
    for run in range(args.runs):
        rng = np.random.default_rng((args.seed, run))
        reference, values = rng.gamma(2, size=100), rng.gamma(2, size=most)
        ranks = RankWatch.learn(reference.tolist(), SHORT_ARL, run)
        rates = RateWatch.start(LIMIT, SHORT_ARL)
        runs["ranks"].append(until_alarm(ranks.look, values))
        hits = (rng.random(most) < LIMIT).astype(float)
        runs["rates"].append(until_alarm(_hits(rates), hits))
        runs["three_sigma"].append(until_alarm(three_sigma(reference), values))
    result: dict[str, Any] = {"arl_stated": SHORT_ARL}
    for name, each in runs.items():
        result[f"arl_{name}"] = float(np.mean(each))
        result[f"arl_{name}_se"] = float(np.std(each) / len(each) ** 0.5)
        result[f"alarms_in_half_{name}"] = float(np.mean(np.array(each) <= SHORT_ARL / 2))
    return result


def shifts(args: Any) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Return how many numbers a shift of their mean, or of a rate, needs, and the table's rows.

    At the mean to a false alarm that each of a line's nine has.
    """
    most, result, rows = 1_000, {}, []
    for name, shift in (
        ("score", 0.5),
        ("score", 1.0),
        ("score", 2.0),
        ("rate", 3.0),
        ("rate", 5.0),
    ):
        delays = []
        for seed in range(args.seeds):
            rng = np.random.default_rng((args.seed, seed))
            if name == "score":
                ranks = RankWatch.learn(rng.normal(size=100).tolist(), 9 * ARL, seed)
                until_alarm(ranks.look, rng.normal(size=200))
                delays.append(until_alarm(ranks.look, rng.normal(shift, 1, most)))
            else:
                rates = RateWatch.start(LIMIT, 9 * ARL)
                hits = np.concatenate([rng.random(200) < LIMIT, rng.random(most) < shift * LIMIT])
                delays.append(until_alarm(_hits(rates), hits.astype(float)) - 200)
        key = f"{name}_shift_{shift:g}" if name == "score" else f"rate_times_{shift:g}"
        found = sum(delay <= most for delay in delays)
        result[f"{key}_found"] = found / len(delays)
        result[f"{key}_delay"], result[f"{key}_delay_max"] = float(np.median(delays)), max(delays)
        rows.append((key, len(delays), found, float(np.median(delays)), max(delays)))
    return result, rows


def _hits(rates: RateWatch) -> Callable[[float], bool]:
    return lambda value: rates.look(hit=bool(value))


def line(args: Any, seed: int) -> tuple[int, dict[str, int], int]:
    """Return false alarms without change, delays by change, and the state's size."""
    texture = ("cast", "brushed", "perlin")[seed % 3]
    rng = np.random.default_rng((args.seed, seed))
    made = surfaces(1_000 * args.seed + seed, args.reference + 2 * args.parts, texture)
    images = [taken(one, Look(), rng) for one in made[: args.reference + args.parts]]
    scores = [rough_score(one) for one in images]
    learnt = slice(args.reference)
    config = WatchConfig(arl=ARL, unknown_limit=LIMIT, seed=seed)
    watch = LineWatch.learn(images[learnt], scores[learnt], config)
    false = 0
    for image, score in zip(images[args.reference :], scores[args.reference :], strict=True):
        false += len(watch.look(image, score, unknown=bool(rng.random() < LIMIT)))
    state = watch.to_json()
    delays = {}
    for name, (about, look, rate) in CHANGES.items():
        if about == "camera" and watch.camera is None:
            continue
        watch = LineWatch.from_json(state)
        delays[name] = args.parts + 1
        for place, surface in enumerate(made[-args.parts :], start=1):
            image = taken(surface, look, rng)
            told = watch.look(image, rough_score(image), unknown=bool(rng.random() < rate))
            if about in {alarm.about for alarm in told}:
                delays[name] = place
                break
    return false, delays, len(state)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("defects-watch", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=10)
    args = made.parse_args(argv)
    args.runs = 4 if args.smoke else 100
    args.seeds = 1 if args.smoke else args.seeds
    args.reference, args.parts = (40, 10) if args.smoke else (100, 100)
    with stopwatch() as took:
        result = alone(args)
        told, rows = shifts(args)
        lines = [line(args, seed) for seed in range(args.seeds)]
    result |= told
    result["line_false_alarms"] = sum(false for false, *_ in lines)
    result["line_parts_without_change"] = args.parts * args.seeds
    result["state_bytes"] = max(size for *_, size in lines)
    for name in CHANGES:
        each = [delays[name] for _, delays, _ in lines if name in delays]
        found = sum(delay <= args.parts for delay in each)
        result[f"{name}_found"] = found / len(each) if each else None
        result[f"{name}_delay"] = float(np.median(each)) if each else None
        result[f"{name}_delay_max"] = max(each, default=None)
        rows.append((name, len(each), found, result[f"{name}_delay"], max(each, default=None)))
    result |= {"arl_line": ARL, "seeds": args.seeds, "seconds": took.wall}
    columns = ("change", "lines", "found", "median parts", "most")
    table(f"defects-watch: at most t / {ARL:,.0f} false alarms in t parts", columns, rows)
    emit(result, args)


if __name__ == "__main__":
    run_program("defects-watch", main)
