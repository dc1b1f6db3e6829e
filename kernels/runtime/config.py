"""Settings of a training run: one dataclass of each part's own."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from kernels.runtime.accumulation import AccumulationConfig
from kernels.runtime.checkpoint import CheckpointConfig
from kernels.runtime.clipping import ClippingConfig
from kernels.runtime.compensation import ParametersConfig
from kernels.runtime.compilation import CompileConfig
from kernels.runtime.cost import CostConfig
from kernels.runtime.ema import EmaConfig
from kernels.runtime.evaluation import EvaluationConfig
from kernels.runtime.finite import NonFiniteConfig
from kernels.runtime.memory import MemoryConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.parallel import ParallelConfig
from kernels.runtime.precision import PrecisionConfig
from kernels.runtime.schedule import ScheduleConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """How a model is trained; everything that decides the result is here.

    Attributes:
        steps: Optimizer steps.
        seed: Seed of initial noise, dropout and whatever draws in the loss or the batches.
        deterministic: Refuse operations of torch whose result depends on timing.
        optimizer: What updates the weights.
        schedule: Learning rate over the steps.
        clipping: Limit of the gradients.
        accumulation: What one step is made of.
        precision: Formats in which the model computes.
        memory: How activations are kept for the backward pass.
        compilation: How the model is executed: eager, compiled, exported.
        parameters: Format in which its parameters are kept.
        non_finite: What becomes of a step with NaN or infinity.
        ema: Average of the weights.
        evaluation: When the model is judged, and when that ends the run.
        checkpoint: When its state is saved, and where.
        cost: What an hour of the devices costs.
        parallel: How the run is spread over processes.
    """

    steps: int
    seed: int = 0
    deterministic: bool = False
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    clipping: ClippingConfig = field(default_factory=ClippingConfig)
    accumulation: AccumulationConfig = field(default_factory=AccumulationConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    compilation: CompileConfig = field(default_factory=CompileConfig)
    parameters: ParametersConfig = field(default_factory=ParametersConfig)
    non_finite: NonFiniteConfig = field(default_factory=NonFiniteConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        share, decay = self.clipping.share, self.optimizer.weight_decay
        if self.clipping.kind == "agc" and self.optimizer.name == "sgd" and share <= decay:
            raise ValueError(
                f"clipping.share {share} holds gradients below {share} of the weights, which decay "
                f"by optimizer.weight_decay {decay}: they would only shrink; decay less"
            )
        changed = self.memory != MemoryConfig() or self.precision.compute == "adaptive"
        if changed and self.compilation.mode != "eager":
            raise ValueError(
                f"compilation.mode is {self.compilation.mode!r}, but plans of memory and adaptive "
                "precision replace the forward passes that it would trace; give one of them"
            )
        if self.parallel.is_spread:
            self._require_spreadable()

    def identity(self) -> dict[str, Any]:
        """Return what a checkpoint must share with a run that goes on from it.

        Where and how often checkpoints are written does not change a result, nor what it costs,
        nor how it is spread; how gradients are compressed does.
        """
        found = asdict(self)
        compression = found.pop("parallel")["compression"]
        del found["checkpoint"], found["cost"]
        return found | {"compression": compression}

    def _require_spreadable(self) -> None:
        """Refuse what does not go together with a spread model, naming the fix.

        Raises:
            ValueError: Naming the setting.
        """
        parallel, compute = self.parallel, self.precision.compute
        cut = parallel.shard > 1 or parallel.tensor > 1
        wrong = {
            f"precision.compute={compute!r}; take 'fp32', 'tf32' or 'bf16'": (
                compute not in {"fp32", "tf32", "bf16"}
            ),
            "parameters.dtype='bf16'; leave them in fp32": self.parameters.dtype != "fp32",
            "parameters.optimizer_on='cpu'; take parallel.shard with parallel.offload": (
                self.parameters.optimizer_on == "cpu"
            ),
            f"compilation.mode={self.compilation.mode!r}; take 'eager'": (
                self.compilation.mode != "eager"
            ),
            "memory.packing, to_cpu, budget_mib or recompute='segments'; take 'full' or "
            "'selective'": not (
                self.memory.recompute in {"none", "full", "selective"}
                and self.memory.packing == "none"
                and not (self.memory.to_cpu or self.memory.budget_mib)
            ),
            "memory.recompute beside parallel.pipeline or context; leave it at 'none'": (
                max(parallel.pipeline, parallel.context) > 1 and self.memory.recompute != "none"
            ),
            "accumulation.max_parts above parts; one process out of memory would leave the others "
            "waiting": self.accumulation.max_parts > self.accumulation.parts,
            "clipping.kind='agc', whose units are cut; take 'norm' or 'auto'": (
                cut and self.clipping.kind == "agc"
            ),
        }
        told = [text for text, is_so in wrong.items() if is_so]
        if told:
            raise ValueError(
                "a model spread by parallel.shard, tensor, pipeline or context does not go with "
                + "; nor with ".join(told)
            )
