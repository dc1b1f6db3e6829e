"""Defects-classify: types of defects from a few labels per type, beside plain texture.

Near-duplicates are taken out first: images whose pixels, or whose detail, correlate with an earlier
one in any of the eight positions of the square. Each draw labels some images, and the others are
named: *inductive* by labels alone, *transductive* with the others as unlabelled images. With
``--uneven`` the others' types are thinned out, most of all the last, to see that self-training then
does no harm. Unknown types are measured by leaving each type out of the labels in turn.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.images.likeness import positions, twins
from tasks.defects.classify.descriptors import Cache, describe
from tasks.defects.classify.discriminant import fit_discriminant
from tasks.defects.classify.fit import TypesConfig, fit_types
from tasks.defects.classify.prepare import digest_of
from tasks.defects.judgement import UNKNOWN
from tasks.defects.samples import Sample
from tests.benchmarks._harness import emit, parser, peak_gib, run_program, stopwatch, table
from tests.benchmarks._texture_floor import floor_features

DRAWS = Path(__file__).parent / "draws" / "neu_50.csv"
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"}
ALIKE = 0.97
SHARES = (1.0, 0.5, 0.25, 0.12, 0.06, 0.03)
"""Shares of the unlabelled images that are left of each type with ``--uneven``."""
Places = NDArray[np.int64]


def read_folder(folder: Path | None) -> list[Sample] | None:
    """Read class folders, or NEU-DET (type in the file's name); None without data."""
    if folder is None and "PENSTOCK_DATA" in os.environ:
        folder = Path(os.environ["PENSTOCK_DATA"]) / "defects"
    if folder is None:
        return None
    from PIL import Image

    for inner in ("neu_det/images", "images"):
        folder = folder / inner if (folder / inner).is_dir() else folder
    flat = not any(path.is_dir() for path in folder.iterdir())
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        kind = path.stem.rsplit("_", 1)[0] if flat else path.relative_to(folder).parts[0]
        with Image.open(path) as image:
            mode = "L" if image.mode == "L" else "RGB"
            pixels = np.asarray(image.convert(mode))
        if pixels.ndim == 3 and (pixels == pixels[:, :, :1]).all():
            pixels = pixels[:, :, 0]
        name = path.relative_to(folder).as_posix()
        found.append(Sample(name, np.ascontiguousarray(pixels), "ng", kind))
    return found


def made_up(seed: int, number: int) -> list[Sample]:
    """Make up a line with three types of defects."""
    from tasks.defects.textures.line import LineConfig, make_line

    ng = dict.fromkeys(("scratch", "pit", "stain"), number)
    return make_line(LineConfig(shape=(64, 64), ok=0, ng=ng, strength=(5, 9), seed=seed))


def without_copies(samples: Sequence[Sample]) -> list[Sample]:
    """Keep the first image of each group of near-duplicates."""
    from PIL import Image

    gray = [Image.fromarray(s.pixels).convert("L") for s in samples]
    small = np.stack([np.asarray(g.resize((64, 64), Image.Resampling.BOX)) for g in gray])
    digests = [hashlib.sha256(digest_of(s.pixels).encode()).hexdigest() for s in samples]
    group = np.arange(len(samples))
    links = [(twin.of, place) for place, twin in twins(digests, small).items()]
    unit = small.reshape(len(small), -1).astype(np.float32)
    unit -= unit.mean(axis=1, keepdims=True)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-6)
    for turned in positions(unit.reshape(small.shape)):
        i, j = np.nonzero(np.triu(unit @ turned.reshape(len(small), -1).T, 1) > ALIKE)
        links += zip(i.tolist(), j.tolist(), strict=True)
    for i, j in links:
        group[group == group[j]] = group[i]
    _, first = np.unique(group, return_index=True)
    return [samples[i] for i in sorted(first)]


def drawn(kinds: NDArray[np.str_], labels: int, more: int, seed: tuple[int, int]) -> Places:
    """Draw ``labels`` images of each type and ``more`` of all others."""
    rng = np.random.default_rng(seed)
    picked = [rng.permutation(np.flatnonzero(kinds == kind))[:labels] for kind in np.unique(kinds)]
    rest = np.setdiff1d(np.arange(len(kinds)), np.concatenate(picked))
    return np.concatenate([*picked, rng.permutation(rest)[:more]])


def all_draws(samples: Sequence[Sample], args: Any) -> list[Places]:
    """Return the committed draws where they fit the data and options, else new ones."""
    at = {sample.name: place for place, sample in enumerate(samples)}
    with DRAWS.open(encoding="utf-8", newline="") as file:
        rows = [(int(row["draw"]), row["name"]) for row in csv.DictReader(file)]
    asked = (args.labels, args.more, args.seed) == (8, 2, 7)
    if asked and args.draws <= len({draw for draw, _ in rows}) and all(n in at for _, n in rows):
        return [
            np.array([at[name] for draw, name in rows if draw == wanted])
            for wanted in range(args.draws)
        ]
    kinds = np.array([sample.kind for sample in samples])
    return [drawn(kinds, args.labels, args.more, (args.seed, k)) for k in range(args.draws)]


