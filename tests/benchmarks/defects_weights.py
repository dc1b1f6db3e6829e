"""Defects-weights: what the shipped weights see, against the same net untrained.

Surfaces and lines are generated from seeds that the pre-training never used. With ``--data`` the
steel types of NEU-DET are told by a shrinkage LDA on pooled features, 8 labels a type, near copies
taken out first; and magnetic tiles are scored by the mask head, which has seen no image of them.
The untrained net's norms are set on the same images, its other weights are random.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from models.defect_net import DefectNet, pooled
from tasks.defects.textures.defects import DEFECTS
from tasks.defects.textures.line import LineConfig, make_line
from tasks.defects.textures.surface import TEXTURES, draw_surface, to_pixels, varied
from tasks.defects.weights import load_mask_head, load_net, shipped
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table, threads

Floats = NDArray[np.float32]
Gray = NDArray[np.uint8]
COPY = 0.97
"""Correlation of 24 x 24 pixels, in the likest of eight positions, from which two are copies."""
CELL = 4


def as_input(images: Sequence[Gray]) -> torch.Tensor:
    """Return float [n, 3, h, w] in [0, 1] of gray images of one size."""
    pixels = torch.from_numpy(np.stack(images).astype(np.float32) / 255)
    return pixels[:, None].expand(-1, 3, -1, -1)


@torch.no_grad()
def described(net: DefectNet, images: Sequence[Gray]) -> Floats:
    """Return pooled features, float32 [n, d]."""
    found = [
        pooled(net(as_input(images[at : at + 32]))).numpy() for at in range(0, len(images), 32)
    ]
    return np.concatenate(found)


@torch.no_grad()
def untrained(seed: int, images: Sequence[Gray]) -> DefectNet:
    """Return a net with random weights, its norms set on some images."""
    torch.manual_seed(seed)
    net = DefectNet().train()
    for at in range(20):
        net(as_input(images[at :: max(len(images) // 16, 1)][:16]))
    return net.eval()


def few_shot(
    features: Floats, labels: NDArray[np.int64], shots: int, rng: np.random.Generator
) -> float:
    """Return the accuracy on what is not among ``shots`` labelled images of each type."""
    kinds = np.unique(labels)
    few = np.concatenate([rng.choice(np.flatnonzero(labels == k), shots, False) for k in kinds])
    rest = np.setdiff1d(np.arange(len(labels)), few)
    scaled = (features - features[few].mean(0)) / (features[few].std(0) + 1e-3)
    told = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    return float(told.fit(scaled[few], labels[few]).score(scaled[rest], labels[rest]))


def spread(name: str, figures: Sequence[float]) -> dict[str, float]:
    """Return mean, spread and the worst of the draws."""
    return {
        name: float(np.mean(figures)),
        f"{name}_sd": float(np.std(figures)),
        f"{name}_worst": float(np.min(figures)),
    }


def surfaces(args: Any) -> dict[str, float]:
    """Return how well new surfaces of metal are told apart by 3 images of each."""
    trained, random = [], []
    for draw in range(args.draws):
        rng = np.random.default_rng((args.seed, 1, draw))
        images, labels = [], []
        for label in range(args.surfaces):
            surface = draw_surface("metal", rng)
            for _ in range(10):
                images.append(to_pixels(varied(surface, rng, 0.2).render((64, 64), rng)))
                labels.append(label)
        for net, found in ((load_net(), trained), (untrained(draw, images), random)):
            own = np.random.default_rng((args.seed, 2, draw))
            found.append(few_shot(described(net, images), np.array(labels), 3, own))
    return spread("surface_acc", trained) | spread("surface_acc_untrained", random)


def heat_of(net: DefectNet, head: torch.nn.Module, image: Gray) -> Floats:
    """Return the mask head's logits, float32 [h / 4, w / 4]."""
    with torch.no_grad():
        return head(net(as_input([image])).dense)[0, 0].numpy()


