"""Number formats module by module, by the ranges that are measured while the net trains.

Every so many steps the inputs, outputs and output gradients of each module with weights are looked
at: which share of the values lies beyond the largest, or below the smallest number of its format.
Beyond a bearable share the module moves to the next wider format; after some clean looks at the
range of the narrower one it moves back. Only fp16 has a narrow range (6e-8 to 65,504); bf16 reaches
as far as fp32, so a module never needs more than one move from there for range's sake.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kernels.runtime.forward import replaced_forward

logger = logging.getLogger(__name__)

WIDTHS: tuple[tuple[str, torch.dtype], ...] = (
    ("fp16", torch.float16),
    ("bf16", torch.bfloat16),
    ("fp32", torch.float32),
)
"""Formats from narrow to wide."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A module changed its format.

    Attributes:
        step: 0-based step of the look.
        module: Its name.
        before: Format before.
        after: Format from now on.
        overflow: Share of values above the largest number of the format in question.
        underflow: Share of values, zeros left out, below its smallest.
    """

    step: int
    module: str
    before: str
    after: str
    overflow: float
    underflow: float

    def __str__(self) -> str:
        return (
            f"step {self.step + 1}: {self.module or 'the model'} {self.before} -> {self.after} "
            f"(overflow {self.overflow:.2%}, underflow {self.underflow:.2%})"
        )


@dataclass(slots=True)
class _Unit:
    """One module and what is known of it."""

    name: str
    module: nn.Module
    width: int
    clean: int = 0
    overflow: float = 0.0
    underflow: float = 0.0
    narrower: float = 0.0


class AdaptiveFormats:
    """Chooses a format for every module with weights of its own.

    Attributes:
        decisions: All changes, in order.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        *,
        every: int,
        share: float,
        patience: int,
        largest: Callable[[list[float]], list[float]] = list,
    ) -> None:
        """Begin with every module in the narrowest format.

        Args:
            model: The model.
            device: Where it computes.
            every: Steps between two looks.
            share: Bearable share of values out of range.
            patience: Looks in a row without a value out of the narrower format's range, after which
                a module goes back to it.
            largest: Returns the largest of each value over all processes, which then decide alike.
        """
        self.decisions: list[Decision] = []
        self._device = device
        self._every, self._share, self._patience = every, share, patience
        self._largest = largest
        self._units = [
            _Unit(name, module, 0)
            for name, module in model.named_modules()
            if any(True for _ in module.parameters(recurse=False))
        ]
        self._is_looking = self._is_alarmed = False

    @property
    def formats(self) -> dict[str, str]:
        """Return the format of each module by name."""
        return {unit.name: WIDTHS[unit.width][0] for unit in self._units}

    @property
    def needs_scale(self) -> bool:
        """Whether some module computes in fp16."""
        return any(unit.width == 0 for unit in self._units)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let modules compute in their formats inside."""
        with ExitStack() as stack:
            for unit in self._units:
                stack.enter_context(self._wrapped(unit))
            yield

    def begin(self, step: int) -> None:
        """Begin a step; it looks at the values if it is time, or the step before was spoilt."""
        self._is_looking = step % self._every == 0 or self._is_alarmed
        if self._is_looking:
            for unit in self._units:
                unit.overflow = unit.underflow = unit.narrower = 0.0

    def decide(self, step: int, *, overflow: bool) -> bool:
        """End a step: after a look, move modules.

        Args:
            step: 0-based step.
            overflow: Loss or gradients were not finite.

        Returns:
            Whether it can be left to the formats: a module became wider, or the next step looks.
        """
        looked, self._is_looking = self._is_looking, False
        if not looked:
            self._is_alarmed = overflow
            return overflow
        self._is_alarmed = False
        found = iter(
            self._largest([v for u in self._units for v in (u.overflow, u.underflow, u.narrower)])
        )
        for unit in self._units:
            unit.overflow, unit.underflow, unit.narrower = next(found), next(found), next(found)
        widths = sum(unit.width for unit in self._units)
        for unit in self._units:
            out = max(unit.overflow, unit.underflow)
            unit.clean = unit.clean + 1 if unit.narrower <= self._share else 0
            if out > self._share and unit.width + 1 < len(WIDTHS):
                self._move(unit, unit.width + 1, step)
            elif unit.width and unit.clean >= self._patience:
                self._move(unit, unit.width - 1, step)
        self._is_alarmed = overflow and sum(unit.width for unit in self._units) > widths
        return self._is_alarmed

    def state_dict(self) -> dict[str, Any]:
        """Return the formats and how long each was clean."""
        return {"units": {u.name: [u.width, u.clean] for u in self._units}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with saved formats."""
        for unit in self._units:
            unit.width, unit.clean = state["units"][unit.name]

    def _move(self, unit: _Unit, width: int, step: int) -> None:
        before, after = WIDTHS[unit.width][0], WIDTHS[width][0]
        found = Decision(step, unit.name, before, after, unit.overflow, unit.underflow)
        self.decisions.append(found)
        logger.info("%s", found)
        unit.width, unit.clean = width, 0

    @contextmanager
    def _wrapped(self, unit: _Unit) -> Iterator[None]:
        forward = unit.module.forward

        @functools.wraps(forward)
        def within(*inputs: Any, **named: Any) -> Any:
            dtype = WIDTHS[unit.width][1]
            wide = dtype is torch.float32
            if wide:
                inputs = tuple(_as_float(i) for i in inputs)
            context = (
                torch.autocast(self._device.type, enabled=False)
                if wide
                else torch.autocast(self._device.type, dtype)
            )
            with context:
                found = forward(*inputs, **named)
            if self._is_looking and torch.is_grad_enabled():
                self._look_at(unit, inputs, found)
            return found

        with replaced_forward(unit.module, within):
            yield

    def _look_at(self, unit: _Unit, inputs: tuple[Any, ...], found: Any) -> None:
        tensors = [i for i in inputs if isinstance(i, Tensor)]
        for value in tensors:
            self._look(unit, value)
        # What came in broken is not this module's doing.
        sound = all(bool(torch.isfinite(t).all()) for t in tensors)
        self._look(unit, found, broken=sound)
        if isinstance(found, Tensor) and found.requires_grad:
            hook = functools.partial(self._look, unit)
            found.register_hook(hook)  # type: ignore[no-untyped-call]  # torch's

    @torch.no_grad()
    def _look(self, unit: _Unit, value: Any, *, broken: bool = False) -> None:
        """Note the shares out of range of the unit's format, and of the next narrower one.

        Args:
            unit: The unit.
            value: What goes through it.
            broken: Count what is not finite as out of range.
        """
        if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
            return
        size = value.detach().abs().float()
        if not broken:
            size = torch.where(torch.isfinite(size), size, 0.0)
        over, under = out_of_range(size, WIDTHS[unit.width][1])
        unit.overflow, unit.underflow = max(unit.overflow, over), max(unit.underflow, under)
        if unit.width:
            unit.narrower = max(unit.narrower, *out_of_range(size, WIDTHS[unit.width - 1][1]))


def out_of_range(size: Tensor, dtype: torch.dtype) -> tuple[float, float]:
    """Return which shares of absolute values a format cannot hold.

    Returns:
        Share above its largest number (what is not finite counts), and share of all that are not
        zero below half its smallest, which would become zero.
    """
    limits = torch.finfo(dtype)
    smallest = limits.smallest_normal * limits.eps
    over = float((~(size <= limits.max)).float().mean())
    under = float(((size > 0) & (size < smallest / 2)).float().mean())
    return over, under


def _as_float(value: Any) -> Any:
    narrow = isinstance(value, Tensor) and value.dtype in {torch.float16, torch.bfloat16}
    return value.float() if narrow else value
