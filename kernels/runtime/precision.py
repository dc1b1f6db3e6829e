"""Number formats of a run: autocast, loss scaling, and the choice between them by measuring.

Micikevicius et al., "Mixed precision training", 2018 (fp16 with a scaled loss); Kalamkar et al.,
"A study of bfloat16 for deep learning training", 2019. Measured, not assumed: on CPUs without
matrix units for bf16 a step in bf16 takes longer than one in fp32.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kernels.runtime.adaptive_precision import AdaptiveFormats
from kernels.runtime.loss_scale import LossScale

logger = logging.getLogger(__name__)

Format = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "adaptive"]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
FP8_CAPABILITY = (8, 9)
TRIALS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionConfig:
    """In which formats a model computes.

    Attributes:
        compute: Format of matrix products. ``auto`` measures a step in each that the device has
            and takes the fastest; ``adaptive`` chooses for every module by the ranges of its values
            (`adaptive_precision`). ``tf32`` concerns GPUs only.
        first_scale: Loss scale that fp16 begins with.
        growth_steps: Steps without overflow after which the scale is doubled.
        look_every: Steps between two looks at the ranges (``adaptive``).
        bearable: Share of values out of range that a module may have (``adaptive``).
        patience: Clean looks after which a module goes back to a narrower format (``adaptive``).
    """

    compute: Format | Literal["auto"] = "fp32"
    first_scale: float = 2.0**16
    growth_steps: int = 2_000
    look_every: int = 500
    bearable: float = 1e-3
    patience: int = 4

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.compute not in {"auto", "fp32", "tf32", "bf16", "fp16", "fp8", "adaptive"}:
            raise ValueError(
                f"precision.compute is {self.compute!r}; "
                "take 'auto', 'fp32', 'tf32', 'bf16', 'fp16', 'fp8' or 'adaptive'"
            )
        if min(self.look_every, self.patience) < 1 or not 0 <= self.bearable < 1:
            raise ValueError(
                "precision.look_every and patience must be at least 1, bearable lie in [0, 1)"
            )
        if not self.first_scale >= 1 or self.growth_steps < 1:
            raise ValueError("precision.first_scale and growth_steps must be at least 1")


class PrecisionError(RuntimeError):
    """A format that this device does not have."""


class Precision:
    """Runs forward and backward in a format.

    Attributes:
        compute: The format, once chosen.
        scale: The loss scale of fp16, else None.
        is_chosen: Whether nothing is left to measure.
        adaptive: Formats of the modules, where each has its own.
    """

    def __init__(
        self,
        config: PrecisionConfig,
        device: torch.device,
        model: nn.Module,
        largest: Callable[[list[float]], list[float]] = list,
    ) -> None:
        """Prepare.

        Args:
            config: Settings.
            device: Where the model computes.
            model: The model.
            largest: Returns the largest of each value over all processes, which then decide alike.
        """
        self.config = config
        self.adaptive: AdaptiveFormats | None = None
        if config.compute == "adaptive":
            self.adaptive = AdaptiveFormats(
                model,
                device,
                every=config.look_every,
                share=config.bearable,
                patience=config.patience,
                largest=largest,
            )
        self.device = device
        self.scale: LossScale | None = None
        self.compute: Format = "fp32"
        self._unit = 0
        self.is_chosen = config.compute != "auto"
        if config.compute != "auto":
            self._set(config.compute)

    def choose(self, step: Callable[[], Tensor]) -> None:
        """Measure and choose; afterwards the choice stays, also over a resume.

        Args:
            step: Forward and backward of one batch, without an update; returns the loss. It must
                leave no trace: gradients, buffers and random numbers are the caller's to put back.
        """
        seconds: dict[Format, float] = {}
        for candidate in candidates(self.device):
            self._set(candidate)
            seconds[candidate] = _fastest(step, self.device)
        self._set(min(seconds, key=lambda name: seconds[name]))
        self.is_chosen = True
        told = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in seconds.items())
        logger.info("computing in %s on %s: %s a step", self.compute, self.device, told)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of the forward pass."""
        dtype = AUTOCAST.get(self.compute)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    @contextmanager
    def switched(self) -> Iterator[None]:
        """Compute as asked for inside: TF32 for products of fp32 matrices, modules' own formats."""
        before = torch.get_float32_matmul_precision()
        if self.compute == "tf32":
            torch.set_float32_matmul_precision("high")
        try:
            with self.adaptive.active() if self.adaptive else nullcontext():
                yield
        finally:
            torch.set_float32_matmul_precision(before)

    def begin(self, step: int) -> None:
        """Begin a step, or a step again."""
        self._unit = 0
        if self.adaptive:
            self.adaptive.begin(step)

    def end(self, step: int, *, loss_is_finite: bool, overflow: bool) -> bool:
        """End a step: move the loss scale, and modules to other formats.

        Args:
            step: 0-based step.
            loss_is_finite: The loss was.
            overflow: The loss or the gradients were not.

        Returns:
            Whether an overflow belongs to the search for scale and formats.
        """
        searching = False
        if self.scale is not None:
            searching = loss_is_finite and self.scale.value > 1
            self.scale.update(overflow=overflow)
        if self.adaptive:
            searching = self.adaptive.decide(step, overflow=overflow) or searching
        return searching

    def scaled(self, loss: Tensor, items: int) -> Tensor:
        """Return the loss to go backward from.

        Args:
            loss: Sum over the items of a part.
            items: How many. A sum over thousands would overflow fp16 at any scale: those of the
                first part of a step are divided out for the whole step.
        """
        if self.scale is None:
            return loss
        self._unit = self._unit or max(items, 1)
        return loss * (self.scale.value / self._unit)

    def unscale(self, gradients: list[Tensor]) -> None:
        """Bring gradients back to those of the summed loss, in place."""
        if self.scale is not None:
            torch._foreach_mul_(gradients, self._unit / self.scale.value)

    def state_dict(self) -> dict[str, Any]:
        """Return the format and the loss scale."""
        scale = None if self.scale is None else self.scale.state_dict()
        formats = None if self.adaptive is None else self.adaptive.state_dict()
        return {"compute": self.compute, "scale": scale, "formats": formats}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the format of before, whatever would be the fastest here."""
        self._set(state["compute"])
        self.is_chosen = True
        if self.scale is not None:
            self.scale.load_state_dict(state["scale"])
        if self.adaptive is not None:
            self.adaptive.load_state_dict(state["formats"])

    def _set(self, compute: Format) -> None:
        require(compute, self.device)
        self.compute = compute
        scaled = compute in {"fp16", "adaptive"}
        self.scale = (
            LossScale(self.config.first_scale, self.config.growth_steps) if scaled else None
        )


def candidates(device: torch.device) -> list[Format]:
    """Return the formats worth a trial on a device; fp16 only where it lacks bf16."""
    if device.type != "cuda":
        return ["fp32", "bf16"]
    return ["fp32", "tf32", "bf16" if torch.cuda.is_bf16_supported() else "fp16"]


def require(compute: Format, device: torch.device) -> None:
    """Refuse a format that a device does not have.

    Raises:
        PrecisionError: Naming what is missing.
    """
    if compute == "tf32" and device.type != "cuda":
        raise PrecisionError(f"tf32 is a format of GPUs, the model is on {device}; take 'fp32'")
    if compute != "fp8":
        return
    if device.type != "cuda":
        raise PrecisionError(f"fp8 needs a GPU, the model is on {device}; take 'auto'")
    found = torch.cuda.get_device_capability(device)
    if found < FP8_CAPABILITY:
        raise PrecisionError(
            f"fp8 needs compute capability {FP8_CAPABILITY}, {device} has {found}; take 'bf16'"
        )


def _fastest(step: Callable[[], Tensor], device: torch.device) -> float:
    """Return the shortest of some trials in seconds; infinite where the loss is not finite."""
    found = float("inf")
    for trial in range(1 + TRIALS):
        began = time.perf_counter()
        loss = step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
        if not torch.isfinite(loss):
            return float("inf")
        if trial:  # the first one warms up
            found = min(found, seconds)
    return found
