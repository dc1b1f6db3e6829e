"""Chains of element-wise operations in one pass over memory."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kernels.ops.fused import reference
from kernels.ops.fused.steps import Operand, Step
from kernels.ops.graph.backend import choose


class Chain:
    """Element-wise operations, one after the other, as one operator.

    ``Chain([Step("add", Operand(0)), Step("gelu"), Step("mul", 0.5)])(x, bias)`` is
    ``gelu(x + bias) * .5`` with its gradients. Compiled at the first call of a number format (some
    seconds), without a C++ compiler.

    Attributes:
        steps: The operations.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        """Prepare.

        Raises:
            ValueError: For a chain without steps.
        """
        if not steps:
            raise ValueError("a chain needs at least one step")
        self.steps = tuple(steps)
        places = {s.other.index for s in self.steps if isinstance(s.other, Operand)}
        self._operands = max(places, default=-1) + 1

    def __call__(self, x: Tensor, *operands: Tensor, backend: str | None = None) -> Tensor:
        """Apply the chain.

        Args:
            x: Any shape.
            operands: Tensors that the steps name, of shapes that can be expanded to that of ``x``.
            backend: ``reference`` or ``cpu``; None takes the compiled loop for float32 and float64
                on CPUs, and torch's operators for everything else.

        Returns:
            The shape of ``x``.

        Raises:
            ValueError: For another number of operands, shapes that do not fit, or a backend that
                cannot run here.
        """
        if len(operands) != self._operands:
            raise ValueError(f"the chain names {self._operands} operands, got {len(operands)}")
        for index, operand in enumerate(operands):
            if not _expands(operand.shape, x.shape):
                raise ValueError(
                    f"operand {index} of shape {tuple(operand.shape)} does not expand to "
                    f"{tuple(x.shape)}; give the larger tensor as x"
                )
        # On CPUs there is nothing to choose, and this is called at every step.
        is_plain = backend is None and x.device.type == "cpu"
        chosen = "cpu" if is_plain else choose("chain", backend, x, ("cpu", "reference"))
        if chosen == "cpu":
            from kernels.ops.fused.cpu import FusedChain, fits

            if fits(x, operands):
                result: Tensor = FusedChain.apply(self.steps, x, *operands)
                return result
            if backend == "cpu":
                raise ValueError(
                    f"chain: backend 'cpu' computes float32 and float64 of one format, got "
                    f"{[str(t.dtype) for t in (x, *operands)]}; take backend=None"
                )
        return reference.chain(self.steps, x, operands)


def _expands(shape: Sequence[int], wide: Sequence[int]) -> bool:
    """Whether a shape can be expanded to another; torch's own function takes as long as a step."""
    ends = zip(reversed(shape), reversed(wide), strict=False)
    return len(shape) <= len(wide) and all(a in {1, b} for a, b in ends)