def thinned(kinds: NDArray[np.str_], places: Places, seed: int) -> Places:
    """Leave fewer and fewer images of each type, in an order drawn anew for each seed."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.unique(kinds)).tolist()
    share = np.array([SHARES[min(order.index(kind), len(SHARES) - 1)] for kind in kinds[places]])
    return places[rng.random(len(places)) < share]


def named(
    samples: Sequence[Sample], labels: Places, places: Places, cache: Cache, *, unlabelled: bool
) -> tuple[NDArray[np.str_], NDArray[np.str_], bool]:
    """Return likeliest known types, judgements, and whether self-training was used."""
    known = [samples[i] for i in labels]
    images = [samples[i].pixels for i in places]
    fitted = fit_types(known, TypesConfig(), images if unlabelled else (), cache)
    judged = fitted.judge(images, cache)
    likeliest = [max(fitted.kinds, key=lambda k: j.probabilities[k]) for j in judged]
    return np.array(likeliest), np.array([j.kind for j in judged]), fitted.self_trained


def floor_named(
    features: NDArray[np.float32], kinds: NDArray[np.str_], labels: Places, places: Places
) -> NDArray[np.str_]:
    """Return each image's type by plain texture."""
    known, targets = np.unique(kinds[labels], return_inverse=True)
    fitted = fit_discriminant(features[labels], targets, len(known), np.ones(len(labels)))
    return np.asarray(known[fitted.distances(features[places]).argmin(axis=1)])


def strangers(
    samples: Sequence[Sample], kinds: NDArray[np.str_], labels: Places, places: Places, cache: Cache
) -> list[tuple[float, float]]:
    """Leave each type out of the labels; return shares called unknown of it and of the others."""
    found = []
    for kind in np.unique(kinds):
        _, judged, _ = named(samples, labels[kinds[labels] != kind], places, cache,
                             unlabelled=False)  # fmt: skip
        new = kinds[places] == kind
        found.append(((judged[new] == UNKNOWN).mean(), (judged[~new] == UNKNOWN).mean()))
    return found


def measured(samples: list[Sample], draws: list[Places], cache: Cache, args: Any) -> dict[str, Any]:
    """Return the figures of all draws."""
    kinds = np.array([sample.kind for sample in samples])
    images = [sample.pixels for sample in samples]
    features = floor_features(images, describe(images, cache))
    each: dict[str, list[float]] = {}
    pairs: list[tuple[float, float]] = []
    for number, labels in enumerate(draws):
        places = np.setdiff1d(np.arange(len(samples)), labels)
        if args.uneven:
            places = thinned(kinds, places, number)
        true = kinds[places]
        with stopwatch() as took:
            alone, judged, _ = named(samples, labels, places, cache, unlabelled=False)
            together, _, used = named(samples, labels, places, cache, unlabelled=True)
        row = {
            "acc": (alone == true).mean(),
            "balanced_acc": np.mean([(alone[true == k] == k).mean() for k in np.unique(true)]),
            "false_unknown": (judged == UNKNOWN).mean(),
            "transductive_acc": (together == true).mean(),
            "self_trained": float(used),
            "floor_acc": (floor_named(features, kinds, labels, places) == true).mean(),
            "draw_seconds": took.wall,
        }
        for key, value in row.items():
            each.setdefault(key, []).append(float(value))
        pairs += strangers(samples, kinds, labels, places, cache)
    result: dict[str, Any] = {key: float(np.mean(values)) for key, values in each.items()}
    for key in ("acc", "transductive_acc", "floor_acc"):
        result[f"{key}_sd"] = float(np.std(each[key], ddof=1)) if len(draws) > 1 else None
        result[f"{key}_worst"] = min(each[key])
    result["draws"] = each["acc"]
    result["unknown_found"], result["unknown_false"] = np.mean(pairs, axis=0).tolist()
    names = ("acc", "transductive_acc", "floor_acc", "balanced_acc", "draw_seconds")
    rows = [(k, *(each[n][k] for n in names)) for k in range(len(draws))]
    table("defects-classify", ("draw", *names), rows)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("defects-classify", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="class folders, or the folder of neu_det")
    made.add_argument("--labels", type=int, default=8, help="labels per type (default 8)")
    made.add_argument("--more", type=int, default=2, help="labels of any type (default 2)")
    made.add_argument("--draws", type=int, default=10, help="draws of labels (default 10)")
    made.add_argument("--uneven", action="store_true", help="thin out types that are not labelled")
    args = made.parse_args(argv)
    if args.smoke:
        args.labels, args.draws, args.more = 4, 2, 0
    samples = None if args.smoke else read_folder(args.data)
    real = samples is not None
    samples = without_copies(samples if samples is not None else made_up(args.seed, 12))
    cache: Cache = {}
    with stopwatch() as describing:
        describe([sample.pixels for sample in samples], cache)
    with stopwatch() as took:
        result = measured(samples, all_draws(samples, args), cache, args)
    result |= {
        "labels": args.labels * len({s.kind for s in samples}) + args.more,
        "images": len(samples),
        "made_up": not real,
        "describe_seconds": describing.wall,
        "seconds": describing.wall + took.wall,
        "peak_gib": peak_gib(),
    }
    emit(result, args)


if __name__ == "__main__":
    run_program("defects-classify", main)
