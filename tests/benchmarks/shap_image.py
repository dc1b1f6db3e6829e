"""Maps of image scores against drawn masks, beside Grad-CAM and occlusion by captum.

Classes: a small net is trained anew for every seed on two thirds of the NEU images with masks
(inclusion, patches, scratches; one mean and one spread each, 64 x 64 pixels); explained are images
of the other third that it classifies rightly. All maps are of the same net, image and class.
``iou``: overlap of the mask with as many pixels of the highest values. ``pointing``: whether the
highest value is on the mask (of equal ones, their share on it). ``deletion_auc`` (lower is better)
and ``insertion_auc``: mean probability of the class while pixels are taken away or put in, by the
blurred image and by the image's mean. ``occlusion_fine`` scores more images than ``players``.

Detector: fitted without training to 40 good and 5 defective magnetic tiles per draw; its exact map
and its own heat on images of other tiles. All times are CPU times.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pictures

from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.explain import explain_defects
from tasks.defects.detect.fit import fit
from tasks.defects.samples import Sample
from tasks.defects.textures.line import LineConfig, make_line
from tasks.explain.image.explainer import ImageExplainer, ImageOptions
from tasks.explain.scores import TorchScores
from tests.benchmarks._harness import emit, parser, peak_gib, run_program, stopwatch, table, threads
from tests.benchmarks._image_maps import (
    LogOdds,
    Map,
    Mask,
    Probability,
    figures_of,
    grad_cam,
    mask_iou,
    occlusion,
    pointing,
    small_net,
    train,
)
from tests.benchmarks.defects_anomaly import Draw, read_draws, read_tiles

SIDE, WINDOW = 64, 12
CLASSES = ("inclusion", "patches", "scratches")
MEASURES = ("iou", "pointing", "deletion_auc_blur", "deletion_auc_mean", "insertion_auc_blur",
            "insertion_auc_mean")  # fmt: skip
Found = dict[str, dict[str, float]]
"""By method and measure."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images of classes, with masks.

    Attributes:
        images: float32 ``[n, H, W]``, of mean 0 and spread 1 each.
        masks: bool ``[n, H, W]``.
        classes: ``[n]``.
    """

    images: NDArray[np.float32]
    masks: NDArray[np.bool_]
    classes: NDArray[np.int64]


def read_neu(folder: Path) -> Labelled:
    """Read the NEU images that have a mask, each once."""
    with (folder / "neu_masks" / "matches.csv").open(newline="", encoding="utf-8") as file:
        names = {row["neu_image"]: row["mask"] for row in csv.DictReader(file)}
    images = [_gray(folder / "neu_det" / "images" / name) for name in names]
    masks = [_gray(folder / "neu_masks" / name) > 127 for name in names.values()]
    return labelled(images, masks, [CLASSES.index(name.rsplit("_", 1)[0]) for name in names])


def labelled(
    images: Sequence[NDArray[Any]], masks: Sequence[Mask], classes: Sequence[int]
) -> Labelled:
    """Return images brought to one mean and spread each, with what is known of them."""
    levels = np.stack(images).astype(np.float32)
    levels -= levels.mean(axis=(1, 2), keepdims=True)
    levels /= levels.std(axis=(1, 2), keepdims=True)
    return Labelled(levels, np.stack(masks), np.array(classes))


def _gray(path: Path) -> NDArray[np.uint8]:
    whole = Pictures.open(path).convert("L")
    return np.asarray(whole.resize((SIDE, SIDE), Pictures.Resampling.BOX))


def generated(seed: int) -> tuple[Labelled, list[Sample], list[Draw]]:
    """Return a small generated line as classes, as samples, and one draw of it."""
    line = make_line(LineConfig(shape=(SIDE, SIDE), ok=8, ng={"pit": 12, "scratch": 12}, seed=seed))
    bad = [sample for sample in line if sample.mask is not None and sample.mask.any()]
    names = [sample.name for sample in line if sample.label == "ok"]
    data = labelled(
        [sample.pixels for sample in bad],
        [sample.mask for sample in bad if sample.mask is not None],
        [int(sample.kind == "scratch") for sample in bad],
    )
    return data, line, [(names, [sample.name for sample in bad[:3]])]


def explained(data: Labelled, seed: int, images: int, epochs: int) -> tuple[Found, float]:
    """Return the mean measures of each method for one net, and its accuracy."""
    order = np.random.default_rng(seed).permutation(len(data.images))
    seen, rest = np.split(order, [2 * len(order) // 3])
    torch.manual_seed(seed)
    net = small_net(int(data.classes.max()) + 1)
    tensors = torch.tensor(data.images)[:, None]
    train(net, tensors[seen], torch.tensor(data.classes[seen]), epochs)
    with torch.inference_mode():
        right = net(tensors[rest]).argmax(dim=1).numpy() == data.classes[rest]
    cases = [place for place in rest[right] if data.masks[place].any()][:images]
    each = [_one(net, data, place, seed) for place in cases]
    methods = each[0].keys()
    found = {
        method: {key: float(np.mean([one[method][key] for one in each])) for key in each[0][method]}
        for method in methods
    }
    return found, float(right.mean())


def _one(net: torch.nn.Sequential, data: Labelled, place: int, seed: int) -> Found:
    """Measure all maps of one image."""
    target, mask = int(data.classes[place]), data.masks[place]
    image = data.images[place][None]
    tensor = torch.tensor(image)
    explainer = ImageExplainer(
        TorchScores(LogOdds(net, target).eval()), ImageOptions(seed=seed), shape=image.shape
    )
    spent, gap = 0, 0.0

    def players() -> Map:
        nonlocal spent, gap
        made = explainer.explain(image)
        spent, gap = made.evaluations, abs(made.base + made.map.sum() - made.score)
        return made.map

    methods: dict[str, Callable[[], Map]] = {
        "players": players,
        "grad_cam": lambda: grad_cam(net, tensor, target),
        "occlusion": lambda: occlusion(net, tensor, target, WINDOW, 4),
        "occlusion_fine": lambda: occlusion(net, tensor, target, WINDOW, 1),
    }
    probability = TorchScores(Probability(net, target).eval())
    found: Found = {}
    for name, method in methods.items():
        with stopwatch() as took:
            made = method()
        found[name] = figures_of(probability, image, made, mask) | {"ms": 1e3 * took.cpu}
    found["players"] |= {"evaluations": float(spent), "gap": gap}
    return found


def detected(samples: Sequence[Sample], draw: Draw, seed: int, images: int) -> Found:
    """Return iou, pointing and time of a detector's exact map and of its heat, on other parts."""
    named = {sample.name: sample for sample in samples}
    chosen = [named[name] for name in (*draw[0], *draw[1][:5])]
    small = len(samples) < 100
    config = DetectConfig(steps=0, fold_steps=0, seed=seed, folds=2)
    detector = fit(chosen, DetectConfig(**_TINY) if small else config)
    parts = {sample.part for sample in chosen}
    others = [s for s in samples if s.part not in parts and s.mask is not None and s.mask.any()]
    order = np.random.default_rng(seed).permutation(len(others))[:images]
    figures: dict[str, list[dict[str, float]]] = {"exact_map": [], "heat": []}
    for place in order:
        sample = others[place]
        assert sample.mask is not None
        with stopwatch() as judging:
            heat = detector.judge([sample.pixels])[0].heat.astype(np.float64)
        with stopwatch() as took:
            found = explain_defects(detector, sample.pixels)
        for name, each, time in (("exact_map", found.map, took), ("heat", heat, judging)):
            told = {"iou": mask_iou(each, sample.mask), "pointing": pointing(each, sample.mask)}
            figures[name].append(told | {"ms": 1e3 * time.cpu})
        figures["exact_map"][-1]["gap"] = found.gap
    return {
        name: {key: float(np.mean([one[key] for one in all_of_them])) for key in all_of_them[0]}
        for name, all_of_them in figures.items()
    }


