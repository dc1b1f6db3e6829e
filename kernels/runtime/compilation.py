"""How a model's forward and backward pass is executed: eager, compiled or exported, by measuring.

``torch.compile`` fuses what it can trace; ``torch.export`` takes the whole forward pass as one
graph and leaves Python's share of it out. Neither is faster everywhere: on CPUs a training step is
often slower compiled, and compiling takes its time first. ``auto`` measures both on the first
batch and keeps the fastest over a resume.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kernels.runtime.exported import Exported
from kernels.runtime.forward import replaced_forward
from kernels.runtime.graph_breaks import GraphBreak, graph_breaks
from kernels.runtime.group import Group

logger = logging.getLogger(__name__)

Mode = Literal["eager", "compile", "export"]
ROUNDS = 5


class CompileError(RuntimeError):
    """A model cannot be compiled or exported here; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileConfig:
    """How a model is executed.

    Attributes:
        mode: ``eager``, ``compile`` (torch.compile), ``export`` (torch.export), or ``auto``: the
            one with which the rest of the run takes the least time.
        backend: What compiles; ``inductor`` writes C++ or Triton, ``aot_eager`` only traces.
        expected_seconds: Seconds that compiling is taken to last before it is measured. ``auto``
            does not try it where the whole rest of the run takes less.
    """

    mode: Literal["eager", "compile", "export", "auto"] = "eager"
    backend: str = "inductor"
    expected_seconds: float = 20.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.mode not in {"eager", "compile", "export", "auto"}:
            raise ValueError(
                f"compilation.mode is {self.mode!r}; take 'eager', 'compile', 'export' or 'auto'"
            )
        if not self.backend:
            raise ValueError("compilation.backend is empty; take 'inductor'")
        if not 0 <= self.expected_seconds < math.inf:
            raise ValueError(
                f"compilation.expected_seconds is {self.expected_seconds}; give 0 or more seconds"
            )


@dataclass(frozen=True, slots=True)
class Trial:
    """What was measured of a way to execute a step.

    Attributes:
        first_seconds: The first step, compiling included.
        step_seconds: The shortest of the steps after it; infinite when the loss was not finite.
    """

    first_seconds: float
    step_seconds: float

    @property
    def compile_seconds(self) -> float:
        """Seconds of the first step beyond an ordinary one."""
        return max(self.first_seconds - self.step_seconds, 0.0)


