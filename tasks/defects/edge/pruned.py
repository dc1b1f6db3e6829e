"""A detector with fewer channels: taken out of the trained net, which then teaches what is left.

Nothing is labelled for it. The pruned net learns on pieces of the line's images, near and far, to
see what the whole one sees: the dense map, and the logits of spots and of areas that are read from
it (Hinton et al. 2015; Romero et al. 2015). Types, decision and statistics stay as they were
trained.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from kernels.compression.pruning.channel_pruner import ChannelPruner, PruningConfig
from kernels.compression.pruning.errors import PruningError
from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import run
from kernels.runtime.schedule import ScheduleConfig
from models.defect_net import DefectNet
from tasks.defects.detect.detector import tensor_of
from tasks.defects.detect.far import halved
from tasks.defects.edge.trim import TrimmedScorer, trimmed
from tasks.defects.samples import Pixels
from tasks.defects.scorer import Scorer

_LIGHT = 0.15
"""Most by which the contrast of a piece is changed."""
_PEAKS = 0.05
"""Share of the cells of a piece that count as its highest, as in the detector's own statistics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneConfig:
    """How channels go, and how the rest is repaired.

    Attributes:
        share: Of the products that goes.
        rounds: In which it goes, each with training behind it.
        steps: Of training, over all rounds; 0 for none.
        batch: Pieces of a step.
        piece: Height and width of a piece in pixels, a multiple of 16.
        rate: Highest learning rate.
        seed: Of the pieces.
    """

    share: float
    rounds: int = 2
    steps: int = 800
    batch: int = 8
    piece: int = 128
    rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not 0 < self.share < 1:
            raise ValueError(f"share={self.share:g}: give a part above 0 and below 1, as 0.3")
        if min(self.rounds, self.batch) < 1 or self.steps < 0:
            raise ValueError("rounds and batch must be at least 1, steps at least 0")
        if self.piece < 32 or self.piece % 16:
            raise ValueError(f"piece is {self.piece}; give a multiple of 16, at least 32")