_TINY: dict[str, Any] = {"steps": 0, "piece": 32, "memory": 24, "projected": 8, "folds": 2}


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of paired differences and its 95 % interval by Student's t."""
    from scipy.stats import t

    mean, count = float(np.mean(differences)), len(differences)
    if count < 2:
        return mean, float("nan"), float("nan")
    half = float(t.ppf(0.975, count - 1) * np.std(differences, ddof=1) / np.sqrt(count))
    return mean, mean - half, mean + half


def summary(each: Sequence[Found], own: str, measures: Sequence[str]) -> dict[str, Any]:
    """Return means and standard deviations by method, and paired differences from the others."""
    methods = list(each[0])
    result: dict[str, Any] = {}
    for method in methods:
        values = {key: [one[method][key] for one in each] for key in each[0][method]}
        result[method] = {key: float(np.mean(value)) for key, value in values.items()}
        result[f"{method}_sd"] = {
            key: float(np.std(value, ddof=1)) if len(value) > 1 else None
            for key, value in values.items()
        }
        if method != own:
            result[f"over_{method}"] = {
                key: interval([one[own][key] - one[method][key] for one in each])
                for key in measures
            }
    rows = [[m, *(result[m][key] for key in measures), result[m]["ms"]] for m in methods]
    table(own, ("method", *measures, "ms"), rows)
    return result


