"""Defects-active: labels that ranked images need to get as far as 100 drawn at random.

Test images are never asked for, and nothing of them is used before. Every way of choosing sees the
same draws, features and classifier; a draw's ranked images start with no label at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.defects.active.rank import RankConfig
from tests.benchmarks._active_arms import (
    BATCH,
    COUNTS,
    MOST,
    START,
    Choose,
    at_random,
    by_rank,
    curve,
    drawn,
    in_balance,
    made_up,
    ratio,
    read_images,
)
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table

CHOSEN = "ranked"
ARMS: dict[str, Choose] = {
    "random": at_random,
    "random, types in balance": in_balance,
    CHOSEN: by_rank(RankConfig()),
    "typical only": by_rank(RankConfig(start=MOST)),
    "most uncertain only": by_rank(RankConfig(candidates=1)),
}
"""Nobody can draw types in balance without knowing them; it shows what is owed to balance alone."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("defects-active", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of neu_det and magnetic_tile")
    made.add_argument("--set", choices=("neu", "tile"), default="neu", help="which images")
    made.add_argument("--draws", type=int, default=10)
    args = made.parse_args(argv)
    args.draws = 2 if args.smoke else args.draws
    images = None if args.smoke else read_images(args.data, args.set)
    if images is None and not args.smoke:
        print("no images: name their folder by --data FOLDER or PENSTOCK_DATA; made-up ones follow")
    result: dict[str, Any] = {"made_up": images is None, "draws": args.draws}
    images = images or made_up(args.seed, 30 if args.smoke else 200)
    result |= {"images": len(images.types), "types": len(images.names)}
    names = ("random", CHOSEN) if args.smoke else tuple(ARMS)
    with stopwatch() as took:
        curves = {
            name: [curve(drawn(images, (args.seed, k)), ARMS[name]) for k in range(args.draws)]
            for name in names
        }
    rows = []
    half = int(np.flatnonzero(COUNTS == MOST // 2)[0])
    for name, each in curves.items():
        accuracy = np.array([one.inductive for one in each])
        rng = np.random.default_rng(args.seed)
        random = np.array([one.inductive for one in curves["random"]])
        got = ratio(accuracy, random, rng)
        key = name.replace(",", "").replace(" ", "_")
        for at, count in ((half, MOST // 2), (-1, MOST)):
            values = accuracy[:, at]
            result[f"{key}_{count}_acc"] = values.mean()
            result[f"{key}_{count}_acc_sd"] = values.std(ddof=1)
            result[f"{key}_{count}_acc_worst"] = values.min()
            for what in ("balanced", "transductive"):
                result[f"{key}_{count}_{what}"] = np.mean([getattr(o, what)[at] for o in each])
        if name != "random":
            result |= {f"{key}_{k}": v for k, v in got.items()}
        if name == CHOSEN:
            result |= got
            even = [np.array([one.balanced for one in curves[n]]) for n in (name, "random")]
            result["balanced_labels_ratio"] = ratio(*even, rng)["labels_ratio"]
        rows.append(
            (name, accuracy[:, half].mean(), accuracy[:, half].std(ddof=1),
             accuracy[:, -1].mean(), accuracy[:, -1].std(ddof=1), got["labels_ratio"])
        )  # fmt: skip
    result["seconds"] = took.wall
    result["curves"] = {
        name: np.mean([one.inductive for one in each], axis=0) for name, each in curves.items()
    }
    columns = ("choice", "acc at 50", "sd", "acc at 100", "sd", "labels / 100 random")
    note = f"{args.draws} draws, first {START} labels, then {BATCH} at a time"
    table("defects-active", columns, rows, note=note)
    emit(result, args)


if __name__ == "__main__":
    run_program("defects-active", main)
