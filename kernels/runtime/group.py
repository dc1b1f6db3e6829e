"""The processes of a run, and what they tell each other: sums, votes, states.

One process alone is a group, too, and costs nothing. Of several, each is started with the usual
variables of ``torchrun`` (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``) and calls
`Group.join`; on CPUs they talk by gloo.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from kernels.runtime.packing import pack, unpack

BUCKET_BYTES = 8 * 2**20


class LostRankError(RuntimeError):
    """Another process of the run died, or did not answer in time."""


class Group:
    """A process among the others of its run.

    Attributes:
        rank: Its number.
        size: How many there are.
        sent_bytes: Bytes of gradients that this process has sent so far.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.sent_bytes = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @classmethod
    def current(cls) -> Group:
        """Return the group that this process has joined, or itself alone."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @classmethod
    @contextmanager
    def join(cls, timeout: float = 120.0) -> Iterator[Group]:
        """Join the group that the environment names; leave it at the end.

        Args:
            timeout: Seconds after which a process that does not answer counts as lost.

        Raises:
            ValueError: When the environment names no group.
        """
        missing = [
            n for n in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ
        ]
        if missing:
            raise ValueError(f"{', '.join(missing)} not set; start the program by torchrun")
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
        try:
            yield cls.current()
        finally:
            dist.destroy_process_group()

    def sum(self, *values: float) -> list[float]:
        """Return the sums over all processes, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        self._call(dist.all_reduce, total)
        return [float(v) for v in total]

    def is_any(self, flag: bool) -> bool:  # noqa: FBT001 - a vote
        """Whether it is so in any process."""
        return self.sum(float(flag))[0] > 0

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the first one's tensors, in place."""
        if self.size > 1:
            for tensor in tensors:
                self._call(dist.broadcast, tensor.detach(), 0)

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace gradients by their sums over all processes, in buckets.

        A parameter without a gradient in every process stays without.
        """
        if self.size == 1:
            return
        having = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
        self._call(dist.all_reduce, having, dist.ReduceOp.MAX)
        wanted = [p for p, has in zip(parameters, having.tolist(), strict=True) if has]
        for parameter in wanted:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in buckets(wanted):
            flat = torch.cat([p.grad.reshape(-1) for p in bucket if p.grad is not None])
            self._call(dist.all_reduce, flat)
            self.sent_bytes += flat.numel() * flat.element_size()
            start = 0
            for parameter in bucket:
                part = flat[start : start + parameter.numel()].view_as(parameter)
                parameter.grad = part
                start += parameter.numel()

    def gather(self, state: Any) -> list[Any]:
        """Return every process's state (numbers, texts, CPU tensors, nested), in all processes."""
        if self.size == 1:
            return [state]
        plain, tensors = pack(state)
        kinds = {
            k: [str(t.dtype).removeprefix("torch."), list(t.shape)] for k, t in tensors.items()
        }
        head = json.dumps([plain, kinds]).encode()
        body = b"".join(
            t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for t in tensors.values()
        )
        found = []
        for text in self._gather_bytes(len(head).to_bytes(8, "little") + head + body):
            end = 8 + int.from_bytes(text[:8], "little")
            their_plain, their_kinds = json.loads(text[8:end])
            found.append(unpack(their_plain, _tensors(their_kinds, text[end:])))
        return found

    def _gather_bytes(self, mine: bytes) -> list[bytes]:
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        self._call(dist.all_gather, sizes, torch.tensor([len(mine)]))
        longest = max(int(s) for s in sizes)
        padded = np.zeros(longest, np.uint8)
        padded[: len(mine)] = np.frombuffer(mine, np.uint8)
        parts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        self._call(dist.all_gather, parts, torch.from_numpy(padded))
        return [p.numpy().tobytes()[: int(s)] for p, s in zip(parts, sizes, strict=True)]

    def _call(self, operation: Any, *arguments: Any) -> None:
        try:
            operation(*arguments)
        except RuntimeError as error:
            raise LostRankError(
                f"rank {self.rank} of {self.size} lost another process ({error}); "
                "look for the first error among the others, then start all of them again"
            ) from error


def buckets(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return parameters of one format in lists of about 8 MiB, last ones first."""
    found: list[list[Tensor]] = []
    size, kind = 0, None
    for parameter in reversed(parameters):
        if kind != parameter.dtype or size >= BUCKET_BYTES:
            found.append([])
            size, kind = 0, parameter.dtype
        found[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return found


def _tensors(kinds: dict[str, Any], body: bytes) -> dict[str, Tensor]:
    found, start = {}, 0
    for name, (dtype, shape) in kinds.items():
        kind: torch.dtype = getattr(torch, dtype)
        end = start + int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        raw = torch.from_numpy(np.frombuffer(body[start:end], np.uint8).copy())
        found[name] = raw.view(kind).reshape(shape)
        start = end
    return found
