"""The training loop, composed of parts that each have a file, a config and a measured effect.

A run is a pure function of (model, batches, loss, config): batches are asked for by index, so the
position of a run is one integer, and a killed run continues bit for bit from its checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Generic

import torch
from torch import Tensor, nn

from kernels.runtime import optimizer, run_state, trial
from kernels.runtime.accumulation import Accumulation, Retry, is_out_of_memory
from kernels.runtime.callbacks import Callback, StepMetrics, tell
from kernels.runtime.checkpoint import Checkpoints
from kernels.runtime.clipping import Clipper
from kernels.runtime.compensation import Compensation
from kernels.runtime.compilation import Compilation
from kernels.runtime.config import RunConfig
from kernels.runtime.cost import Cost, cost_of
from kernels.runtime.ema import Ema
from kernels.runtime.evaluation import Evaluate, Evaluation
from kernels.runtime.finite import NonFinite
from kernels.runtime.group import Group, local_of
from kernels.runtime.memory import Memory
from kernels.runtime.optimizer import OptimizerFactory
from kernels.runtime.optimizer_state import OptimizerState
from kernels.runtime.precision import Precision
from kernels.runtime.randomness import random_state, seeded, set_random_state
from kernels.runtime.report import Report
from kernels.runtime.run_state import Part
from kernels.runtime.schedule import factor_at
from kernels.runtime.source import Batch, Batches, batch_at
from kernels.runtime.spread import Spread
from kernels.runtime.termination import Termination

logger = logging.getLogger(__name__)

Loss = Callable[[nn.Module, Batch], tuple[Tensor, int]]
"""Returns the summed loss over the valid items of a batch, and how many there are."""


def run(
    model: nn.Module,
    batches: Batches[Batch],
    loss: Loss[Batch],
    config: RunConfig,
    callbacks: Sequence[Callback] = (),
    folder: Path | None = None,
) -> Report:
    """Train ``model`` in place and leave it in evaluation mode; see `Runner`."""
    return Runner(model, batches, loss, config, callbacks=callbacks, folder=folder).run()


class Runner(Generic[Batch]):
    """Trains one model.

    Attributes:
        model: The model.
        step: Steps finished.
        optimizer: Its optimizer.
        precision: Its number formats.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches[Batch],
        loss: Loss[Batch],
        config: RunConfig,
        *,
        callbacks: Sequence[Callback] = (),
        folder: Path | None = None,
        build_optimizer: OptimizerFactory | None = None,
        evaluate: Evaluate | None = None,
        split: Callable[[Batch, int], list[Batch]] | None = None,
    ) -> None:
        """Compose a run.

        Args:
            model: The model; its initial weights and its device are the caller's business.
            batches: Source of batches by index, see `source.from_loader` for data loaders.
            loss: Summed loss and item count of a batch.
            config: Settings.
            callbacks: Listeners, called after each step.
            folder: Folder of checkpoints. A whole checkpoint found there is continued from, a
                finished one only loaded.
            build_optimizer: Another optimizer than the config's, built from parameter groups.
            evaluate: Figure by which the model is judged, for early stopping and the best
                checkpoint.
            split: Cuts a batch into parts, where it is not made of tensors.

        Raises:
            ValueError: When settings do not go together.
        """
        if (config.evaluation.every or config.checkpoint.keep_best) and evaluate is None:
            raise ValueError("evaluation.every and checkpoint.keep_best need Runner(evaluate=...)")
        self.model, self.config, self.step = model, config, 0
        self._batches, self._loss, self._evaluate = batches, loss, evaluate
        self._group = Group.current()
        self._callbacks = callbacks if self._group.is_first else ()
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._spread = Spread(model, config.parallel, self._group)
        self._net = net = self._spread.model
        self.precision = Precision(config.precision, device, net, self._group.max)
        self._memory = Memory(config.memory, net)
        self._compilation = Compilation(config.compilation, net)
        apart = config.parameters.is_apart
        self._compensation = Compensation(net, config.parameters) if apart else None
        self._trained = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
        self.optimizer = self._make_optimizer(build_optimizer)
        self._peaks = [group["lr"] for group in self.optimizer.param_groups]
        self._clipper = Clipper(config.clipping)
        self._accumulation = Accumulation(config.accumulation, split)
        self._finite = NonFinite(config.non_finite)
        self._ema = Ema(self._spread, config.ema) if config.ema.decay else None
        self._evaluation = Evaluation(config.evaluation)
        self._termination = Termination()
        self._is_asked_to_end, self._wish = False, ""
        goal = config.evaluation.goal
        self._checkpoints = (
            Checkpoints(folder, config.checkpoint, config.steps, goal) if folder else None
        )

    def run(self) -> Report:
        """Train to the last step, or to where patience ends; the model is left in evaluation mode.

        Raises:
            NonFiniteError: Before an update that would spoil the weights.
            CheckpointError: When a checkpoint belongs to another run, or none can be written.
            SourceError: When batches end before the run does.
            StepTooLargeError: When a step does not fit into memory in the smallest parts allowed.
            Terminated: When SIGTERM came; the state is saved.
        """
        began = time.perf_counter(), time.process_time()
        noticed = self._termination.noticed() if self._checkpoints else contextlib.nullcontext()
        seed = self.config.seed + self._spread.layout.stream
        rescued = self._spread.rescued()
        with seeded(seed, deterministic=self.config.deterministic), noticed, rescued:
            self._spread.begin(self._compensation, self._ema)
            start = self._resume()
            ended = self.step == self.config.steps
            stopped = "" if ended else self._evaluation.out_of_patience
            try:
                if not (ended or stopped):
                    self._choose()
                self._net.train()
                with self.precision.switched(), self._memory.active(), self._compilation.active():
                    while self.step < self.config.steps and not stopped:
                        stopped = self._after_step(self._train_step())
                ended = self.step == self.config.steps
            finally:
                if self._checkpoints:
                    self._checkpoints.close(finished=ended and self._group.is_first)
            if stopped == "SIGTERM":
                self._termination.obey(
                    f"ended by SIGTERM after step {self.step}; run again to go on"
                )
        if self._ema:
            self._ema.apply()
        self._spread.finish()
        seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
        return self._report(self.step - start, stopped, cost_of(seconds, cpu, self.config.cost))

    def _train_step(self) -> StepMetrics:
        """Do one step; return its figures."""
        began = time.perf_counter()
        factor = factor_at(self.step, self.config.steps, self.config.schedule)
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        total, items, stall = self._gradients()
        mean, norm, updated = self._update(total, max(items, 1))
        self.step += 1
        seconds = max(time.perf_counter() - began, 1e-9)
        scale = self.precision.scale
        return StepMetrics(
            self.step,
            self.config.steps,
            mean,
            self.optimizer.param_groups[0]["lr"],
            norm,
            items,
            items / seconds,
            stall_seconds=stall,
            skipped=not updated,
            loss_scale=scale.value if scale else 1.0,
        )

    def _gradients(self) -> tuple[float, int, float]:
        """Sum up the gradients of a step; return summed loss, items, and seconds without data.

        Of several processes each takes its part of every batch; loss, items and gradients are the
        sums over all of them, and what they decide is decided alike.
        """
        accumulation = self._accumulation
        retry = Retry(self._net) if accumulation.may_halve else None
        while True:
            for _, parameter in self._trained:
                parameter.grad = None
            self.precision.begin(self.step)
            failure: Exception | None = None
            try:
                total, items, stall = self._own_gradients()
            except Exception as error:
                if retry is None or not is_out_of_memory(error):
                    raise
                failure = error
            if retry is None or not self._group.is_any(failure is not None):
                break
            accumulation.halve(failure, self.step)
            retry.put_back()
        self.precision.unscale([p.grad for _, p in self._trained if p.grad is not None])
        asked = float(self._termination.is_asked)
        own = (float(total), items) if self._spread.layout.counts else (0.0, 0)
        loss, count, ending = self._group.sum(*own, asked)
        self._spread.sum_gradients([p for _, p in self._trained])
        self._is_asked_to_end = ending > 0
        return loss, int(count), stall

    def _own_gradients(self) -> tuple[Tensor, int, float]:
        """Sum up this process's share."""
        total, items, stall = torch.zeros(()), 0, 0.0
        per_step = self.config.accumulation.batches
        for index in range(self.step * per_step, (self.step + 1) * per_step):
            waited = time.perf_counter()
            batch = batch_at(self._batches, index, self.step)
            stall += time.perf_counter() - waited
            cut = self._accumulation
            for micro in self._spread.parts_of(batch, cut.parts_of, cut.parts, self._loss):
                value, count = self._forward_and_backward(micro)
                total, items = total + value, items + count
        return total, items, stall

    def _forward_and_backward(self, micro: list[Batch]) -> tuple[Tensor, int]:
        """Compute a part, which goes through a pipeline in micro-batches, or is a single one."""
        found = self._spread.through_pipeline(micro, self._loss, self.precision.autocast)
        if found is None:
            value, count = self._forward(micro[0])
            self._backward(value, count)
            found = value.detach(), count
        return found

    def _forward(self, batch: Batch) -> tuple[Tensor, int]:
        with self._memory.saving(), self.precision.autocast(), self._spread.attending():
            value, count = self._loss(self._net, batch)
        if value.ndim or not value.requires_grad:
            raise ValueError(
                f"the loss returned a tensor of shape {tuple(value.shape)}"
                f"{'' if value.requires_grad else ' without gradient'}; return the sum over all "
                "items, computed from the model's parameters, and the number of items"
            )
        return value, int(count)

    def _backward(self, value: Tensor, count: int) -> None:
        self.precision.scaled(value, count).backward()  # type: ignore[no-untyped-call]  # torch's

    def _update(self, total: float, items: int) -> tuple[float, float, bool]:
        """Update the weights; return mean loss, gradient norm before clipping, and whether."""
        if self._compensation:
            self._compensation.begin()
        held = self._held()
        gradients = [gradient for _, _, gradient in held]
        # Parts may hold different numbers of valid items: divide once, by all of them.
        torch._foreach_div_(gradients, float(items))
        norm = self._spread.norm([name for name, _, _ in held], gradients)
        mean = total / items
        is_finite = math.isfinite(mean) and math.isfinite(norm)
        if is_finite:
            self._clipper(held, norm)
            with self._spread.lent():
                self.optimizer.step()
            self._finite.updated()
        if self._compensation:
            self._compensation.finish() if is_finite else self._compensation.drop()
        searching = self.precision.end(
            self.step, loss_is_finite=math.isfinite(mean), overflow=not is_finite
        )
        if not is_finite:
            expected = self._group.is_any(searching)
            self._finite.skip(self.step, mean, norm, expected=expected)
        elif self._ema:
            self._ema.update()
        return mean, norm, is_finite

    def _held(self) -> list[tuple[str, Tensor, Tensor]]:
        """Return name, parameter and gradient of all that the optimizer updates."""
        shadows = self._compensation.shadows if self._compensation else {}
        pairs: list[tuple[str, Tensor]] = [(name, shadows.get(p, p)) for name, p in self._trained]
        held = [(name, p, local_of(p.grad)) for name, p in pairs if p.grad is not None]
        if len(held) < len(pairs) and self.step == 0:
            optimizer.warn_of_unused([name for name, p in pairs if p.grad is None])
        return held

    def _after_step(self, metrics: StepMetrics) -> str:
        """Evaluate, save and tell; return why the run is to end, "" if it is not."""
        stopped = "SIGTERM" if self._is_asked_to_end else ""
        every, last = self.config.evaluation.every, self.step == self.config.steps
        if self._evaluate and (last or (every and self.step % every == 0)):
            metrics = replace(metrics, metric=self._judge(self._evaluate))
            stopped = stopped or ("" if last else self._evaluation.out_of_patience)
        is_best = metrics.metric is not None and self._evaluation.best_step == self.step
        wanted = bool(stopped) or (is_best and self.config.checkpoint.keep_best > 0)
        saved = self._checkpoints.due(self.step, wanted=wanted) if self._checkpoints else []
        self._save(saved, metrics.metric)
        self._wish = tell(self._callbacks, metrics, self._wish)
        if not stopped and (self._group.size == 1 or metrics.metric is not None):
            stopped = "".join(self._group.gather(self._wish))
            if stopped and self._checkpoints and self._checkpoints.folder not in saved:
                self._save([self._checkpoints.folder], metrics.metric)
        return stopped

    def _save(self, folders: list[Path], metric: float | None) -> None:
        """Save the state of now; all processes do it together, the first one writes."""
        if self._checkpoints and folders:
            now = self.step, self.config, self._spread, self._parts(), self._group
            state = run_state.collect(*now)
            if self._group.is_first:
                self._checkpoints.save(folders, self.step, state, metric)

    @torch.no_grad()
    def _judge(self, evaluate: Evaluate) -> float:
        random = random_state()
        averaged = self._ema.used() if self._ema else contextlib.nullcontext()
        with averaged, self._spread.evaluated() as whole:
            # One judges for all, so that all stop alike.
            figure = float(evaluate(whole)) if self._group.is_first else 0.0
        (figure,) = self._group.sum(figure)
        set_random_state(random)
        self._evaluation.note(figure, self.step)
        return figure

    def _choose(self) -> None:
        """Let what is to be measured be measured on the first batch, leaving no trace."""
        if self.precision.is_chosen and self._memory.is_chosen and self._compilation.is_chosen:
            return
        batch = batch_at(self._batches, self.step * self.config.accumulation.batches, self.step)
        part = self._accumulation.parts_of(batch)[0]
        self._net.train()
        choosers = self._net, self.precision, self._memory, self._compilation
        left = range(self.step, self.config.steps)
        trial.choose(choosers, self._group, lambda: self._forward(part), self._backward, left)

    def _make_optimizer(self, build: OptimizerFactory | None) -> torch.optim.Optimizer:
        groups = optimizer.parameter_groups(self._net, self.config.optimizer.weight_decay)
        if self._compensation:
            groups = self._compensation.shadow(groups)
        elif build is None:
            groups = self._spread.local(groups)
        return optimizer.build(self.config.optimizer, groups, build)

    def _parts(self) -> dict[str, Part]:
        """Return the parts with a state of their own, by name."""
        others = self._compensation.shadows if self._compensation else self._spread.parts
        names = {id(others.get(p, p)): name for name, p in self._trained}
        found: dict[str, Part | None] = {
            "optimizer": OptimizerState(self.optimizer, names, self._spread),
            "precision": self.precision,
            "memory": self._memory,
            "compilation": self._compilation,
            "compensation": self._compensation,
            "clipping": self._clipper,
            "accumulation": self._accumulation,
            "non_finite": self._finite,
            "ema": self._ema,
            "evaluation": self._evaluation,
        }
        return {name: part for name, part in found.items() if part is not None}

    def _resume(self) -> int:
        """Go on from the newest checkpoint, if there is one; return the steps finished before."""
        found = self._checkpoints.newest() if self._checkpoints and self._group.is_first else None
        # A process could see another newest one, where a disk is slow: the first one's counts.
        place = self._group.gather(str(found.path) if found else "")[0]
        if place:
            now = self.config, self._spread, self._parts(), self._group
            self.step = run_state.restore(Path(place), *now)
            logger.info("going on at step %d of %d from %s", self.step, self.config.steps, place)
        return self.step

    def _report(self, steps: int, stopped: str, cost: Cost) -> Report:
        return Report(
            steps,
            self.step,
            stopped,
            self._evaluation.best,
            self._evaluation.best_step,
            self._finite.skipped,
            cost,
            self._checkpoints.blocked_seconds if self._checkpoints else 0.0,
            self.precision.compute,
        )
