"""A small search for the tests: which learning rate and width learn a sum best."""

from __future__ import annotations

import torch
from torch import nn

from kernels.runtime.checkpoint import CheckpointConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.evaluation import EvaluationConfig
from kernels.runtime.job import TrainingJob
from kernels.runtime.optimizer import OptimizerConfig
from kernels.tuning.asha import AshaConfig
from kernels.tuning.autotune import AutoTuneConfig
from kernels.tuning.space import Integer, Space, Uniform
from tests.kernels.runtime.small import batches, squared

STEPS = 16
SPACE = Space({"rate": Uniform(1e-4, 1.0, log=True), "width": Integer(2, 32, log=True)})


def search_config(trials, **more):
    asha = AshaConfig(first=2, last=STEPS)
    return AutoTuneConfig(**{"trials": trials, "startup": 4, "asha": asha} | more)


def make_model(width, seed=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))


def evaluate(model):
    x, y = batches(10_000)
    return float(((model(x) - y) ** 2).mean())


def build(parameters):
    return TrainingJob(
        model=make_model(parameters.get("width", 8)),
        batches=batches,
        loss=squared,
        evaluate=evaluate,
        config=RunConfig(
            steps=STEPS,
            optimizer=OptimizerConfig(learning_rate=parameters["rate"]),
            evaluation=EvaluationConfig(every=2),
            checkpoint=CheckpointConfig(every=8),
        ),
    )
