"""Parameters in bf16 without the loss of small updates, and optimizers that live on the CPU.

A parameter in bf16 has eight bits: an update below 1/256 of it vanishes by rounding. Three ways
out, each computing the update in fp32:

- ``master``: fp32 copies are what the optimizer sees (Micikevicius et al., 2018); 4 bytes more
  each.
- ``kahan``: what rounding took is kept in bf16 and added next time (Zamirai et al., "Revisiting
  bfloat16 training", 2020); 2 bytes more.
- ``stochastic``: rounded up or down with the probability that makes the mean exact (Gupta et al.,
  "Deep learning with limited numerical precision", 2015); no byte more.

The same copies carry an optimizer whose state does not fit beside the model: it updates fp32 copies
on the CPU, gradients go there and parameters come back (Ren et al., "ZeRO-Offload", 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kernels.runtime.optimizer import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class ParametersConfig:
    """In which format parameters are kept.

    Attributes:
        dtype: ``fp32`` leaves them as they are, ``bf16`` casts them.
        rounding: How updates reach parameters in bf16; ``nearest`` loses the small ones.
        optimizer_on: Where the optimizer's state and its fp32 copies of the parameters lie:
            with the model, or on the CPU, which costs two copies a step.
    """

    dtype: Literal["fp32", "bf16"] = "fp32"
    rounding: Literal["master", "kahan", "stochastic", "nearest"] = "master"
    optimizer_on: Literal["device", "cpu"] = "device"

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.dtype not in {"fp32", "bf16"}:
            raise ValueError(f"parameters.dtype is {self.dtype!r}; take 'fp32' or 'bf16'")
        if self.rounding not in {"master", "kahan", "stochastic", "nearest"}:
            raise ValueError(
                f"parameters.rounding is {self.rounding!r}; "
                "take 'master', 'kahan', 'stochastic' or 'nearest'"
            )
        if self.optimizer_on not in {"device", "cpu"}:
            raise ValueError(
                f"parameters.optimizer_on is {self.optimizer_on!r}; take 'device' or 'cpu'"
            )
        if self.optimizer_on == "cpu" and self.rounding != "master":
            raise ValueError(
                "parameters.optimizer_on='cpu' keeps fp32 copies there; take rounding='master'"
            )

    @property
    def is_apart(self) -> bool:
        """Whether the optimizer works on parameters of its own."""
        return self.dtype == "bf16" or self.optimizer_on == "cpu"


class Compensation:
    """Stands between a model and an optimizer with fp32 parameters of its own.

    The optimizer holds one fp32 parameter for each of the model's. Except for ``master`` these
    exist only during a step: between two, their memory is given back.

    Attributes:
        shadows: The optimizer's parameter of each of the model's.
    """

    def __init__(self, model: nn.Module, config: ParametersConfig) -> None:
        self.rounding = config.rounding
        if config.dtype == "bf16":
            model.to(torch.bfloat16)
        place = torch.device("cpu") if config.optimizer_on == "cpu" else None
        self.shadows = {
            p: nn.Parameter(
                p.detach().to(place, torch.promote_types(p.dtype, torch.float32), copy=True)
            )
            for p in model.parameters()
            if p.requires_grad
        }
        self._lost = (
            {p: torch.zeros_like(p) for p in self.shadows} if self.rounding == "kahan" else {}
        )
        self.drop()

    def shadow(self, groups: list[Group]) -> list[Group]:
        """Return parameter groups with the optimizer's parameters in place of the model's."""
        return [g | {"params": [self.shadows[p] for p in g["params"]]} for g in groups]

    @torch.no_grad()
    def begin(self) -> None:
        """Bring parameters and gradients of the optimizer up to date."""
        for own, shadow in self.shadows.items():
            if self.rounding != "master":
                shadow.untyped_storage().resize_(4 * own.numel())
                shadow.copy_(own)
                if own in self._lost:
                    shadow.add_(self._lost[own])
            shadow.grad = None if own.grad is None else own.grad.to(shadow.device, shadow.dtype)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin from the model's weights of now."""
        if self.rounding == "master":
            for own, shadow in self.shadows.items():
                shadow.copy_(own)

    @torch.no_grad()
    def finish(self, generator: torch.Generator | None = None) -> None:
        """Round the optimizer's parameters into the model's.

        Args:
            generator: Random numbers for stochastic rounding; torch's own without one.
        """
        for own, shadow in self.shadows.items():
            if self.rounding == "stochastic":
                own.copy_(round_stochastically(shadow, generator))
            else:
                own.copy_(shadow)
            if own in self._lost:
                self._lost[own].copy_(shadow - own.float())
        self.drop()

    def state_dict(self) -> dict[str, Any]:
        """Return what the model's parameters do not hold."""
        if self.rounding == "master":
            return {"extra": [p.detach() for p in self.shadows.values()]}
        return {"extra": list(self._lost.values())}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        held = self.shadows if self.rounding == "master" else self._lost
        for mine, saved in zip(held.values(), state["extra"], strict=True):
            mine.copy_(saved)

    def drop(self) -> None:
        """End a step; without `finish` before it, the model stays as it was."""
        for shadow in self.shadows.values():
            shadow.grad = None
            if self.rounding != "master":
                shadow.untyped_storage().resize_(0)


def round_stochastically(values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Round fp32 to bf16, up or down with the probability that makes the mean exact.

    bf16 is the upper half of fp32's bits: adding a random lower half before cutting it off carries
    with just that probability. NaN and infinity stay what they are.

    >>> third = torch.full((30_000,), 1 / 3)
    >>> abs(round_stochastically(third).float().mean().item() - 1 / 3) < 1e-4
    True
    """
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint(
        0, 1 << 16, bits.shape, generator=generator, dtype=torch.int32, device=bits.device
    )
    rounded = ((bits + noise) & -65_536).view(torch.float32)
    return torch.where(torch.isfinite(values), rounded, values).to(torch.bfloat16)
