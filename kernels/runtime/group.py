"""The processes of a run, and what they tell each other: sums, votes, states.

One process alone is a group, too, and costs nothing. Of several, each is started with the usual
variables of ``torchrun`` (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``) and calls
`Group.join`; on CPUs they talk by gloo.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from kernels.runtime.compression import Compression
from kernels.runtime.packing import pack, unpack

BUCKET_BYTES = 8 * 2**20
SECOND_SECONDS = 2.0
"""How long a process that lost another waits before it ends by that."""


class LostRankError(RuntimeError):
    """Another process of the run died, or did not answer in time."""


class Group:
    """A process among the others of its run.

    Attributes:
        rank: Its number.
        size: How many there are.
        sent_bytes: Bytes of gradients that this process has sent so far, counted as rings send
            them: a sum of n bytes over k processes costs each 2 (k - 1) n / k, gathering n bytes of
            each (k - 1) n.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, handle: dist.ProcessGroup | None = None
    ) -> None:
        """Describe a group.

        Args:
            rank: Number of this process within it.
            size: How many there are.
            handle: The group as torch knows it; None for all processes of the run.
        """
        self.rank, self.size, self._handle = rank, size, handle
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
        # Numbers, votes and states of the CPU go by gloo where the tensors of devices do not.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
        try:
            yield cls.current()
        except RuntimeError as error:
            # Who lost another ends after it, so that `launch` and torchrun name the cause.
            if isinstance(error, LostRankError) or "Connection closed by peer" in str(error):
                time.sleep(SECOND_SECONDS)
            raise
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

    def max(self, values: Sequence[float]) -> list[float]:
        """Return the largest of each value over all processes."""
        if self.size == 1 or not values:
            return list(values)
        largest = torch.tensor(values, dtype=torch.float64)
        self._call(dist.all_reduce, largest, dist.ReduceOp.MAX)
        return [float(v) for v in largest]

    def sum_gradients(
        self, parameters: Sequence[Tensor], compression: Compression | None = None
    ) -> None:
        """Replace gradients by their sums over all processes, in buckets.

        A parameter without a gradient in every process stays without. Of parameters that are
        spread over other processes, the part that lies here is summed.

        Args:
            parameters: The same ones in every process, in the same order.
            compression: How the sums are sent, None for as they are.
        """
        if self.size == 1:
            return
        wanted, compresses = self._with_gradient(parameters, compression)
        number = {id(p): k for k, p in enumerate(parameters)}
        for bucket in buckets(wanted):
            gradients = [local_of(p.grad) for p in bucket if p.grad is not None]
            if compression and compresses:
                keys = [number[id(p)] for p in bucket]
                compression.sum(dict(zip(keys, gradients, strict=True)), self)
                continue
            flat = torch.cat([g.reshape(-1) for g in gradients])
            self.all_reduce(flat)
            parts = torch.split(flat, [g.numel() for g in gradients])
            for parameter, gradient, part in zip(bucket, gradients, parts, strict=True):
                if parameter.grad is gradient and gradient.is_contiguous():
                    parameter.grad = part.view_as(parameter)
                else:
                    gradient.copy_(part.view_as(gradient))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one format by their means over all processes."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([each.reshape(-1) for each in tensors])
        self._call(dist.all_reduce, flat)
        parts = torch.split(flat / self.size, [each.numel() for each in tensors])
        for each, part in zip(tensors, parts, strict=True):
            each.copy_(part.view_as(each))

    def all_reduce(self, flat: Tensor) -> None:
        """Replace a tensor by its sum over all processes; its bytes count."""
        self._call(dist.all_reduce, flat)
        self.sent_bytes += 2 * (self.size - 1) * flat.numel() * flat.element_size() // self.size

    def all_gather(self, flat: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, in their order; its bytes count."""
        found = [torch.empty_like(flat) for _ in range(self.size)]
        self._call(dist.all_gather, found, flat)
        self.sent_bytes += (self.size - 1) * flat.numel() * flat.element_size()
        return found

    def _with_gradient(
        self, parameters: Sequence[Tensor], compression: Compression | None
    ) -> tuple[list[Tensor], bool]:
        """Agree on the parameters with a gradient anywhere, and on whether they are compressed."""
        held = [p.grad for p in parameters if p.grad is not None]
        finite = compression is None or all(
            bool(torch.isfinite(local_of(gradient)).all()) for gradient in held
        )
        votes = torch.tensor(
            [p.grad is not None for p in parameters] + [not finite], dtype=torch.uint8
        )
        self._call(dist.all_reduce, votes, dist.ReduceOp.MAX)
        *having, broken = votes.tolist()
        compresses = compression is not None and compression.begin(finite=not broken)
        wanted = [p for p, has in zip(parameters, having, strict=True) if has]
        for parameter in wanted:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return wanted, compresses

    def gather(self, state: Any) -> list[Any]:
        """Return every process's state (numbers, texts, CPU tensors, nested), in all processes."""
        if self.size == 1:
            return [state]
        return [_decoded(text) for text in self._gather_bytes(_encoded(state))]

    def hand_over(self, state: Any, ranks: Sequence[int]) -> list[Any]:
        """Return the states of some processes in the first one, one after the other; else none.

        All processes call it together; the first one is not among ``ranks``.
        """
        if self.rank in ranks:
            mine = torch.from_numpy(np.frombuffer(_encoded(state), np.uint8).copy())
            self._call(dist.send, torch.tensor([len(mine)]), 0)
            self._call(dist.send, mine, 0)
        found = []
        for rank in ranks if self.is_first else ():
            size = torch.zeros(1, dtype=torch.int64)
            self._call(dist.recv, size, rank)
            text = torch.zeros(int(size), dtype=torch.uint8)
            self._call(dist.recv, text, rank)
            found.append(_decoded(text.numpy().tobytes()))
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
            operation(*arguments, group=self._handle)
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
        size += local_of(parameter).numel() * parameter.element_size()
    return found


def local_of(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that lies in this process: all of it, unless it is sharded."""
    to_local = getattr(tensor, "to_local", None)
    found: Tensor = tensor if to_local is None else to_local()
    return found


def _encoded(state: Any) -> bytes:
    """Return a nested state as bytes: what JSON holds of it, then its tensors."""
    plain, tensors = pack(state)
    kinds = {k: [str(t.dtype).removeprefix("torch."), list(t.shape)] for k, t in tensors.items()}
    head = json.dumps([plain, kinds]).encode()
    body = b"".join(
        t.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        for t in tensors.values()
    )
    return len(head).to_bytes(8, "little") + head + body


def _decoded(text: bytes) -> Any:
    end = 8 + int.from_bytes(text[:8], "little")
    plain, kinds = json.loads(text[8:end])
    return unpack(plain, _tensors(kinds, text[end:]))


def _tensors(kinds: dict[str, Any], body: bytes) -> dict[str, Tensor]:
    found, start = {}, 0
    for name, (dtype, shape) in kinds.items():
        kind: torch.dtype = getattr(torch, dtype)
        end = start + int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        found[name] = torch.empty(shape, dtype=kind)
        if end > start:  # an empty tensor cannot be viewed as another format
            raw = torch.from_numpy(np.frombuffer(body[start:end], np.uint8).copy())
            found[name] = raw.view(kind).reshape(shape)
        start = end
    return found
