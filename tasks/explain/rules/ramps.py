"""Products of ramps whose points, ends and base are fitted together by gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.explain.rules.candidates import Path

if TYPE_CHECKING:
    from torch import Tensor

Reals = NDArray[np.float64]
Floats = NDArray[np.float32]

BLOCK_SHARE = 0.3
"""Of the loss of the decision to block beside that to review."""

WIDE = 0.75
"""First half width of a ramp in spreads of its feature."""

NARROWEST, WIDEST = 0.04, 15.0
"""Half widths in spreads between which a ramp stays."""

RATE, LAST_RATE = 0.03, 0.0015
"""Step lengths of Adam, at the beginning and in the end."""

FIRST = 0.3
"""Log-odds that a new rule begins with."""


@dataclass(frozen=True)
class Target:
    """What is fitted.

    Attributes:
        margins: float64 [2, n], of the model's score above the thresholds of review and block.
        weights: float64 [n].
        temperature: Log-odds by which decisions are softened.
    """

    margins: Reals
    weights: Reals
    temperature: float


class Ramps:
    """A base and products of ramps, each with its points in log-odds, over given rows.

    Attributes:
        target: What is fitted.
    """

    def __init__(self, rows: Floats, target: Target, seed: int) -> None:
        """Standardise rows float32 [n, F] by the spread of those near the threshold."""
        import torch

        self.target = target
        near = rows[target.margins[0] > -2]
        known = np.where(np.isfinite(near), near, np.nan).astype(np.float64)
        known[:, np.isnan(known).all(axis=0)] = 0.0
        low, middle, high = np.nanquantile(known, [0.1, 0.5, 0.9], axis=0)
        spread = np.where(high > low, (high - low) / 2.56, np.nanstd(known, axis=0))
        self._middle, self._spread = middle, np.maximum(spread, 1e-6)
        finite = np.isfinite(rows)
        scaled = np.where(finite, (rows - self._middle) / self._spread, 0.0).astype(np.float32)
        self._rows = torch.from_numpy(scaled)
        self._finite = None if finite.all() else torch.from_numpy(finite)
        softened = 1 / (1 + np.exp(-np.clip(target.margins / target.temperature, -60, 60)))
        self._wanted = torch.from_numpy(softened.astype(np.float32))
        self._weights = torch.from_numpy(target.weights.astype(np.float32))
        self._draws = torch.Generator().manual_seed(seed)
        self._paths: list[Path] = []
        self._width = 1
        self._features = torch.zeros(0, 1, dtype=torch.long)
        self._sides = torch.zeros(0, 1)  # 1: rises, -1: falls, 0: no condition
        self._middles = torch.zeros(0, 1)
        self._slopes = torch.zeros(0, 1)
        self._points = torch.zeros(0)
        # Base, and by how much a blocked row lies above a reviewed one.
        self._levels = torch.tensor([-2.0, 1.0])

    def __len__(self) -> int:
        """Return the number of rules."""
        return len(self._paths)

    def add(self, path: Path, sign: float) -> None:
        """Add a rule, its ramps around the cuts of a path."""
        import torch

        self._paths.append(path)
        self._width = max(self._width, len(path))
        rest = self._width - len(path)
        middles = [(value - self._middle[f]) / self._spread[f] for f, _, value in path]
        self._features = _below(self._features, [f for f, _, _ in path] + [0] * rest)
        self._sides = _below(
            self._sides, [1.0 if above else -1.0 for _, above, _ in path] + [0.0] * rest
        )
        self._middles = _below(self._middles, middles + [0.0] * rest)
        self._slopes = _below(self._slopes, [-float(np.log(WIDE))] * self._width)
        self._points = torch.cat([self._points, torch.tensor([FIRST * sign])])

    def residual(self) -> Reals:
        """Return the softened decision to review less what is said of it, float64 [n]."""
        import torch

        with torch.no_grad():
            said = torch.cat(
                [self._said(part) for part in torch.split(torch.arange(len(self._rows)), 2**14)]
            )
            lacks = self._wanted[0] - torch.sigmoid(said / self.target.temperature)
        return lacks.numpy().astype(np.float64)

    def fit(self, steps: int, batch: int) -> None:
        """Fit all numbers together by Adam on drawn rows, ever shorter steps."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits as loss_of

        fitted = (self._middles, self._slopes, self._points, self._levels)
        for one in fitted:
            one.requires_grad = True
        optimizer = torch.optim.Adam(
            [{"params": fitted[:2], "times": 1.0}, {"params": fitted[2:], "times": 2.0}], lr=RATE
        )
        limits = -float(np.log(WIDEST)), -float(np.log(NARROWEST))
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = group["times"] * max(LAST_RATE, RATE * (1 - step / steps))
            taken = torch.randint(len(self._rows), (batch,), generator=self._draws)
            said, weights = self._said(taken), self._weights[taken]
            above = torch.stack([said, said - self._levels[1]]) / self.target.temperature
            review, block = loss_of(above, self._wanted[:, taken], reduction="none")
            loss = ((review + BLOCK_SHARE * block) * weights).sum() / weights.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                self._slopes.clamp_(*limits)
        for one in fitted:
            one.requires_grad = False

    def rules(self) -> list[tuple[list[tuple[int, float, float]], float]]:
        """Return for each rule its conditions (place, where empty, where full) and its log-odds."""
        found = []
        for number, path in enumerate(self._paths):
            conditions = []
            for place, (feature, above, _) in enumerate(path):
                middle = float(self._middles[number, place])
                half = float(np.exp(-float(self._slopes[number, place])))
                ends = (middle - half, middle + half) if above else (middle + half, middle - half)
                empty, full = (
                    float(self._middle[feature] + end * self._spread[feature]) for end in ends
                )
                conditions.append((feature, empty, full))
            found.append((conditions, float(self._points[number])))
        return found

    def base(self) -> float:
        """Return the log-odds that every row starts with."""
        return float(self._levels[0])

    def _said(self, taken: Tensor) -> Tensor:
        """Return log-odds above the threshold of review of some rows, float32 [m]."""
        import torch

        if not self._paths:
            return self._levels[0].expand(len(taken))
        features, sides = self._features, self._sides
        values = self._rows[taken][:, features]
        degrees = 0.5 + 0.5 * sides * (values - self._middles) * self._slopes.exp()
        degrees = degrees.clamp(0, 1)
        if self._finite is not None:
            degrees = degrees * self._finite[taken][:, features]
        degrees = torch.where(sides == 0, 1.0, degrees)
        return self._levels[0] + degrees.prod(dim=-1) @ self._points


def _below(matrix: Tensor, row: list[float] | list[int]) -> Tensor:
    """Return a matrix with one row more, filled up with 0 to its width."""
    import torch
    from torch.nn.functional import pad

    wide = pad(matrix, (0, len(row) - matrix.shape[1]))
    return torch.cat([wide, torch.tensor([row], dtype=matrix.dtype)])
