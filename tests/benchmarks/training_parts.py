"""Training parts: what each part of the runtime does to the result, over seeds.

A small net learns 1,500 digits of scikit-learn and is judged by its cross-entropy on the other 297.
Every comparison is paired: the same seed gives both ways the same weights and batches. A figure is
the mean difference of the two over the seeds with its interval of 95 % (Student's t); less than 0
is better than the way beside it. ``worst`` is the loss of the worst seed.

- parameters in bf16 by each rounding, against fp32
- clipping by each kind, against none, with SGD where one batch in twenty is spoilt (its pixels
  tenfold); Adam divides by the size of the gradients anyway. Each kind has the learning rate that
  three other seeds find best for it
- averaged weights against the last ones, at a constant learning rate
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from kernels.runtime.clipping import ClippingConfig
from kernels.runtime.compensation import ParametersConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.ema import EmaConfig
from kernels.runtime.finite import NonFiniteError
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import run
from kernels.runtime.schedule import ScheduleConfig
from tests.benchmarks._harness import emit, parser, run_program, table, threads

TRAIN = 1_500
SPOILT_EVERY = 20
RATES = (0.05, 0.2, 0.8, 3.2)
Batches = Callable[[int], tuple[Tensor, Tensor]]


def digits() -> tuple[Tensor, Tensor]:
    """Return pictures [1797, 64] in 0..1 and their digits."""
    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target)


def batches(
    x: Tensor, y: Tensor, seed: int, index: int, *, spoilt: bool = False
) -> tuple[Tensor, Tensor]:
    """Return batch ``index`` of a seed: 64 training rows."""
    rows = torch.randint(
        0, TRAIN, (64,), generator=torch.Generator().manual_seed(seed * 100_003 + index)
    )
    factor = 10.0 if spoilt and index % SPOILT_EVERY == SPOILT_EVERY - 1 else 1.0
    return x[rows] * factor, y[rows]


def judged(config: RunConfig, x: Tensor, y: Tensor, seed: int, *, spoilt: bool = False) -> float:
    """Train from the seed's weights; return the held-out cross-entropy, infinity if it diverges."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10)
    )
    kind = torch.bfloat16 if config.parameters.dtype == "bf16" else torch.float32

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        found = net(batch[0].to(kind)).float()
        return functional.cross_entropy(found, batch[1], reduction="sum"), len(batch[1])

    source = partial(batches, x, y, seed, spoilt=spoilt)
    try:
        run(model, source, loss, replace(config, seed=seed))
    except NonFiniteError:
        return math.inf
    with torch.no_grad():
        return float(functional.cross_entropy(model(x[TRAIN:].to(kind)).float(), y[TRAIN:]))


def interval(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return mean and 95 % interval of paired differences."""
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    reach = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    return mean, mean - reach, mean + reach


class Trials:
    """Trains every config once per seed.

    Args:
        steps: Steps of a training.
    """

    def __init__(self, steps: int) -> None:
        self.x, self.y = digits()
        self.plain = RunConfig(steps=steps)
        self._known: dict[tuple[str, int, bool], float] = {}

    def losses(self, config: RunConfig, seeds: range, *, spoilt: bool) -> NDArray[np.float64]:
        """Return the held-out loss of each seed."""
        for seed in seeds:
            key = (str(config), seed, spoilt)
            if key not in self._known:
                self._known[key] = judged(config, self.x, self.y, seed, spoilt=spoilt)
        return np.array([self._known[str(config), seed, spoilt] for seed in seeds])

    def clipped(self, kind: Any, others: range) -> RunConfig:
        """Return SGD with clipping of a kind, at the rate that is best for other seeds."""
        clipping = ClippingConfig(kind=kind)
        found = [
            replace(
                self.plain,
                clipping=clipping,
                optimizer=OptimizerConfig(name="sgd", learning_rate=rate, weight_decay=0.0),
            )
            for rate in RATES
        ]
        return min(found, key=lambda c: float(self.losses(c, others, spoilt=True).mean()))

    def comparisons(self, others: range) -> dict[str, tuple[RunConfig, RunConfig, bool]]:
        """Return key -> (way beside it, way, whether batches are spoilt)."""
        small = replace(self.plain, optimizer=OptimizerConfig(learning_rate=3e-4))
        found: dict[str, tuple[RunConfig, RunConfig, bool]] = {}
        for rounding in ("nearest", "master", "kahan", "stochastic"):
            narrow = ParametersConfig(dtype="bf16", rounding=rounding)
            found[f"bf16_{rounding}"] = (small, replace(small, parameters=narrow), False)
        unclipped = self.clipped("none", others)
        for kind in ("norm", "agc", "auto"):
            found[f"clipping_{kind}"] = (unclipped, self.clipped(kind, others), True)
        level = replace(
            self.plain,
            schedule=ScheduleConfig(name="constant"),
            optimizer=OptimizerConfig(learning_rate=1e-2),
        )
        found["ema"] = (level, replace(level, ema=EmaConfig(decay=0.98)), False)
        return found


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    command = parser("training-parts", __doc__ or "")
    command.add_argument("--seeds", type=int, default=30, help="seeds (default 30)")
    command.add_argument("--steps", type=int, default=400, help="steps of a training (default 400)")
    args = command.parse_args(argv)
    count, steps = (2, 20) if args.smoke else (args.seeds, args.steps)
    seeds = range(args.seed, args.seed + count)
    others = range(args.seed + 1_000, args.seed + 1_000 + (1 if args.smoke else 3))
    figures: dict[str, float] = {}
    rows = []
    with threads(1):
        trials = Trials(steps)
        for key, (beside, way, spoilt) in trials.comparisons(others).items():
            before, after = (trials.losses(c, seeds, spoilt=spoilt) for c in (beside, way))
            mean, low, high = interval(after - before)
            figures |= {f"{key}_gap": mean, f"{key}_gap_low": low, f"{key}_gap_high": high}
            figures |= {f"{key}_worst_beside": before.max(), f"{key}_worst": after.max()}
            rates = [config.optimizer.learning_rate for config in (beside, way)]
            rows.append(
                (key, *rates, *(f"{v:.4f}" for v in (before.mean(), after.mean(), mean, low, high)))
            )
    table(
        f"cross-entropy on held-out digits, {count} seeds",
        ("part", "rate", "rate", "beside", "with", "gap", "low", "high"),
        rows,
    )
    emit(figures | {"seeds": count, "steps": steps}, args)


if __name__ == "__main__":
    run_program("training-parts", main)
