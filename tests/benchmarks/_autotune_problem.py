"""The training that `autotune` searches: a network learns a random network's function of a table.

16 inputs, a teacher of 64 tanh units with
standard normal weights, noise of a tenth of the target's spread; 2,048 rows to learn from, 2,048 to
judge by, 4,096 to test the winner. The figure is the share of the variance left unexplained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kernels.runtime.config import RunConfig
from kernels.runtime.evaluation import EvaluationConfig
from kernels.runtime.job import TrainingJob
from kernels.runtime.optimizer import OptimizerConfig
from kernels.tuning.space import Choice, Integer, Space, Uniform, Value

SPACE = Space(
    {
        "learning_rate": Uniform(1e-4, 1.0, log=True),
        "width": Integer(8, 256, log=True),
        "batch": Choice((16, 32, 64, 128)),
        "weight_decay": Uniform(1e-5, 1.0, log=True),
        "dropout": Uniform(0.0, 0.5),
    }
)
# As one would lay it out by hand: every decade of the rate, every batch, few of the others.
GRID = {"learning_rate": 5, "width": 3, "weight_decay": 2, "dropout": 2}

Table = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Problem:
    """Rows to learn from, to judge by and to test on.

    Attributes:
        train: Inputs [n, 16] and targets [n].
        valid: The same of other rows.
        test: The same of yet other rows.
        steps: Optimizer steps of a whole trial.
        every: Steps between two evaluations.
    """

    train: Table
    valid: Table
    test: Table
    steps: int
    every: int

    def build(self, parameters: Mapping[str, Value], seed: int) -> TrainingJob[Table]:
        """Return a training with these parameters; first weights and batches by the seed."""
        batch, config = int(parameters["batch"]), self.config(parameters, seed)
        return TrainingJob(
            model=make_model(parameters, seed),
            batches=lambda index: self.rows(batch, index, seed),
            loss=loss,
            evaluate=lambda model: error(model, self.valid),
            config=config,
        )

    def config(self, parameters: Mapping[str, Value], seed: int) -> RunConfig:
        """Return the settings of a run."""
        return RunConfig(
            steps=self.steps,
            seed=seed,
            optimizer=OptimizerConfig(
                learning_rate=float(parameters["learning_rate"]),
                weight_decay=float(parameters["weight_decay"]),
            ),
            evaluation=EvaluationConfig(every=self.every),
        )

    def rows(self, batch: int, index: int, seed: int) -> Table:
        """Return a batch drawn with replacement."""
        generator = torch.Generator().manual_seed(1_000_003 * seed + index)
        chosen = torch.randint(len(self.train[0]), (batch,), generator=generator)
        return self.train[0][chosen], self.train[1][chosen]


def make_problem(seed: int, *, steps: int, every: int) -> Problem:
    """Return the tables of a seed."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.randn(16, 64, generator=generator) / 4
    outer = torch.randn(64, generator=generator)
    x = torch.randn(8_192, 16, generator=generator)
    y = (2 * x @ inner).tanh() @ outer
    y = (y - y.mean()) / y.std() + 0.1 * torch.randn(len(x), generator=generator)
    cuts = x.split([2_048, 2_048, 4_096]), y.split([2_048, 2_048, 4_096])
    train, valid, test = zip(*cuts, strict=True)
    return Problem(train, valid, test, steps, every)


def make_model(parameters: Mapping[str, Value], seed: int) -> nn.Module:
    """Return a network of two hidden layers."""
    width, dropout = int(parameters["width"]), float(parameters["dropout"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(16, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, 1),
        )


def loss(model: nn.Module, batch: Table) -> tuple[Tensor, int]:
    """Return the squared error and the number of rows."""
    x, y = batch
    return ((model(x)[:, 0] - y) ** 2).sum(), len(x)


def error(model: nn.Module, table: Table) -> float:
    """Return the share of the variance of the targets that is left unexplained."""
    x, y = table
    with torch.no_grad():
        return float(((model(x)[:, 0] - y) ** 2).mean() / y.var())