class Compilation:
    """Executes a model in a way that is given or measured.

    Only training steps are compiled: evaluation would have everything compiled a second time.

    Attributes:
        mode: The way in use.
        is_chosen: Whether nothing is left to measure.
        trials: What was measured, by mode.
        breaks: Where tracing stops and Python goes on, if a compiled mode was looked at.
    """

    def __init__(self, config: CompileConfig, model: nn.Module) -> None:
        """Prepare.

        Raises:
            CompileError: When ``compile`` is asked for, and this machine has no compiler for it.
        """
        self.config, self._model = config, model
        self.mode: Mode = "eager" if config.mode == "auto" else config.mode
        self.is_chosen = config.mode in {"eager", "export"}
        self.trials: dict[Mode, Trial] = {}
        self.breaks: tuple[GraphBreak, ...] = ()
        self._made: dict[Mode, Callable[..., Any]] = {}
        missing = missing_compiler(config.backend, _device(model))
        if config.mode == "compile" and missing:
            raise CompileError(f"compilation.mode is 'compile', but {missing}")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Execute the model's training steps in the chosen way inside."""
        with self._executed(self.mode):
            yield

    def choose(self, step: Callable[[], Tensor], steps: int, group: Group | None = None) -> None:
        """Name the graph breaks, and for ``auto`` take the way that ends the run first.

        Compiling counts before it is spent: it is not tried where all steps that remain take less
        time in eager mode than compiling is expected to. Once tried it is paid for, and the ways
        are compared by the time of the remaining steps.

        Args:
            step: Forward and backward pass of the first batch, without a trace; returns the loss.
            steps: Steps that remain.
            group: Processes of the run; they measure different times, the first one's choice is
                everybody's.
        """
        if self.is_chosen:
            return
        self.is_chosen = True
        if self.config.mode == "compile":
            self._find_breaks(step)
            return
        firsts: dict[Mode, float] = {"eager": self._timed("eager", step)}
        second = self._timed("eager", step)
        left = steps * second
        missing = missing_compiler(self.config.backend, _device(self._model))
        if left <= self.config.expected_seconds:
            logger.info("not compiled: the rest of the run takes %.1f s, compiling longer", left)
        else:
            if missing:
                logger.info("torch.compile is not tried: %s", missing)
            else:
                self._try("compile", step, firsts)
            self._try("export", step, firsts)
        self.trials = self._compared(firsts, second, step)
        self.mode = min(self.trials, key=lambda mode: self.trials[mode].step_seconds)
        if group is not None:
            self.mode = group.gather(self.mode)[0]
        if len(self.trials) == 1:
            return
        told = ", ".join(
            f"{mode} {1e3 * t.step_seconds:.2f} ms a step (made in {t.compile_seconds:.1f} s)"
            for mode, t in self.trials.items()
        )
        logger.info("executing in %s mode for %d steps: %s", self.mode, steps, told)

    def state_dict(self) -> dict[str, Any]:
        """Return the mode."""
        return {"mode": self.mode}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the mode of before: another one rounds otherwise."""
        self.mode, self.is_chosen = state["mode"], True

    def _try(self, mode: Mode, step: Callable[[], Tensor], firsts: dict[Mode, float]) -> None:
        """Do a first step; a way that this model or machine does not bear is told and left out."""
        try:
            if mode == "compile":
                self._find_breaks(step)
            firsts[mode] = self._timed(mode, step)
        except CompileError as error:
            logger.warning("%s is left out: %s", mode, error)

    def _compared(
        self, firsts: dict[Mode, float], eager: float, step: Callable[[], Tensor]
    ) -> dict[Mode, Trial]:
        """Time the ways in turns, so that what else the machine does meets all of them."""
        shortest: dict[Mode, float] = dict.fromkeys(firsts, math.inf) | {"eager": eager}
        if len(firsts) > 1:
            for _ in range(ROUNDS):
                for mode in firsts:
                    shortest[mode] = min(shortest[mode], self._timed(mode, step))
        return {mode: Trial(first, shortest[mode]) for mode, first in firsts.items()}

    def _timed(self, mode: Mode, step: Callable[[], Tensor]) -> float:
        """Return the seconds of a step, infinite when its loss is not finite."""
        with self._executed(mode):
            began = time.perf_counter()
            loss = step()
            if loss.device.type == "cuda":
                torch.cuda.synchronize(loss.device)
            seconds = time.perf_counter() - began
        return seconds if bool(torch.isfinite(loss)) else math.inf

    def _find_breaks(self, step: Callable[[], Tensor]) -> None:
        forward = self._model.forward
        seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def noted(*args: Any, **kwargs: Any) -> Any:
            seen.append((args, kwargs))
            return forward(*args, **kwargs)

        with replaced_forward(self._model, noted):
            step()
        if not seen:
            return
        args, kwargs = seen[0]
        with _failures_told():
            self.breaks = graph_breaks(forward, *args, **kwargs)
        for each in self.breaks:
            logger.warning("graph break at %s", each)
        if not self.breaks:
            logger.info("the model is one graph, without a break")

    @contextmanager
    def _executed(self, mode: Mode) -> Iterator[None]:
        if mode == "eager":
            yield
            return
        eager = self._model.forward
        if mode not in self._made:
            made: Callable[..., Any] = (
                _compiled(eager, self.config.backend)
                if mode == "compile"
                else Exported(self._model, CompileError)
            )
            self._made[mode] = made
        other = self._made[mode]

        def forward(*args: Any, **kwargs: Any) -> Any:
            return (other if self._model.training else eager)(*args, **kwargs)

        with replaced_forward(self._model, forward):
            yield


def missing_compiler(backend: str, device: torch.device) -> str:
    """Return what compiling lacks on this machine, "" for nothing.

    Inductor writes C++ for CPUs and hands it to ``$CXX``, or to what it finds by its usual name.
    """
    if backend != "inductor" or device.type != "cpu":
        return ""
    named = os.environ.get("CXX", "")
    wanted = (named,) if named else ("g++", "clang++")
    if any(shutil.which(name) for name in wanted):
        return ""
    return (
        f"torch.compile needs a C++ compiler, and there is no {' or '.join(wanted)}; install g++ "
        "(and Python's headers) or take mode 'eager'"
    )


def _compiled(forward: Callable[..., Any], backend: str) -> Callable[..., Any]:
    with _failures_told():
        made = torch.compile(forward, backend=backend)

    def call(*args: Any, **kwargs: Any) -> Any:
        with _failures_told():
            return made(*args, **kwargs)

    return call


@contextmanager
def _failures_told() -> Iterator[None]:
    """Turn what torch.compile raises inside into a `CompileError`; the model's own errors pass."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise CompileError(
            f"torch.compile failed ({first[0]}); mend what it names, or take compilation.mode "
            "'eager'"
        ) from error


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
