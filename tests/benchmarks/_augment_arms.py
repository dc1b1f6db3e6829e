"""Short trainings with and without each augmentation: types of defects, and where defects are.

All arms of a draw start from the same weights, see the same windows in the same order, and differ
in the augmentation alone, which has a source of chance of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional

from models.defect_net import STRIDE, DefectNet, pooled
from tasks.defects.augment.exposure import exposure
from tasks.defects.augment.lens import lens
from tasks.defects.augment.mixing import mixed
from tasks.defects.augment.mosaic import mosaic
from tasks.defects.augment.poisson import poisson_transplant
from tasks.defects.augment.surfaces import pixels_of, surface_of
from tasks.defects.augment.windows import window
from tasks.defects.classify.discriminant import fit_discriminant
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.detector import tensor_of
from tasks.defects.detect.finetune import HIGHEST, finetune, highest
from tasks.defects.detect.metrics import auroc, heat_metrics
from tasks.defects.detect.pieces import Pieces, is_large, transplanted
from tasks.defects.detect.synthetic import with_defect
from tasks.defects.samples import Sample
from tasks.defects.short_training import narrow

TYPE_ARMS = ("baseline", "cutmix", "mixup", "exposure", "lens")
SURFACE_ARMS = ("baseline", "exposure", "lens", "paste", "poisson", "mosaic")
CHANCE = 0.5
"""Of an image, or of a batch that is mixed, to be augmented."""
_REAL, _SYNTHETIC = 0.45, 0.3
_RATE = 3e-4
_FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))
_VIEW = (0.7, 1.0)
_ZOOM = (0.45, 1.25)


@dataclass(frozen=True, slots=True)
class Size:
    """How long the trainings are.

    Attributes:
        type_steps: Steps of a net that names types.
        surface_steps: Steps of one that finds defects.
        side: Pixels of a window.
        batch: Windows per step: of types, of surfaces.
    """

    type_steps: int = 40
    surface_steps: int = 100
    side: int = 96
    batch: tuple[int, int] = (16, 8)


def flipped(sample: Sample, rng: Generator) -> Sample:
    """Flip pixels and mask at random, never by a right angle, since grain has a direction."""
    pixels, mask = sample.pixels, sample.mask
    for axis in (0, 1):
        if rng.random() < 0.5:
            pixels = np.flip(pixels, axis)
            mask = None if mask is None else np.flip(mask, axis)
    return Sample(sample.name, pixels, sample.label, sample.kind, mask)


def light_or_lens(sample: Sample, arm: str, rng: Generator) -> Sample:
    """Return the sample by the arm's exposure or lens, half of the time."""
    if arm not in {"exposure", "lens"} or rng.random() >= CHANCE:
        return sample
    return exposure(sample, rng) if arm == "exposure" else lens(sample, rng).sample


