"""AdamW whose two moments lie in 8 bits: 2 bytes a parameter in the place of 8.

Moments are kept in blocks of 256, each with its largest value, in a code that is dense near zero
(dynamic tree quantisation, Dettmers et al. 2021, https://arxiv.org/abs/2110.02861). A step unpacks
one parameter's moments at a time, computes in float32 and packs them again. Small tensors, whose
moments weigh nothing, keep them in float32.

    def build(groups):
        return EightBitAdamW(groups, lr=1e-3)


    Runner(model, batches, loss, config, build_optimizer=build).run()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

BLOCK = 256
LEAST = 4_096
"""Elements below which moments stay in float32."""


def signed_code() -> Tensor:
    """Return 256 values from -.993 to 1, ascending: for the first moment."""
    return _code(signed=True)


def unsigned_code() -> Tensor:
    """Return 256 values in [0, 1], ascending: for the second moment."""
    return _code(signed=False)


def packed(values: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes uint8 [n] of float values [n], and the largest magnitude of each block."""
    blocks = torch.nn.functional.pad(values.flatten(), (0, -values.numel() % BLOCK)).view(-1, BLOCK)
    largest = blocks.abs().amax(1)
    shares = blocks / largest.clamp_min(1e-30)[:, None]
    middles = (code[1:] + code[:-1]) / 2
    codes = torch.bucketize(shares, middles).to(torch.uint8)
    return codes.flatten()[: values.numel()], largest


def unpacked(codes: Tensor, largest: Tensor, code: Tensor) -> Tensor:
    """Return the float values [n] that codes [n] stand for."""
    place = torch.arange(codes.numel(), device=codes.device) // BLOCK
    return code[codes.int()] * largest[place]


class EightBitAdamW(torch.optim.Optimizer):
    """AdamW with moments of 8 bits."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        """Build it over parameters or groups of them.

        Raises:
            ValueError: When a setting lies outside of its range.
        """
        if not lr > 0 or not eps > 0 or weight_decay < 0 or not all(0 <= b < 1 for b in betas):
            raise ValueError(
                "lr and eps must be above 0, weight_decay at least 0, betas in [0, 1); got "
                f"lr={lr}, eps={eps}, weight_decay={weight_decay}, betas={betas}"
            )
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        self._codes: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state; torch brings all of it to the parameters' type."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in ("first", "second"):
                if f"{name}_largest" in state:
                    state[name] = state[name].to(torch.uint8)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, grad = self.state[parameter], parameter.grad
        if grad is None:
            return
        if grad.is_sparse:
            raise ValueError("gradients are sparse; take torch.optim.SparseAdam for such layers")
        flat = grad.flatten().float()
        step = int(state["step"]) + 1 if state else 1
        first, second = self._moments(parameter, flat)
        beta1, beta2 = group["betas"]
        first.lerp_(flat, 1 - beta1)
        second.mul_(beta2).addcmul_(flat, flat, value=1 - beta2)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        size = group["lr"] / (1 - beta1**step)
        denominator = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
        change = (first / denominator).view_as(parameter)
        parameter.add_(change.to(parameter.dtype), alpha=-size)
        self._keep(parameter, step, first, second)

    def _moments(self, parameter: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        state = self.state[parameter]
        if not state:
            return torch.zeros_like(like), torch.zeros_like(like)
        if "first_largest" not in state:
            return state["first"], state["second"]
        signed, unsigned = self._codes_on(like.device)
        return (
            unpacked(state["first"], state["first_largest"].float(), signed),
            unpacked(state["second"], state["second_largest"].float(), unsigned),
        )

    def _keep(self, parameter: Tensor, step: int, first: Tensor, second: Tensor) -> None:
        state = self.state[parameter]
        state["step"] = torch.tensor(float(step))
        if parameter.numel() < LEAST:
            state["first"], state["second"] = first, second
            return
        signed, unsigned = self._codes_on(first.device)
        state["first"], state["first_largest"] = packed(first, signed)
        state["second"], state["second_largest"] = packed(second, unsigned)

    def _codes_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._codes:
            self._codes[device] = signed_code().to(device), unsigned_code().to(device)
        return self._codes[device]


def _code(*, signed: bool) -> Tensor:
    """Return the values of a dynamic code of 8 bits.

    The number of leading zeros says the power of ten, what follows is linear in it, so that values
    of every size have about the same relative error.
    """
    values = [0.0, 1.0]
    for exponent in range(7):
        count = 2**exponent if signed else 2 ** (exponent + 1)
        edges = torch.linspace(0.1, 1, count + 1, dtype=torch.float64)
        middles = (edges[1:] + edges[:-1]) / 2 * 10.0 ** (exponent - 6)
        values += middles.tolist()
        if signed:
            values += (-middles).tolist()
    return torch.tensor(sorted(values), dtype=torch.float32)
