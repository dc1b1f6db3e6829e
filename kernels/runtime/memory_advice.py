"""What a training step keeps in memory, and which setting helps when it does not fit.

Bytes of activations are counted on a few rows and multiplied, so that the question can be asked
after memory ran out.
"""

from __future__ import annotations

import logging
import math
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kernels.runtime.accumulation import Retry, is_out_of_memory, split_batch
from kernels.runtime.advice import Advice, tensors_of
from kernels.runtime.profile_report import size_in_words
from kernels.runtime.saved_tensors import SavedTensors

logger = logging.getLogger(__name__)

NEAR = 0.9
"""Share of the memory from which on a step counts as a near miss."""
ADAM_STATES = 2
SAMPLE_ROWS, MOST_PARTS = 4, 256


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes of a training step.

    Attributes:
        weights: Parameters and buffers.
        gradients: One for every trained parameter.
        optimizer: Its states; those of AdamW where it has none yet.
        batch: The batch.
        activations: What the forward pass keeps for the backward pass.
    """

    weights: int
    gradients: int
    optimizer: int
    batch: int
    activations: int

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the batch."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """All bytes."""
        return self.fixed + self.batch + self.activations

    def __str__(self) -> str:
        parts = {
            "activations": self.activations,
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "batch": self.batch,
        }
        ordered = sorted(parts.items(), key=lambda part: -part[1])
        told = ", ".join(f"{name} {size_in_words(size)}" for name, size in ordered)
        return f"{size_in_words(self.total)}: {told}"


def memory_use(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], tuple[Tensor, int]],
    batch: Any,
    optimizer: torch.optim.Optimizer | None = None,
) -> MemoryUse:
    """Return what a step keeps; model and random numbers are left as they were.

    Args:
        model: The model.
        loss: Its loss, as the Runner takes it.
        batch: A batch of tensors with the same number of rows.
        optimizer: The optimizer, if there is one.
    """
    trained = sum(_bytes(p) for p in model.parameters() if p.requires_grad)
    held = 0
    if optimizer is not None:
        held = sum(_bytes(t) for state in optimizer.state.values() for _, t in tensors_of(state))
    rows = max((len(t) for _, t in tensors_of(batch) if t.ndim), default=1)
    return MemoryUse(
        sum(_bytes(t) for t in (*model.parameters(), *model.buffers())),
        trained,
        held or ADAM_STATES * trained,
        sum(_bytes(t) for _, t in tensors_of(batch)),
        _activations(model, loss, batch, rows),
    )


def memory_advice(use: MemoryUse, available: int) -> Advice | None:
    """Return which setting makes a step fit, None where it fits easily.

    Args:
        use: What it keeps.
        available: Bytes that there are for it.
    """
    if use.total < NEAR * available:
        return None
    seen = f"a step keeps {use}; {size_in_words(available)} are there"
    room = NEAR * available - use.fixed - use.batch
    if room <= 0:
        largest = "optimizer" if use.optimizer > use.weights else "weights"
        return Advice(
            "memory",
            largest,
            f"{seen}. Even without activations it does not fit",
            "Take ParametersConfig(dtype='bf16', rounding='kahan') or OptimizerConfig(name='sgd'), "
            "split the model over processes, or make it smaller",
        )
    parts = 2 ** math.ceil(math.log2(max(use.activations / room, 1.0)))
    if parts == 1:
        return Advice(
            "memory",
            "the whole step",
            f"{seen}. It fits, but barely",
            "Let AccumulationConfig(max_parts=4) halve the batch when memory runs out",
        )
    return Advice(
        "memory",
        "activations",
        seen,
        f"Take AccumulationConfig(parts={parts}, max_parts={4 * parts}), which keeps a part's "
        f"activations at a time, or MemoryConfig(budget_mib={room / 2**20:.0f}), which computes "
        "some again",
    )


@contextmanager
def explaining(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], tuple[Tensor, int]],
    batch: Callable[[], Any],
    optimizer: torch.optim.Optimizer | None = None,
) -> Iterator[None]:
    """Add to an error for want of memory inside what held it, and what helps; log it, too.

    Args:
        model: The model.
        loss: Its loss.
        batch: Gives a batch of the size that failed.
        optimizer: The optimizer, if there is one.

    Raises:
        Exception: The error itself, with notes.
    """
    available = available_bytes(_device(model))
    held = sum(_bytes(t) for t in (*model.parameters(), *model.buffers()))
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            try:
                use = memory_use(model, loss, batch(), optimizer)
            except Exception as again:  # noqa: BLE001 - the error itself counts more
                error.add_note(f"what held the memory could not be counted: {again}")
                raise error from None
            # The weights were there before what is available was asked for.
            advice = memory_advice(use, available + held)
            told = str(advice) if advice else f"memory: a step keeps {use}"
            error.add_note(told)
            logger.warning("%s", told)
        raise


def available_bytes(device: torch.device) -> int:
    """Return the bytes that this process may still take on a device."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    found = [_kib("/proc/meminfo", "MemAvailable")]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        found.append(max(limit - _kib("/proc/self/status", "VmSize"), 0))
    group = Path("/sys/fs/cgroup")
    try:
        most = (group / "memory.max").read_text(encoding="ascii").strip()
        now = (group / "memory.current").read_text(encoding="ascii")
        if most != "max":
            found.append(max(int(most) - int(now), 0))
    except (OSError, ValueError):
        pass
    return min(found)


def _activations(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], tuple[Tensor, int]],
    batch: Any,
    rows: int,
) -> int:
    parts = min(max(rows // SAMPLE_ROWS, 1), MOST_PARTS)
    # A copy: what is saved of a view holds the whole batch.
    few = _copied(split_batch(batch, parts)[0]) if parts > 1 else batch
    taken = max((len(t) for _, t in tensors_of(few) if t.ndim), default=1)
    retry = Retry(model)
    try:
        with SavedTensors(model, "none").active() as count:
            value, _ = loss(model, few)
        del value
        return count.kept_bytes * rows // max(taken, 1)
    finally:
        retry.put_back()


def _copied(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return batch.clone()
    if isinstance(batch, Mapping):
        return {key: _copied(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(_copied, batch))
    if isinstance(batch, list | tuple):
        return type(batch)(map(_copied, batch))
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: _copied(getattr(batch, f.name)) for f in fields(batch)})
    return batch


def _kib(path: str, name: str) -> int:
    for line in Path(path).read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return 2**63


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