def by_contrast(image: Gray) -> Floats:
    """Return how far each cell is from its surroundings, in gray values: no training at all."""
    gray = image.astype(np.float32)
    far = np.abs(ndimage.gaussian_filter(gray, 1.5) - ndimage.gaussian_filter(gray, 12))
    height, width = (side // CELL * CELL for side in gray.shape)
    cells = far[:height, :width].reshape(height // CELL, CELL, width // CELL, CELL)
    return cells.mean((1, 3))


def lines(args: Any) -> tuple[dict[str, float], list[tuple[Any, ...]]]:
    """Return the AUROC of the mask head over the cells of new lines, and of plain contrast."""
    net, head = load_net(), load_mask_head()
    kinds = DEFECTS[:4] if args.smoke else DEFECTS
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for draw in range(args.draws):
        for kind in kinds:
            texture = TEXTURES[(draw + DEFECTS.index(kind)) % len(TEXTURES)]
            seed = int(np.random.default_rng((args.seed, 3, draw)).integers(2**31))
            line = make_line(LineConfig(texture=texture, ok=0, ng={kind: 4}, seed=seed))
            masks = [s.mask.reshape(32, CELL, 32, CELL).mean((1, 3)) > 0.12 for s in line]
            cells = np.stack(masks).ravel()
            if not cells.any():
                continue
            scored = [[heat_of(net, head, s.pixels), by_contrast(s.pixels)] for s in line]
            pair = (np.stack([each[k] for each in scored]).ravel() for k in (0, 1))
            found[kind].append(tuple(float(roc_auc_score(cells, heat)) for heat in pair))
    rows = [(kind, *np.mean(pairs, axis=0)) for kind, pairs in found.items()]
    head_mean, contrast = np.mean([row[1:] for row in rows], axis=0)
    return {"mask_auroc": float(head_mean), "mask_auroc_contrast": float(contrast)}, rows


def steel(folder: Path, args: Any) -> dict[str, float]:
    """Return how well the six types of NEU-DET are told by 8 labels each."""
    files = sorted((folder / "neu_det" / "images").glob("*.jpg"))
    images = [np.asarray(Image.open(file).convert("L").resize((200, 200))) for file in files]
    names = [file.stem.rpartition("_")[0] for file in files]
    kept = without_copies(images)
    images, names = [images[i] for i in kept], [names[i] for i in kept]
    labels = np.unique(names, return_inverse=True)[1]
    result: dict[str, float] = {"steel_images": len(images)}
    for name, net in (
        ("steel_acc", load_net()),
        ("steel_acc_untrained", untrained(args.seed, images)),
    ):
        features = described(net, images)
        draws = [np.random.default_rng((args.seed, 4, draw)) for draw in range(args.draws)]
        result |= spread(name, [few_shot(features, labels, 8, rng) for rng in draws])
    return result


def without_copies(images: Sequence[Gray]) -> list[int]:
    """Return the places of images of which none before is a copy, turned or mirrored."""
    small = [np.asarray(Image.fromarray(g).resize((24, 24), Image.Resampling.BOX)) for g in images]
    flat = np.stack(small).astype(np.float32)
    flat -= flat.mean((1, 2), keepdims=True)
    flat /= np.sqrt((flat**2).sum((1, 2), keepdims=True)) + 1e-6
    alike = np.zeros((len(flat), len(flat)), bool)
    for flipped in (flat, flat[:, :, ::-1]):
        for turns in range(4):
            turned = np.rot90(flipped, turns, (1, 2)).reshape(len(flat), -1)
            alike |= flat.reshape(len(flat), -1) @ turned.T > COPY
    kept: list[int] = []
    for place in range(len(images)):
        if not alike[place, kept].any():
            kept.append(place)
    return kept


def tiles(folder: Path) -> dict[str, float]:
    """Return the AUROC of OK against NG tiles by the mask head alone, half size, 2 per part."""
    place = folder / "magnetic_tile"
    net, head = load_net(), load_mask_head()
    seen: Counter[str] = Counter()
    scores, plain, bad = [], [], []
    with (place / "tile_groups.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    files = {path.name: path for path in place.rglob("*.jpg")}
    for row in rows:
        seen[row["tile_group"]] += 1
        if seen[row["tile_group"]] > 2:
            continue
        image = Image.open(files[row["file"]]).convert("L")
        size = [max(side // 2 // 16 * 16, 64) for side in image.size]
        gray = np.asarray(image.resize((size[0], size[1]), Image.Resampling.BOX))
        scores.append(float(np.sort(heat_of(net, head, gray).ravel())[-5:].mean()))
        plain.append(float(np.sort(by_contrast(gray).ravel())[-5:].mean()))
        bad.append(row["class"] != "MT_Free")
    return {
        "tiles": len(bad),
        "tile_auroc_unseen": float(roc_auc_score(bad, scores)),
        "tile_auroc_contrast": float(roc_auc_score(bad, plain)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("defects-weights", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of neu_det and magnetic_tile")
    made.add_argument("--draws", type=int, default=10)
    args = made.parse_args(argv)
    if args.data is not None and not (args.data / "neu_det" / "images").is_dir():
        raise FileNotFoundError(f"{args.data} has no neu_det/images; give the folder above them")
    args.draws = 1 if args.smoke else args.draws
    args.surfaces = 8 if args.smoke else 30
    with threads(1), stopwatch() as took:
        result: dict[str, Any] = {"weights_mb": shipped().stat().st_size / 1e6}
        result |= surfaces(args)
        masks, rows = lines(args)
        result |= masks
        if args.data is not None and not args.smoke:
            result |= steel(args.data, args) | tiles(args.data)
    result["seconds"] = took.wall
    table("defects-weights: AUROC of cells", ("defect", "mask head", "contrast"), rows)
    emit(result, args)


if __name__ == "__main__":
    run_program("defects-weights", main)
