"""Clean-images: bad images of a line found by a reference of good ones, copies, hostile files.

Some images are taken out for faults, the others drawn for reference and held-out good ones anew for
every seed. Spoilt images are stored with the tables of the original, so that the file itself tells
nothing. cleanvision's figures (0.3.7, its default thresholds) are of an earlier run of ours over
300 images of circuit boards; they are another data set, and quoted, not compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.cleaning.images.decode import ImageRefusedError
from tasks.cleaning.images.likeness import twins
from tasks.cleaning.images.reference import SPOILT_IMAGES, learn_reference
from tasks.cleaning.images.sandbox import MeasuredImage, Sandbox
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table
from tests.benchmarks._hostile_images import EITHER, by_hand, stored, turned_over
from tests.benchmarks._spoilt_images import (
    COPIES,
    QUALITY,
    Gray,
    Line,
    like,
    made_up_line,
    pixels_of,
    read_line,
)

CLEANVISION = {
    "cleanvision_blurred_found": "0/30",
    "cleanvision_dark_found": "30/30",
    "cleanvision_near_duplicates_found": "10/30",
    "cleanvision_good_flagged": "180/180",
    "cleanvision_truncated": "crash",
    "cleanvision_images_per_second": 12.6,
}
ALPHA = 0.01
LIKE = 0.97


def measured(sandbox: Sandbox, files: Sequence[bytes], *, every: int = 0) -> list[MeasuredImage]:
    """Measure files that all decode; every so manieth also spoilt, to learn names from."""
    places = range(len(files))
    made = sandbox.measure_all(
        places, lambda i: files[i], faults=lambda i: bool(every) and i % every == 0
    )
    found = [one for _, one in made]
    assert all(isinstance(one, MeasuredImage) for one in found)
    return [one for one in found if isinstance(one, MeasuredImage)]


def squared(gray: Gray, side: int = 200) -> Gray:
    """Cut the middle out, enlarged where it is too small."""
    if min(gray.shape) < side:
        height, width = (max(side, length) for length in gray.shape)
        gray = np.asarray(Image.fromarray(gray).resize((width, height)))
    top, left = ((length - side) // 2 for length in gray.shape)
    return gray[top : top + side, left : left + side]


def flagged(
    sandbox: Sandbox, line: Line, images: list[MeasuredImage], args: Any, sizes: tuple[int, ...]
) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Return shares flagged and rightly named over the seeds, per fault and reference size."""
    rng = np.random.default_rng(args.seed)
    order = rng.permutation(len(line.good))
    picked, rest = order[: args.spoilt], order[args.spoilt :]
    gray = [pixels_of(line.good[i]) for i in picked]
    bad: dict[str, tuple[str, list[MeasuredImage]]] = {}
    for name, (right, fault) in QUALITY.items():
        files = [like(line.good[i], fault(g)) for i, g in zip(picked, gray, strict=True)]
        bad[name] = right, measured(sandbox, files)
    resized = [np.asarray(Image.fromarray(g).resize((210, 200))) for g in gray]
    files = [like(line.good[i], g) for i, g in zip(picked, resized, strict=True)]
    bad["wrong_size"] = "wrong-size", measured(sandbox, files)
    other = [line.other[i] for i in rng.permutation(len(line.other))[: args.spoilt]]
    cut = [squared(pixels_of(data)) for data in other]
    own = [stored(g, "JPEG", quality=75) for g in cut]
    bad["camera_own_files"] = "wrong-camera", measured(sandbox, own)
    same = [like(line.good[0], g) for g in cut]
    bad["camera_pixels_only"] = "unlike-reference", measured(sandbox, same)
    result: dict[str, Any] = {}
    rows = []
    for size in sizes:
        shares: dict[str, list[float]] = {}
        named: dict[str, Counter[str]] = {}
        for seed in range(args.seeds):
            drawn = np.random.default_rng((args.seed, seed)).permutation(rest)
            reference = learn_reference([images[i] for i in drawn[:size]])
            alpha = reference.promised(ALPHA)
            held_out = "", [images[i] for i in drawn[size:]]
            for name, (_, cases) in {"good": held_out, **bad}.items():
                rules = [v.rule for v in reference.judge(cases) if v.p <= alpha]
                shares.setdefault(name, []).append(len(rules) / len(cases))
                named.setdefault(name, Counter()).update(rules)
        for name, each in shares.items():
            key = f"{name}_flagged_{size}"
            result[key] = float(np.mean(each))
            result[f"{key}_low"], result[f"{key}_high"] = min(each), max(each)
            right = bad[name][0] if name in bad else ""
            share = named[name][right] / max(named[name].total(), 1) if right else None
            if share is not None:
                result[f"{name}_named_{size}"] = share
            rows.append((f"{name}, {size} reference", np.mean(each), min(each), max(each), share))
    return result, rows