class TypeNet(nn.Module):
    """The small net with a linear layer on its pooled features.

    The layer starts as the discriminant of the features (linear probing, then fine-tuning; Kumar et
    al., ICLR 2022), and running statistics stay as they are: 50 images are too few for others.

    Args:
        net: Trained in place.
        pixels: float [n, 3, h, w] of the labelled images.
        kinds: int [n], each type at least once.
        count: Number of types.
    """

    def __init__(self, net: DefectNet, pixels: Tensor, kinds: np.ndarray, count: int) -> None:
        super().__init__()
        self.net = net.eval()
        with torch.no_grad():
            features = torch.cat([pooled(net(torch.flip(pixels, at))) for at in _FLIPS])
        found = fit_discriminant(
            features.numpy(), np.tile(kinds, len(_FLIPS)), count, np.ones(len(features))
        )
        weight = found.centroids @ found.axes.T / found.scale
        bias = -(found.centroids**2).sum(axis=1) / 2 - weight @ found.centre
        self.last = nn.Linear(weight.shape[1], count)
        with torch.no_grad():
            self.last.weight.copy_(torch.from_numpy(weight))
            self.last.bias.copy_(torch.from_numpy(bias))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [n, count] of float [n, 3, h, w]."""
        found: Tensor = self.last(pooled(self.net(pixels)).float())
        return found


def type_accuracy(
    net: DefectNet,
    labelled: Sequence[Sample],
    others: Sequence[Sample],
    arm: str,
    seed: tuple[int, int],
    size: Size,
) -> dict[str, float]:
    """Train on the labelled images; return the share of the others that is named rightly."""
    kinds = sorted({sample.kind for sample in labelled})
    truth = np.array([kinds.index(sample.kind) for sample in labelled])
    model = TypeNet(net, whole(labelled, size.side), truth, len(kinds))
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), _RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _RATE, size.type_steps, pct_start=0.15
    )
    rng, more = np.random.default_rng(seed), np.random.default_rng((*seed, 1))
    order: list[int] = []
    for _ in range(size.type_steps):
        while len(order) < size.batch[0]:
            order += rng.permutation(len(labelled)).tolist()
        places, order = order[: size.batch[0]], order[size.batch[0] :]
        views = []
        for place in places:
            scale = size.side / min(labelled[place].pixels.shape[:2])
            zoom = (scale / _VIEW[1], scale / _VIEW[0])
            view = window(labelled[place], (size.side, size.side), rng, zoom).sample
            views.append(tensor_of(light_or_lens(flipped(view, rng), arm, more).pixels))
        pixels, told = torch.stack(views), torch.from_numpy(truth[places])
        if arm == "cutmix" or arm == "mixup":  # noqa: PLR1714 - narrows the literal
            pixels, told = mixed(pixels, told, len(kinds), arm, more, share=CHANCE)
        with narrow():
            logits = model(pixels.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, told)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode(), narrow():
        images = whole(others, size.side).split(32)
        named = torch.cat(
            [model(one.contiguous(memory_format=torch.channels_last)) for one in images]
        )
    found = np.array(kinds)[named.argmax(dim=1).numpy()]
    return {"acc": float(np.mean(found == [sample.kind for sample in others]))}


def whole(samples: Sequence[Sample], side: int) -> Tensor:
    """Return whole images at one size, float [n, 3, side, side]."""
    each = [
        functional.interpolate(
            tensor_of(sample.pixels)[None], (side, side), mode="bilinear", antialias=True
        )
        for sample in samples
    ]
    return torch.cat(each)


class PieceMaker:
    """Draws pieces with real, synthetic or no defect, each by the arm's augmentation."""

    def __init__(
        self,
        normals: Sequence[Sample],
        defects: Sequence[Sample],
        arm: str,
        seed: tuple[int, int],
        size: Size,
    ) -> None:
        self._normals, self._defects, self._arm = normals, defects, arm
        self._side, self._batch = (size.side, size.side), size.batch[1]
        self._rng, self._more = np.random.default_rng(seed), np.random.default_rng((*seed, 1))

    def batch(self) -> Pieces:
        """Return the next batch."""
        each = [self._piece() for _ in range(self._batch)]
        masks = torch.from_numpy(np.stack([np.float32(mask) for _, mask in each]))
        return Pieces(
            torch.stack([tensor_of(pixels) for pixels, _ in each]),
            functional.max_pool2d(masks[:, None], STRIDE),
            torch.ones(len(each)),
            masks.flatten(1).amax(dim=1),
            torch.tensor([is_large(mask) for _, mask in each]),
        )

    def _piece(self) -> tuple[np.ndarray, np.ndarray]:
        rng, more, arm = self._rng, self._more, self._arm
        which = rng.random()
        if which < _REAL:
            piece = self._cut(self._defects, rng)
        else:
            piece = self._cut(self._normals, rng)
            if which < _REAL + _SYNTHETIC:
                donor = self._cut(self._normals, rng)
                made, mask = with_defect(surface_of(piece.pixels), surface_of(donor.pixels), rng)
                piece = Sample("synthetic", pixels_of(made), None, "", mask)
        if which < _REAL and arm in {"paste", "poisson"} and more.random() < CHANCE:
            piece = self._transplant(piece)
        if arm == "mosaic" and more.random() < CHANCE:
            of = [self._defects if more.random() < _REAL else self._normals for _ in range(4)]
            piece = mosaic([one[int(more.integers(len(one)))] for one in of], self._side, more,
                           _ZOOM).sample  # fmt: skip
        piece = light_or_lens(flipped(piece, rng), arm, more)
        nothing = np.zeros(self._side, dtype=np.bool_)
        return piece.pixels, nothing if piece.mask is None else piece.mask

    def _cut(self, samples: Sequence[Sample], rng: Generator) -> Sample:
        one = samples[int(rng.integers(len(samples)))]
        return window(one, self._side, rng, _ZOOM, around=True).sample

    def _transplant(self, piece: Sample) -> Sample:
        normal = self._cut(self._normals, self._more)
        if piece.mask is None or not piece.mask.any():
            return piece
        if self._arm == "poisson":
            return poisson_transplant(piece, normal, self._more) or piece
        made = transplanted(
            surface_of(piece.pixels), piece.mask, surface_of(normal.pixels), self._more
        )
        return Sample(piece.name, pixels_of(made), "ng", piece.kind, piece.mask)


def surface_aurocs(
    net: DefectNet,
    head: nn.Conv2d,
    labelled: tuple[Sequence[Sample], Sequence[Sample]],
    others: Sequence[Sample],
    arm: str,
    seed: tuple[int, int],
    size: Size,
) -> dict[str, float]:
    """Train on normal and defective images; return AUROC of the others and of their pixels.

    Args:
        net: Trained in place.
        head: From the dense map to logits of spots and of areas.
        labelled: Normal and defective images.
        others: Images of other parts.
        arm: Of `SURFACE_ARMS`.
        seed: Two numbers; the same for all arms of a draw.
        size: Length of the training.
    """
    maker = PieceMaker(*labelled, arm, seed, size)
    finetune(net, head, maker.batch, DetectConfig(steps=size.surface_steps))
    scores, heats = [], []
    with torch.inference_mode(), narrow():
        for sample in others:
            maps = head(net(tensor_of(sample.pixels)[None]).dense)[0].float()
            each = [highest(one[None, None], count)[0]
                    for one, count in zip(maps, HIGHEST, strict=True)]  # fmt: skip
            scores.append(float(max(each)))
            heats.append(maps.amax(dim=0).numpy())
    masks = [np.zeros(s.pixels.shape[:2], np.bool_) if s.mask is None else s.mask for s in others]
    truth = [sample.label == "ng" for sample in others]
    return {"image_auroc": auroc(scores, truth), "pixel_auroc": heat_metrics(heats, masks)[0]}


Measure = Callable[[str, int], dict[str, float]]
"""From arm and number of the draw to figures."""
