"""The pre-training as a job of the training runtime."""

from __future__ import annotations

from kernels.runtime.checkpoint import CheckpointConfig
from kernels.runtime.clipping import ClippingConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.ema import EmaConfig
from kernels.runtime.job import TrainingJob
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.precision import PrecisionConfig
from kernels.runtime.schedule import ScheduleConfig
from kernels.runtime.source import Batches
from tasks.defects.pretrain.heads import Pretrained, PretrainLoss
from tasks.defects.pretrain.images import Drawn
from tasks.defects.pretrain.recipe import PretrainConfig


def run_config(config: PretrainConfig) -> RunConfig:
    """Return the runtime's settings of a recipe."""
    return RunConfig(
        steps=config.steps,
        seed=config.seed,
        optimizer=OptimizerConfig(learning_rate=config.learning_rate, weight_decay=2e-2),
        schedule=ScheduleConfig(warmup=0.03),
        clipping=ClippingConfig(kind="norm", max_norm=5.0),
        precision=PrecisionConfig(compute=config.compute),  # type: ignore[arg-type]  # it checks
        ema=EmaConfig(decay=0.998),
        checkpoint=CheckpointConfig(every=config.checkpoint_every),
    )


def pretrain_job(
    config: PretrainConfig, model: Pretrained, batches: Batches[Drawn]
) -> TrainingJob[Drawn]:
    """Return the job; the model's ``net`` and ``mask`` are what is shipped."""
    return TrainingJob(
        model=model, batches=batches, loss=PretrainLoss(config), config=run_config(config)
    )
