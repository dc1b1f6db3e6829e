"""Choices that are measured on a batch without a trace: formats, memory plans, compilation."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from kernels.runtime.accumulation import Retry
from kernels.runtime.compilation import Compilation
from kernels.runtime.group import Group
from kernels.runtime.memory import Memory
from kernels.runtime.precision import Precision

Choosers = tuple[nn.Module, Precision, Memory, Compilation]
"""A model and what is chosen for it."""


def choose(
    choosers: Choosers,
    group: Group,
    forward: Callable[[], tuple[Tensor, int]],
    backward: Callable[[Tensor, int], None],
    steps: range,
) -> None:
    """Let precision, memory and compilation choose, as far as they have not.

    Args:
        choosers: The model, whose buffers and gradients are as before afterwards, and they.
        group: The processes, which choose alike.
        forward: Forward pass of a part of a batch: summed loss and items.
        backward: Backward pass from them.
        steps: 0-based steps that are left.
    """
    model, precision, memory, compilation = choosers
    retry = Retry(model)

    def loss() -> Tensor:
        retry.put_back()
        return forward()[0]

    def both() -> Tensor:
        retry.put_back()
        precision.begin(steps.start)
        value, count = forward()
        backward(value, count)
        return value.detach()

    if not precision.is_chosen:
        precision.choose(both)
        # Processes measure different times: the first one's choice is everybody's.
        precision.load_state_dict(group.gather(precision.state_dict())[0])
    if not memory.is_chosen:
        memory.choose(loss)
    compilation.choose(both, len(steps), group)
    retry.put_back()
    for parameter in model.parameters():
        parameter.grad = None
