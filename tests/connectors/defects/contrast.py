"""An edge file for tests whose answers are known beforehand: the darkest spot against the mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64


def spotted(depth: float, *, seed: int = 0) -> np.ndarray:
    """A bright noisy plate with one spot darker by ``depth``, of 0 to .8: about its score."""
    pixels = np.random.default_rng(seed).integers(215, 245, (SIDE, SIDE), dtype=np.uint8)
    row, column = place_of(seed)
    pixels[row : row + 8, column : column + 8] -= np.uint8(depth * 255)
    return pixels


def place_of(seed: int) -> tuple[int, int]:
    """Return the first row and column of the spot; of up to 49 seeds no two are the same."""
    return 8 * (seed % 7) + 4, 8 * (seed // 7 % 7) + 4


def write_contrast(path: Path, *, side: int | None = SIDE) -> Path:
    """Write the edge file of a scorer of contrast: OK below .3, NG from .6 on."""
    import torch

    from connectors.defects.edge_file import write_edge_file
    from tasks.defects.edge.build import EdgeConfig, build_edge
    from tasks.defects.judgement import Thresholds
    from tasks.defects.scorer import Scorer, Scores

    class Contrast(Scorer):
        """How far the image's darkest cell lies below its mean."""

        def forward(self, pixels):
            cells = torch.nn.functional.avg_pool2d(pixels.mean(dim=1, keepdim=True), 4)
            heat = (cells.mean(dim=(2, 3), keepdim=True) - cells).clamp(0, 1)
            return Scores(heat.amax(dim=(1, 2, 3)), heat, torch.ones_like(heat[:, :, 0, 0]))

    torch.set_num_threads(1)
    scorer = Contrast(("unknown",), None if side is None else (side, side)).eval()
    images = [spotted(depth) for depth in (0.1, 0.5, 0.8)]
    write_edge_file(
        path, build_edge(scorer, Thresholds(0.3, 0.6), images, config=EdgeConfig(int8=False))
    )
    return path


def write_spotted(folder: Path, depths) -> None:
    """Write plates ``00.png`` and so on."""
    folder.mkdir(parents=True)
    for number, depth in enumerate(depths):
        Image.fromarray(spotted(depth, seed=number)).save(folder / f"{number:02d}.png")
