"""Population-based training: models train side by side, hyper-parameters change on the way.

After every interval the worst take over weights and optimizer of the best and go on with perturbed
hyper-parameters. So what is found is no set of parameters but a schedule of them, in the time of
one training per member (Jaderberg et al. 2017, see `explore`).
"""

from __future__ import annotations

import copy
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from kernels.runtime import checkpoint_files, optimizer
from kernels.runtime.callbacks import StepMetrics, StopRun
from kernels.runtime.checkpoint_files import CheckpointError
from kernels.runtime.evaluation import EvaluationConfig
from kernels.runtime.finite import NonFiniteError
from kernels.runtime.job import TrainingJob
from kernels.runtime.packing import pack
from kernels.runtime.runner import Runner
from kernels.tuning.explore import copies, perturbed
from kernels.tuning.space import Parameters, Space

logger = logging.getLogger(__name__)

BuildMember = Callable[[Mapping[str, Any], int], TrainingJob[Any]]
"""Builds the training of a member from its parameters and number; weights may differ by number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationConfig:
    """How many train, how long, and how they learn from each other.

    Attributes:
        steps: Optimizer steps of each member.
        interval: Steps between two comparisons.
        members: Models that train side by side.
        share: Share at the bottom that copies from the same share at the top.
        redraw: Chance that a copied hyper-parameter is drawn anew instead of perturbed.
        goal: Whether a low (``min``) or a high (``max``) figure is good.
        seed: Seed of the first parameters and of all changes.
    """

    steps: int
    interval: int
    members: int = 8
    share: float = 0.25
    redraw: float = 0.1
    goal: Literal["min", "max"] = "min"
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.members < 2:
            raise ValueError(f"a population needs members of 2 or more, got {self.members}")
        if not 1 <= self.interval < self.steps:
            raise ValueError(
                f"interval must lie in [1, steps), got {self.interval} of {self.steps}; "
                "without a comparison on the way nothing ever changes"
            )
        if not 0 < self.share <= 0.5 or not 0 <= self.redraw <= 1:
            raise ValueError(
                f"share must lie in (0, .5] and redraw in [0, 1], got {self.share} and "
                f"{self.redraw}"
            )
        if self.goal not in {"min", "max"}:
            raise ValueError(f"goal is {self.goal!r}; take 'min' or 'max'")


@dataclass(slots=True)
class Member:
    """One model of the population.

    Attributes:
        parameters: Its hyper-parameters now.
        value: Its figure at the last comparison; NaN before, and where it diverged.
        schedule: Finished steps and the parameters from there on, those of whom it copied included.
        model: Weights and buffers; None before the first step.
        optimizer: State of its optimizer.
    """

    parameters: Parameters
    value: float = math.nan
    schedule: list[tuple[int, Parameters]] = field(default_factory=list)
    model: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PopulationReport:
    """What came of a population.

    Attributes:
        best: The best member; its ``model`` goes into ``load_state_dict``.
        members: All of them.
        copied: How often a member took over another.
    """

    best: Member
    members: list[Member]
    copied: int


class Population:
    """Trains several models and lets them learn from each other."""

    def __init__(
        self,
        space: Space,
        build: BuildMember,
        config: PopulationConfig,
        *,
        folder: Path | None = None,
    ) -> None:
        """Draw the first parameters.

        Args:
            space: Hyper-parameters that may change during a training: rates, decays, dropout,
                batch, not the shape of the model.
            build: Builds a member's training; its steps come from ``config``, and the schedule of
                its `RunConfig` goes over all of them.
            config: Settings.
            folder: Folder of checkpoints, one after each comparison; a population found there is
                gone on with.
        """
        self.space, self.config = space, config
        self._build, self._folder = build, folder
        generator = np.random.default_rng([config.seed, 0])
        self.members = [Member(space.draw(generator)) for _ in range(config.members)]
        self._copied = 0

    def run(self) -> PopulationReport:
        """Train to the last step.

        Raises:
            ValueError: When a training has parts that cannot be handed on, or models differ.
            CheckpointError: When the folder holds another population.
            RuntimeError: When every member diverged.
        """
        start = self._resume()
        while start < self.config.steps:
            end = min(start + self.config.interval, self.config.steps)
            for number, member in enumerate(self.members):
                self._train(number, member, start, end)
            if end < self.config.steps:
                self._learn_from_each_other(end)
            self._save(end)
            start = end
        sign = self._sign
        alive = [m for m in self.members if math.isfinite(m.value)]
        if not alive:
            raise RuntimeError(
                "every member diverged; lower the upper end of the learning rate in the space"
            )
        return PopulationReport(
            min(alive, key=lambda m: sign * m.value), self.members, self._copied
        )

    @property
    def _sign(self) -> float:
        return 1.0 if self.config.goal == "min" else -1.0

    def _train(self, number: int, member: Member, start: int, end: int) -> None:
        """Train a member from one comparison to the next."""
        training = self._build(member.parameters, number)
        _require_plain(training)
        if not member.schedule:
            member.schedule.append((0, dict(member.parameters)))
        if member.model is not None:
            _load(training.model, member.model, member.parameters)
        config = training.config
        segment = replace(
            config,
            steps=self.config.steps,
            seed=int(np.random.SeedSequence([config.seed, number, start]).generate_state(1)[0]),
            evaluation=EvaluationConfig(every=self.config.interval, goal=self.config.goal),
        )
        handed_on = _HandedOn(segment.optimizer, member.optimizer)
        runner = Runner(
            training.model,
            training.batches,
            training.loss,
            segment,
            callbacks=[_Until(end)],
            build_optimizer=handed_on,
            evaluate=training.evaluate,
            split=training.split,
        )
        runner.step = start  # so batches and schedule are those of the whole
        try:
            report = runner.run()
        except NonFiniteError as error:
            logger.info("member %d diverged: %s", number, error)
            member.value = math.nan
            return
        member.value = math.nan if report.best is None else report.best
        member.model = training.model.state_dict()
        member.optimizer = handed_on.state_dict()

    def _learn_from_each_other(self, step: int) -> None:
        generator = np.random.default_rng([self.config.seed, step])
        values = [self._sign * m.value for m in self.members]
        for number, source in copies(values, self.config.share, generator).items():
            good = self.members[source]
            parameters = perturbed(good.parameters, self.space, self.config.redraw, generator)
            self.members[number] = Member(
                parameters,
                good.value,
                [*good.schedule, (step, parameters)],
                copy.deepcopy(good.model),
                copy.deepcopy(good.optimizer),
            )
            self._copied += 1
            logger.info("step %d: member %d takes over %d, %s", step, number, source, parameters)

    def _identity(self) -> dict[str, Any]:
        chosen = self.config
        return {
            "space": self.space.describe(),
            "config": [chosen.steps, chosen.interval, chosen.members, chosen.share, chosen.redraw],
            "goal": chosen.goal,
            "seed": chosen.seed,
        }

    def _save(self, step: int) -> None:
        if self._folder is None:
            return
        members = [
            {
                "parameters": m.parameters,
                "value": m.value if math.isfinite(m.value) else None,
                "schedule": [list(each) for each in m.schedule],
                "model": m.model,
                "optimizer": m.optimizer,
            }
            for m in self.members
        ]
        state = {"identity": self._identity(), "members": members, "copied": self._copied}
        plain, tensors = pack(state)
        best = min((self._sign * m.value for m in self.members), default=math.nan)
        metric = self._sign * best if math.isfinite(best) else None
        on_cpu = {name: tensor.cpu() for name, tensor in tensors.items()}
        checkpoint_files.write(self._folder, step, plain, on_cpu, metric)
        for old in checkpoint_files.stored_in(self._folder)[:-2]:
            shutil.rmtree(old.path, ignore_errors=True)

    def _resume(self) -> int:
        """Take up the newest undamaged checkpoint; return its steps."""
        found = checkpoint_files.stored_in(self._folder) if self._folder else []
        for stored in reversed(found):
            wrong = checkpoint_files.damage(stored.path)
            if wrong:
                logger.warning("checkpoint %s is passed over: %s", stored.path, wrong)
                continue
            state = checkpoint_files.read(stored.path)
            if state.get("identity") != self._identity():
                raise CheckpointError(
                    f"checkpoint {stored.path} belongs to a population with other settings; "
                    "delete it, or give this one a folder of its own"
                )
            self._copied = int(state["copied"])
            self.members = [
                Member(
                    m["parameters"],
                    math.nan if m["value"] is None else float(m["value"]),
                    [(int(step), parameters) for step, parameters in m["schedule"]],
                    m["model"],
                    m["optimizer"],
                )
                for m in state["members"]
            ]
            return stored.step
        if found:
            raise CheckpointError(
                f"every checkpoint in {self._folder} is damaged; delete them to begin anew"
            )
        return 0


class _Until:
    """Ends a run at the next comparison."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step(self, metrics: StepMetrics) -> None:
        if metrics.step == self._step < metrics.steps:
            raise StopRun("the members are compared")


