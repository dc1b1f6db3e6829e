"""AdamW as one compiled loop over all parameters: every number is read and written once a step.

Loshchilov and Hutter, "Decoupled weight decay regularization", 2019. State dicts are those of
``torch.optim.AdamW``, in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir  # type: ignore[import-untyped]  # ships no type information
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from kernels.ops.graph.threads import by_columns, share

REALS = {torch.float32: np.float32, torch.float64: np.float64}
WORK = 8
"""Operations per number, for the question whether threads pay."""


@dataclass(slots=True)
class Plan:
    """Where the tensors of a group lie.

    Attributes:
        addresses: Of its parameters.
        states: Their states.
        places: int64 [4, tensors]: addresses of parameters, gradients and moments.
        ends: int64 [tensors]: numbers up to the end of each.
        steps: int64 [tensors]: steps done.
    """

    addresses: list[int]
    states: list[dict[str, Any]]
    places: Any
    ends: Any
    steps: Any


class FusedAdamW(torch.optim.Optimizer):
    """AdamW for float32 and float64 on CPUs."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        """Prepare.

        Args:
            params: Parameters, or groups of them with settings of their own.
            lr: Learning rate.
            betas: Decay of the two moments.
            eps: Keeps the division finite.
            weight_decay: Decoupled decay.

        Raises:
            ValueError: For settings out of range, or parameters on other devices or in other
                formats.
        """
        if lr < 0 or eps <= 0 or weight_decay < 0 or not all(0 <= b < 1 for b in betas):
            raise ValueError(
                f"FusedAdamW: lr {lr} and weight_decay {weight_decay} must not be negative, eps "
                f"{eps} positive, betas {betas} in [0, 1)"
            )
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        self._plans: dict[tuple[int, Any], Plan] = {}
        super().__init__(params, defaults)
        for group in self.param_groups:
            for parameter in group["params"]:
                _require(parameter)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters that have a gradient.

        Args:
            closure: Computes the loss anew, as with torch's optimizers.

        Raises:
            ValueError: For sparse gradients.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for dtype, real in REALS.items():
                held = [p for p in group["params"] if p.grad is not None and p.dtype == dtype]
                if held:
                    self._update(held, group, real)
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Loading a state comes by here, too; it replaces tensors whose addresses are known.
        super().__setstate__(state)
        self._plans = {}

    def _update(self, held: list[Tensor], group: dict[str, Any], real: Any) -> None:
        plan = self._plan(held, id(group), real)
        # Gradients that are copied must live until the loop ends.
        gradients = [_laid_out_as(p, p.grad) for p in held]
        plan.places[1] = [g.data_ptr() for g in gradients]
        plan.steps += 1
        for state, step in zip(plan.states, plan.steps.tolist(), strict=True):
            state["step"] = step
        first, second = group["betas"]
        rates = (group["lr"] / (1 - first**plan.steps)).astype(real)
        roots = ((1 - second**plan.steps) ** -0.5).astype(real)
        kept = 1 - group["lr"] * group["weight_decay"]
        numbers = tuple(real(n) for n in (kept, first, 1 - first, second, 1 - second, group["eps"]))
        run, end = _loop(real), int(plan.ends[-1])

        def call(start: int, stop: int) -> None:
            run(plan.places, plan.ends, rates, roots, *numbers, start, stop)

        share(call, by_columns(end, end * WORK))

    def _plan(self, held: list[Tensor], group: int, real: Any) -> Plan:
        """Return where the tensors lie, asked anew only when a parameter has moved."""
        addresses = [p.data_ptr() for p in held]
        plan = self._plans.get((group, real))
        if plan is None or addresses != plan.addresses:
            states = [self.state[p] or self._begun(p) for p in held]
            for p, s in zip(held, states, strict=True):
                for name in ("exp_avg", "exp_avg_sq"):  # files keep no strides
                    s[name] = _laid_out_as(p, s[name])
            moments = [[s[name] for s in states] for name in ("exp_avg", "exp_avg_sq")]
            places = [addresses, addresses, *([t.data_ptr() for t in m] for m in moments)]
            plan = Plan(
                addresses,
                states,
                np.array(places),
                np.cumsum([p.numel() for p in held]),
                np.array([int(s["step"]) for s in states]),
            )
            self._plans[group, real] = plan
        return plan

    def _begun(self, parameter: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        state["step"] = 0
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


def _require(parameter: Tensor) -> None:
    if parameter.device.type != "cpu" or parameter.dtype not in REALS:
        raise ValueError(
            f"FusedAdamW updates float32 and float64 on CPUs, got {parameter.dtype} on "
            f"{parameter.device}; take torch.optim.AdamW(fused=True)"
        )
    if not _is_dense(parameter):
        raise ValueError("FusedAdamW: a parameter has gaps or overlaps; call .contiguous() on it")


def _is_dense(tensor: Tensor) -> bool:
    """Whether a tensor fills its stretch of memory, in whatever order of its dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _laid_out_as(parameter: Tensor, gradient: Tensor | None) -> Tensor:
    """Return a gradient in the order of its parameter's numbers."""
    if gradient is None or gradient.layout != torch.strided:
        raise ValueError("FusedAdamW takes dense gradients; take torch.optim.SparseAdam")
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


@intrinsic  # type: ignore[untyped-decorator]  # numba has no type information
def _pointer(typing_context: Any, address: Any) -> Any:
    """Return an address as a pointer."""
    del typing_context, address

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@cache
def _loop(real: Any) -> Any:
    """Return the compiled loop over all numbers from ``start`` to ``stop``."""

    @numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})  # type: ignore[untyped-decorator]
    def run(
        places: Any, ends: Any, rates: Any, roots: Any, kept: Any,
        b1: Any, c1: Any, b2: Any, c2: Any, eps: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        begin = 0
        for index in range(len(ends)):
            size = ends[index] - begin
            low, high = max(start - begin, 0), min(stop - begin, size)
            begin = ends[index]
            if low >= high:
                continue
            p = numba.carray(_pointer(places[0, index]), size, real)[low:high]
            g = numba.carray(_pointer(places[1, index]), size, real)[low:high]
            m = numba.carray(_pointer(places[2, index]), size, real)[low:high]
            v = numba.carray(_pointer(places[3, index]), size, real)[low:high]
            rate, root = rates[index], roots[index]
            for i in range(len(p)):
                mean = b1 * m[i] + c1 * g[i]
                square = b2 * v[i] + c2 * g[i] * g[i]
                m[i], v[i] = mean, square
                p[i] = kept * p[i] - rate * mean / (np.sqrt(square) * root + eps)

    return run
