"""A job as a user writes it, and one that fails in its second process."""

from __future__ import annotations

import os
from functools import partial

import torch
from torch import nn

from kernels.runtime.checkpoint import CheckpointConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.evaluation import EvaluationConfig
from kernels.runtime.job import TrainingJob


def build(data):
    """Learn the sum of a file's rows."""
    lines = data.read_text().splitlines()
    rows = torch.tensor([[float(value) for value in line.split(",")] for line in lines])
    torch.manual_seed(0)

    def loss(model, batch):
        return (model(batch).squeeze(1) - batch.sum(1)).pow(2).sum(), len(batch)

    return TrainingJob(
        model=nn.Linear(2, 1),
        batches=lambda _: rows,
        loss=loss,
        config=RunConfig(
            steps=20,
            evaluation=EvaluationConfig(every=10),
            checkpoint=CheckpointConfig(every=10),
        ),
        evaluate=lambda model: float(loss(model, rows)[0]),
    )


def fail():
    """Fail where there is a second process, there."""
    if os.environ.get("RANK") == "1":
        raise ValueError("this process has no data")
    return build_nothing()


prepared = partial(build)


def build_nothing():
    """Do next to nothing."""
    return TrainingJob(
        model=nn.Linear(1, 1),
        batches=lambda _: torch.ones(2, 1),
        loss=lambda model, batch: (model(batch).sum(), len(batch)),
        config=RunConfig(steps=2),
    )