class _HandedOn:
    """Builds the config's optimizer, which goes on from a state with new settings."""

    def __init__(self, config: optimizer.OptimizerConfig, state: dict[str, Any] | None) -> None:
        self._config, self._state = config, state
        self._made: torch.optim.Optimizer | None = None

    def __call__(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        made = self._made = optimizer.build(self._config, groups)
        if self._state is not None:
            settings = [{k: v for k, v in g.items() if k != "params"} for g in made.param_groups]
            made.load_state_dict(self._state)
            for group, new in zip(made.param_groups, settings, strict=True):
                group.update(new)
        return made

    def state_dict(self) -> dict[str, Any]:
        """Return the state to hand on."""
        return self._made.state_dict() if self._made else {}


def _load(model: nn.Module, state: dict[str, Any], parameters: Parameters) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"with {parameters} the model has another shape ({error}); leave what shapes it out "
            "of a population's space and search it by AutoTune"
        ) from error


def _require_plain(training: TrainingJob[Any]) -> None:
    """Refuse what cannot be judged, and settings whose state would be lost on the way."""
    if training.evaluate is None:
        raise ValueError("the training has no evaluate; give TrainingJob the figure that counts")
    config = training.config
    lost = {
        "build_optimizer": training.build_optimizer is not None,
        "ema.decay": bool(config.ema.decay),
        "parameters.dtype": config.parameters.dtype != "fp32",
        "precision.compute='fp16'": config.precision.compute == "fp16",
        "clipping.kind='auto'": config.clipping.kind == "auto",
    }
    found = [name for name, is_set in lost.items() if is_set]
    if found:
        raise ValueError(
            f"a population hands on weights and optimizer alone; leave out {', '.join(found)}"
        )