def copies(sandbox: Sandbox, line: Line, images: list[MeasuredImage], args: Any) -> dict[str, Any]:
    """Return the share of copies found with the right original, and pairs among the originals."""
    small = np.stack([one.small for one in images])
    digests = [one.facts["digest"] for one in images]
    whole = twins(digests, small)
    result: dict[str, Any] = {"near_among_originals": len(whole)}
    picked = np.random.default_rng(args.seed + 1).permutation(len(images))[: args.spoilt]
    picked = np.array([i for i in picked if i not in whole])
    for name, (quality, change) in COPIES.items():
        files = [stored(change(pixels_of(line.good[i])).copy(), "JPEG", quality=quality)
                 for i in picked]  # fmt: skip
        made = measured(sandbox, files)
        found = twins(
            digests + [one.facts["digest"] for one in made],
            np.concatenate([small, np.stack([one.small for one in made])]),
        )
        hits = [
            found[len(images) + k].of == i if len(images) + k in found else False
            for k, i in enumerate(picked)
        ]
        result[f"near_{name}_found"] = float(np.mean(hits))
    same = measured(sandbox, [stored(pixels_of(line.good[i]), "PNG") for i in picked])
    result["exact_found"] = float(
        np.mean([s.facts["digest"] == digests[i] for s, i in zip(same, picked, strict=True)])
    )
    if len({one.shape for one in map(pixels_of, line.good)}) == 1:
        pairs = correlated(line)
        result["whole_image_pairs"] = len(pairs)
        result["whole_image_share"] = len({i for pair in pairs for i in pair}) / len(images)
        result["whole_image_pairs_near"] = sum(j in whole and whole[j].of == i for i, j in pairs)
    return result


def correlated(line: Line) -> list[tuple[int, int]]:
    """Return pairs of images whose pixels correlate above .97 as they lie."""
    flat = np.stack([pixels_of(data).ravel() for data in line.good]).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    i, j = np.nonzero(np.triu(flat @ flat.T, 1) > LIKE)
    return list(zip(i.tolist(), j.tolist(), strict=True))


def hostile(sandbox: Sandbox, line: Line, args: Any) -> dict[str, Any]:
    """Return how hostile and truncated files ended."""
    rules: Counter[str] = Counter()
    wrong = 0
    files = [*(() if args.smoke else by_hand()), *turned_over(args.seed, args.turned_over)]
    for one in files:
        rule = refused(sandbox, one.content)
        rules[rule] += 1
        wrong += one.rule not in {EITHER, rule}
    cut = [refused(sandbox, data[: len(data) * 3 // 4]) for data in line.good[: args.spoilt]]
    return {
        "hostile_files": len(files),
        "hostile_wrong": wrong,
        "hostile_workers_lost": sum(rules[r] for r in ("crashed", "timeout", "out-of-memory")),
        "hostile_decoded": rules[""],
        "truncated_found": float(np.mean([rule != "" for rule in cut])),
    }


def refused(sandbox: Sandbox, data: bytes) -> str:
    """Return the rule that refuses a file, "" where it decodes."""
    try:
        sandbox.measure(data)
    except ImageRefusedError as error:
        return error.rule
    return ""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("clean-images", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of neu_det and magnetic_tile")
    made.add_argument("--seeds", type=int, default=10)
    args = made.parse_args(argv)
    line = None if args.smoke else read_line(args.data)
    if line is None and not args.smoke:
        print("no images: name their folder by --data FOLDER or PENSTOCK_DATA; made-up ones follow")
    made_up = line is None
    line = line or made_up_line(args.seed, 110 if args.smoke else 1_000)
    args.seeds = 2 if args.smoke else args.seeds
    args.spoilt = 6 if args.smoke else 200
    args.turned_over = 20 if args.smoke else 2_000
    every = 8 if args.smoke else -(-len(line.good) // SPOILT_IMAGES)
    sizes = (99,) if args.smoke else (150, len(line.good) // 2)
    with Sandbox() as sandbox:
        refused(sandbox, line.good[0])  # starts a worker
        with stopwatch() as took:
            measured(sandbox, line.good)
        images = measured(sandbox, line.good, every=every)
        result, rows = flagged(sandbox, line, images, args, sizes)
        result |= copies(sandbox, line, images, args)
        result |= hostile(sandbox, line, args)
        result |= {"workers": sandbox.workers, "images": len(line.good), "made_up": made_up}
    result |= {"images_per_second": len(line.good) / took.wall, **CLEANVISION}
    columns = ("fault", "flagged", "lowest", "highest", "named rightly")
    table(f"clean-images: alpha {ALPHA}, {args.seeds} seeds", columns, rows)
    emit(result, args)


if __name__ == "__main__":
    run_program("clean-images", main)
