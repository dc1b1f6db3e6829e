"""Everything that can be said of a run before or after some steps: memory, data, formats, layout.

What happens between operators is the profiler's, a process that hangs the hang detector's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kernels.runtime.advice import (
    Advice,
    data_advice,
    format_advice,
    layout_advice,
    loader_advice,
    threads_advice,
)
from kernels.runtime.callbacks import StepMetrics
from kernels.runtime.memory_advice import available_bytes, memory_advice, memory_use


def find(
    model: nn.Module,
    batch: Any,
    *,
    loss: Callable[[nn.Module, Any], tuple[Tensor, int]] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    steps: Sequence[StepMetrics] = (),
) -> list[Advice]:
    """Return what costs time or memory, most important first.

    Args:
        model: The model.
        batch: A batch of its source.
        loss: Its loss, to count what a step keeps.
        optimizer: Its optimizer, if there is one.
        steps: Figures of the steps so far, as `History` keeps them.
    """
    found: list[Advice | None] = []
    if loss is not None:
        use = memory_use(model, loss, batch, optimizer)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        held = use.weights + sum(g.numel() * g.element_size() for g in grads)
        held += use.optimizer if optimizer is not None and optimizer.state else 0
        found.append(memory_advice(use, available_bytes(device) + held))
    found.append(loader_advice(steps))
    found += format_advice(model, batch)
    found.append(threads_advice())
    found += layout_advice(model, batch)
    found += data_advice(model, batch)
    return [advice for advice in found if advice is not None]