def of_classes(data: Labelled, args: Any, epochs: int) -> dict[str, Any]:
    """Measure the nets of all seeds; tells each as it is done."""
    import captum.attr  # noqa: F401 - not within the first map's time

    each, accuracies = [], []
    for seed in range(args.seed, args.seed + args.seeds):
        found, accuracy = explained(data, seed, args.images, epochs)
        each.append(found)
        accuracies.append(accuracy)
        print(json.dumps([seed, accuracy, found]), flush=True)
    told = summary(each, "players", MEASURES)
    own = told["players"]
    result = {key: own[key] for key in ("iou", "pointing", "ms", "evaluations")}
    for key in ("deletion_auc", "insertion_auc"):
        result[key] = float(np.mean([own[f"{key}_{fill}"] for fill in ("blur", "mean")]))
    result["gap_max"] = max(one["players"]["gap"] for one in each)
    return result | {"accuracy": float(np.mean(accuracies)), "classes": told}


def of_detectors(samples: Sequence[Sample], draws: Sequence[Draw], args: Any) -> dict[str, Any]:
    """Measure a detector for each draw; tells each as it is done."""
    each = []
    for number in range(args.seeds):
        draw = draws[number % len(draws)]
        each.append(detected(samples, draw, args.seed + number, args.images))
        print(json.dumps([args.seed + number, each[-1]]), flush=True)
    return summary(each, "exact_map", ("iou", "pointing"))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("shap-image", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder with neu_masks and magnetic_tile, or above")
    made.add_argument("--seeds", type=int, default=10, help="nets and draws (default %(default)s)")
    made.add_argument(
        "--images", type=int, default=8, help="explained per net (default %(default)s)"
    )
    made.add_argument("--only", choices=("classes", "detector"), help="one of the two parts")
    args = made.parse_args(argv)
    folder = args.data or os.environ.get("PENSTOCK_DATA")
    if args.smoke:
        data, samples, draws = generated(args.seed)
        args.seeds, args.images, epochs = 1, 2, 2
    elif folder is None:
        print("shap-image skipped: name the folder of defect images by --data or PENSTOCK_DATA")
        return
    else:
        folder = Path(folder)
        folder = folder / "defects" if (folder / "defects").is_dir() else folder
        data, samples, draws, epochs = read_neu(folder), read_tiles(folder), read_draws(), 10
    result: dict[str, Any] = {"seeds": args.seeds, "images": args.images}
    with threads(1), stopwatch() as took:
        if args.only != "detector":
            result |= of_classes(data, args, epochs)
        if args.only != "classes":
            result["detector"] = of_detectors(samples, draws, args)
    result |= {"seconds": took.wall, "cpu_seconds": took.cpu, "peak_gib": peak_gib()}
    emit(result, args)


if __name__ == "__main__":
    run_program("shap-image", main)
