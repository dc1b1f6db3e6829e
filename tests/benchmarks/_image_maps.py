"""What `shap-image` is made of: a small net, two maps of captum, and four measures of any map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.explain.image.fills import Fill, Image, filled

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]
STEPS = 25
"""Steps in which the pixels of an image are taken away or put in."""


def small_net(classes: int) -> nn.Sequential:
    """Return an untrained net for gray images; the part before the last two layers is `layers`."""
    widths = (1, 16, 32, 48, 64)
    layers: list[nn.Module] = []
    for place, (given, made) in enumerate(pairwise(widths)):
        stride = 2 if place < 3 else 1
        layers += [nn.Conv2d(given, made, 3, stride, 1), nn.BatchNorm2d(made), nn.ReLU()]
    return nn.Sequential(
        nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)
    )


def train(net: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Train a net in place on images ``[n, 1, H, W]``, mirrored and lit at random.

    Without other light the nets told the classes by the brightness of the background.
    """
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    steps = epochs * -(-len(images) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    net.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(32):
            batch = images[chosen]
            flips = [axis for axis in (2, 3) if torch.rand(()) < 0.5]
            gain = torch.exp(0.4 * torch.randn(len(batch), 1, 1, 1))
            light = 0.5 * torch.randn(len(batch), 1, 1, 1)
            loss = nn.functional.cross_entropy(
                net(gain * batch.flip(flips) + light), labels[chosen]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()


class Probability(nn.Module):
    """Probability of one class of a net that returns logits."""

    def __init__(self, net: nn.Module, target: int) -> None:
        """Take the net and the class."""
        super().__init__()
        self.net, self.target = net, target

    def forward(self, images: Tensor) -> Tensor:
        """Return ``[n]``."""
        logits: Tensor = self.net(images)
        return logits.softmax(dim=1)[:, self.target]


class LogOdds(nn.Module):
    """Log-odds of one class of a net that returns logits."""

    def __init__(self, net: nn.Module, target: int) -> None:
        """Take the net and the class."""
        super().__init__()
        self.net, self.target = net, target

    def forward(self, images: Tensor) -> Tensor:
        """Return ``[n]``."""
        logits: Tensor = self.net(images)
        others = torch.cat([logits[:, : self.target], logits[:, self.target + 1 :]], dim=1)
        return logits[:, self.target] - others.logsumexp(dim=1)


def grad_cam(net: nn.Sequential, image: Tensor, target: int) -> Map:
    """Return captum's Grad-CAM of the last convolutions, ``[H, W]``."""
    from captum.attr import LayerAttribution, LayerGradCam

    found = LayerGradCam(net, net[0]).attribute(image[None], target=target)
    whole = LayerAttribution.interpolate(found, image.shape[1:], "bilinear")
    return whole[0, 0].detach().double().numpy()


def occlusion(net: nn.Module, image: Tensor, target: int, window: int, stride: int) -> Map:
    """Return captum's Occlusion by the image's mean, ``[H, W]``."""
    from captum.attr import Occlusion

    with torch.no_grad():
        found = Occlusion(net).attribute(
            image[None],
            sliding_window_shapes=(1, window, window),
            strides=(1, stride, stride),
            baselines=float(image.mean()),
            target=target,
            perturbations_per_eval=64,
        )
    return found[0, 0].double().numpy()


def mask_iou(found: Map, mask: Mask) -> float:
    """Return the overlap of a mask with as many pixels of the highest values."""
    top = np.zeros(mask.size, dtype=bool)
    top[_falling(found)[: mask.sum()]] = True
    flat = mask.ravel()
    return float((top & flat).sum() / (top | flat).sum())


def pointing(found: Map, mask: Mask) -> float:
    """Return 1 where the highest value is on the mask; of equal ones their share on it."""
    return float(mask[found == found.max()].mean())


def curves(
    score: Callable[[Image], NDArray[np.float64]], image: Image, found: Map, fill: Fill
) -> tuple[float, float]:
    """Return the areas under the curves of deletion and insertion, highest pixels first.

    Petsiuk et al., "RISE: randomized input sampling for explanation", BMVC 2018.
    """
    places = np.empty(found.size, dtype=np.int64)
    places[_falling(found)] = np.arange(found.size)
    limits = np.linspace(0, found.size, STEPS + 1)[:, None, None, None]
    first = places.reshape(found.shape) < limits
    other = filled(image, fill)
    deleted = score(np.where(first, other, image))
    inserted = score(np.where(first, image, other))
    return float(np.trapezoid(deleted) / STEPS), float(np.trapezoid(inserted) / STEPS)


def figures_of(
    score: Callable[[Image], NDArray[np.float64]],
    image: Image,
    found: Map,
    mask: Mask,
    fills: Sequence[Fill] = ("blur", "mean"),
) -> dict[str, float]:
    """Return all measures of one map."""
    told = {"iou": mask_iou(found, mask), "pointing": pointing(found, mask)}
    for fill in fills:
        told[f"deletion_auc_{fill}"], told[f"insertion_auc_{fill}"] = curves(
            score, image, found, fill
        )
    return told


def _falling(found: Map) -> NDArray[np.intp]:
    return np.argsort(-found.ravel(), kind="stable")
