"""Gradient accumulation: one update from several micro-batches, exact and within memory.

The sum over all micro-batches is divided by the count of all their valid items, once: batches with
ragged numbers of items give the gradient of the big batch. (Dividing each by its own count does
not; a bug that long lay in well-known trainers.)

Out of memory, a batch is cut into halves, quarters and so on, and the same step is done again: its
gradients, module buffers and random numbers start anew, so that nothing counts twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

CPU_SAYS = ("can't allocate memory", "not enough memory")
"""How the allocator of the CPU complains, which has no exception type of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccumulationConfig:
    """How a step's batch is made up.

    Attributes:
        batches: Batches of the source that make one step.
        parts: Parts into which each of them is cut beforehand.
        max_parts: Out of memory, parts are halved up to this many; equal to ``parts`` switches
            that off.
    """

    batches: int = 1
    parts: int = 1
    max_parts: int = 1

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if min(self.batches, self.parts) < 1:
            raise ValueError("accumulation.batches and accumulation.parts must be at least 1")
        if self.max_parts < self.parts:
            raise ValueError(
                f"accumulation.max_parts is {self.max_parts}, below parts {self.parts}; raise it"
            )


class StepTooLargeError(MemoryError):
    """A step does not fit into memory, however small its parts.

    Attributes:
        finished: Steps finished by then.
    """

    def __init__(self, message: str, finished: int = 0) -> None:
        super().__init__(message)
        self.finished = finished


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in CPU_SAYS)


class Accumulation:
    """Cuts batches into parts; more of them once memory ran out.

    Attributes:
        parts: Parts per batch now.
    """

    def __init__(
        self, config: AccumulationConfig, split: Callable[[Any, int], list[Any]] | None = None
    ) -> None:
        self.config = config
        self.parts = config.parts
        self._split = split or split_batch

    @property
    def may_halve(self) -> bool:
        """Whether a step that runs out of memory is done again in smaller parts."""
        return self.parts * 2 <= self.config.max_parts

    def parts_of(self, batch: Any, rank: int = 0, size: int = 1, micro: int = 1) -> list[Any]:
        """Return the parts of a batch that are one process's; maybe none of a small batch.

        Args:
            batch: The whole batch.
            rank: Number of the share.
            size: How many shares there are.
            micro: Micro-batches that each part is cut into.
        """
        own = self.parts * micro
        if own * size == 1:
            return [batch]
        return self._split(batch, own * size)[rank * own : (rank + 1) * own]

    def halve(self, error: BaseException | None, step: int) -> None:
        """Take half as large parts from now on.

        Args:
            error: What happened, None where it happened in another process.
            step: 0-based step.

        Raises:
            StepTooLargeError: When ``max_parts`` are reached.
        """
        if not self.may_halve:
            raise StepTooLargeError(
                f"step {step + 1} ran out of memory with its batch in {self.parts} parts "
                f"({error or 'elsewhere'}); raise accumulation.max_parts or give smaller batches",
                finished=step,
            ) from error
        self.parts *= 2
        logger.warning("step %d ran out of memory; again in %d parts", step + 1, self.parts)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of parts."""
        return {"parts": self.parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with as many parts."""
        self.parts = int(state["parts"])


class Retry:
    """What a step changes besides gradients, to be put back before it is done again."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers = [(b, b.detach().clone()) for b in model.buffers()]
        self._random = torch.get_rng_state()
        self._devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    @torch.no_grad()
    def put_back(self) -> None:
        """Restore buffers and random states."""
        for buffer, before in self._buffers:
            buffer.copy_(before)
        torch.set_rng_state(self._random)
        if self._devices:
            torch.cuda.set_rng_state_all(self._devices)
            torch.cuda.empty_cache()


def split_batch(batch: Any, parts: int) -> list[Any]:
    """Cut a batch along the first dimension of all its tensors.

    Args:
        batch: A tensor, or tuples, lists, mappings and dataclasses of them; other values and
            scalars go to every part.
        parts: How many; fewer come back where there are fewer items.

    Raises:
        ValueError: When the tensors differ in their first dimension, or there is none.
    """
    sizes = {len(t) for t in _tensors(batch) if t.ndim}
    if len(sizes) != 1:
        raise ValueError(
            f"a batch whose tensors have the lengths {sorted(sizes)} cannot be cut; "
            "give the Runner a split function"
        )
    (size,) = sizes
    bounds = [size * k // parts for k in range(parts + 1)]
    return [rows_of(batch, slice(a, b)) for a, b in pairwise(bounds) if b > a]


def rows_of(value: Any, rows: slice | Tensor) -> Any:
    """Return some rows of all tensors of a batch; other values and scalars as they are.

    Args:
        value: A tensor, or tuples, lists, mappings and dataclasses of them.
        rows: Which, as tensors are indexed.
    """
    return map_tensors(value, lambda tensor: tensor[rows] if tensor.ndim else tensor)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a batch with every tensor of it changed; see `rows_of`."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(each, change) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(each, change) for each in value))
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(each, change) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        own = {f.name: map_tensors(getattr(value, f.name), change) for f in fields(value)}
        return replace(value, **own)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from _tensors(getattr(value, each.name))