class _Dense(nn.Module):
    """A net whose answer is its dense map alone."""

    def __init__(self, net: DefectNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        """Return [n, dense, h / 4, w / 4] of [n, 3, h, w]."""
        dense: Tensor = self.net(pixels).dense
        return dense


def why_not(scorer: Scorer) -> str:
    """Return why channels of a scorer cannot go, "" where they can."""
    if isinstance(trimmed(scorer), TrimmedScorer):
        return ""
    return "memory and distances judge with this net as it is: train the detector on its line first"


def pruned(scorer: Scorer, images: Sequence[Pixels], config: PruneConfig) -> TrimmedScorer:
    """Return a scorer with fewer channels and the same outputs; the given one stays as it is.

    Args:
        scorer: A detector's, trained on its line.
        images: Of the line, good and bad; nothing held out.
        config: How much goes, and how the rest is repaired.

    Raises:
        PruningError: When the scorer cannot do without its evidence, or so much cannot go.
    """
    if why := why_not(scorer):
        raise PruningError(why)
    if not images:
        raise PruningError("no images: repairing needs some of the line")
    small = copy.deepcopy(trimmed(scorer))
    assert isinstance(small, TrimmedScorer)  # noqa: S101 - for the type checker, see why_not
    small.requires_grad_(requires_grad=False)
    whole = _Dense(copy.deepcopy(small.whole.net)).eval()
    draw = _pieces(images, config)
    loss = _loss_against(whole, small.near)
    each = config.steps // config.rounds

    def repair(model: nn.Module, number: int) -> None:
        if each:
            settings = RunConfig(
                steps=each,
                seed=config.seed,
                optimizer=OptimizerConfig(learning_rate=config.rate),
                schedule=ScheduleConfig(warmup=0.1),
            )
            run(model, lambda index: draw(1_000_000 * number + index), loss, settings)

    trainable = _Dense(copy.deepcopy(small.whole.net)).requires_grad_()
    pruner = ChannelPruner(
        trainable,
        torch.zeros(1, 3, config.piece, config.piece),
        config.share,
        PruningConfig(of="multiplications", criterion="taylor", rounds=config.rounds),
    )
    told = _answers_moved(small.near, config.seed)
    found = pruner.prune(batches=draw, loss=told, fine_tune=repair).model
    small.whole.net = found.get_submodule("net")  # type: ignore[assignment]  # pruned DefectNet
    return small.eval()


def _answers_moved(head: nn.Conv2d, seed: int) -> Callable[[nn.Module, Tensor], tuple[Tensor, int]]:
    """Return sums of map and logits with random signs, for the scores of channels.

    The mean of their squared change is that of the answers' squared change (Hutchinson 1990). What
    is left cannot be scored by its loss against the whole net: before anything is taken out that is
    0, and so is its gradient.
    """
    generator = torch.Generator().manual_seed(seed)

    def summed(model: nn.Module, pixels: Tensor) -> tuple[Tensor, int]:
        dense = model(pixels)
        total = dense.new_zeros(())
        for answers in (dense, head(dense)):
            signs = torch.randint(0, 2, answers.shape, generator=generator) * 2 - 1
            scaled = answers / _variance(answers.detach()).sqrt()
            total = total + (signs * scaled).sum() / answers.numel() ** 0.5
        return total * len(pixels), len(pixels)

    return summed


def _loss_against(
    whole: nn.Module, head: nn.Conv2d
) -> Callable[[nn.Module, Tensor], tuple[Tensor, int]]:
    """Return the loss of a net whose map and logits differ from those of the whole one."""

    def loss(model: nn.Module, pixels: Tensor) -> tuple[Tensor, int]:
        with torch.no_grad():
            wanted = whole(pixels)
            logits = head(wanted)
        dense = model(pixels)
        found = head(dense)
        apart = _relative(dense, wanted) + _relative(found, logits) + _at_peaks(found, logits)
        return apart * len(pixels), len(pixels)

    return loss


def _relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared difference [n, c, h, w] in the spread of each channel."""
    return ((found - wanted).square() / _variance(wanted)).mean()


def _variance(answers: Tensor) -> Tensor:
    """Return that of each channel, [1, c, 1, 1] of [n, c, h, w], never 0."""
    return answers.var(dim=(0, 2, 3), keepdim=True) + 1e-4


def _at_peaks(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared difference of logits where either net's are highest.

    Scores are means of the highest cells, which an even look over all cells hardly sees.
    """
    ours, theirs = found.flatten(2), wanted.flatten(2)
    count = max(4, int(_PEAKS * ours.shape[2]))
    places = torch.maximum(ours.detach(), theirs).topk(count, dim=2).indices
    apart = (ours.gather(2, places) - theirs.gather(2, places)).square()
    return (apart / _variance(wanted).flatten(2)).mean()


def _pieces(images: Sequence[Pixels], config: PruneConfig) -> Callable[[int], Tensor]:
    """Return batch by index: pieces of images, turned, lighter or darker, float [n, 3, h, w]."""

    def draw(index: int) -> Tensor:
        rng = np.random.default_rng((config.seed, index))
        return torch.stack([_piece(images, config.piece, rng) for _ in range(config.batch)])

    return draw


def _piece(images: Sequence[Pixels], wanted: int, rng: np.random.Generator) -> Tensor:
    image = images[int(rng.integers(len(images)))]
    height, width = image.shape[:2]
    # The net looks twice: at the image, and at half its size.
    far = rng.random() < 0.5 and min(height, width) >= 2 * wanted
    side = 2 * wanted if far else wanted
    if min(height, width) < side:
        turns = -(-side // min(height, width))
        image = np.tile(image, (turns, turns, *(1,) * (image.ndim - 2)))
        height, width = image.shape[:2]
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    piece = tensor_of(image[top : top + side, left : left + side])
    if far:
        piece = halved(piece[None])[0]
    piece = piece.rot90(int(rng.integers(4)), (1, 2))
    if rng.random() < 0.5:
        piece = piece.flip(2)
    factor = 1 + _LIGHT * float(rng.uniform(-1, 1))
    return ((piece - piece.mean()) * factor + piece.mean()).clamp(0, 1)
