"""Gradients sent in fewer bytes; what a message leaves out is added to the next one.

- ``bf16``: half the bytes.
- ``powersgd``: a matrix of m times n as two thin ones, rank (m + n) numbers; Vogels et al.,
  "PowerSGD: practical low-rank gradient compression for distributed optimization", 2019.
- ``topk``: the largest entries of each matrix, their values in bf16 and their places, as numbers
  or as a bit for every entry, whichever is less; Stich et al., "Sparsified SGD with memory", 2018;
  Lin et al., "Deep gradient compression", 2018.

All three are linear or keep an error (error feedback), so it does not matter that gradients are
sums over items here, not yet means. Vectors (biases, norms) are sent as they are but for ``bf16``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

WORTHWHILE = 0.5
"""Largest share of a matrix's numbers that two thin ones may have, to be sent instead of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionConfig:
    """How gradients are compressed between processes.

    Attributes:
        method: ``none``, ``bf16``, ``powersgd`` or ``topk``.
        rank: Rank of a matrix that is sent (``powersgd``).
        share: Share of a matrix's entries that are sent (``topk``).
        start_step: Steps that are sent whole, for the first gradients point far.
        seed: Seed of the first thin matrices (``powersgd``).
    """

    method: Literal["none", "bf16", "powersgd", "topk"] = "none"
    rank: int = 4
    share: float = 0.1
    start_step: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.method not in {"none", "bf16", "powersgd", "topk"}:
            raise ValueError(
                f"compression.method is {self.method!r}; take 'none', 'bf16', 'powersgd' or 'topk'"
            )
        if self.rank < 1 or self.start_step < 0:
            raise ValueError(
                "compression.rank must be at least 1 and start_step not negative, got "
                f"{self.rank} and {self.start_step}"
            )
        if not 0 < self.share <= 1:
            raise ValueError(f"compression.share must lie in (0, 1], got {self.share}")


class Exchange(Protocol):
    """What compressors need of a group of processes."""

    def all_reduce(self, flat: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""

    def all_gather(self, flat: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, in their order."""


class Compression:
    """Sums gradients over processes in fewer bytes.

    Every process takes the same decisions: they depend on shapes and steps alone.
    """

    def __init__(self, config: CompressionConfig) -> None:
        self.config = config
        self._steps = 0
        self._errors: dict[int, Tensor] = {}
        self._thin: dict[int, Tensor] = {}

    def begin(self, *, finite: bool) -> bool:
        """Begin a step.

        Args:
            finite: Whether the gradients of all processes are. Others would stay in the errors for
                ever, and their step is skipped anyway: they are sent whole.

        Returns:
            Whether the gradients of this step are compressed.
        """
        self._steps += 1
        return self.config.method != "none" and finite and self._steps > self.config.start_step

    def sum(self, gradients: Mapping[int, Tensor], exchange: Exchange) -> None:
        """Replace gradients by approximations of their sums over all processes.

        Args:
            gradients: By the number of their parameter.
            exchange: The processes.
        """
        small = {k: g for k, g in gradients.items() if not self._is_compressed(g)}
        large = {k: g for k, g in gradients.items() if k not in small}
        if small:
            flat = torch.cat([g.reshape(-1) for g in small.values()])
            exchange.all_reduce(flat)
            _scatter(flat, list(small.values()))
        if not large:
            return
        whole = {k: self._with_error(k, g) for k, g in large.items()}
        sums = {"bf16": self._bf16, "powersgd": self._powersgd, "topk": self._topk}
        for key, total in sums[self.config.method](whole, exchange).items():
            large[key].copy_(total.view_as(large[key]))

    def state_dict(self) -> dict[str, Any]:
        """Return what this process has not sent yet, and the thin matrices."""
        return {"steps": self._steps, "errors": dict(self._errors), "thin": dict(self._thin)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state of the same process among as many."""
        self._steps = int(state["steps"])
        self._errors = {int(k): t.clone() for k, t in state["errors"].items()}
        self._thin = {int(k): t.clone() for k, t in state["thin"].items()}

    def begin_anew(self, state: dict[str, Any]) -> None:
        """Go on without what another set of processes had not sent."""
        self._steps = int(state["steps"])

    def _is_compressed(self, gradient: Tensor) -> bool:
        if self.config.method == "bf16":
            return gradient.element_size() > 2
        if self.config.method == "topk":
            return gradient.ndim > 1
        rows = gradient.shape[0] if gradient.ndim > 1 else 1
        columns = gradient.numel() // max(rows, 1)
        thin = self.config.rank * (rows + columns)
        return gradient.ndim > 1 and thin <= WORTHWHILE * gradient.numel()

    def _with_error(self, key: int, gradient: Tensor) -> Tensor:
        """Return a gradient and what was left of those before."""
        wide = gradient.float() if gradient.element_size() < 4 else gradient
        error = self._errors.get(key)
        return wide.clone() if error is None else wide + error.to(wide.device)

    def _bf16(self, whole: Mapping[int, Tensor], exchange: Exchange) -> dict[int, Tensor]:
        sent = {key: each.to(torch.bfloat16) for key, each in whole.items()}
        self._errors |= {key: each - sent[key] for key, each in whole.items()}
        flat = torch.cat([each.reshape(-1) for each in sent.values()])
        exchange.all_reduce(flat)
        return _parts(flat, whole)

    def _powersgd(self, whole: Mapping[int, Tensor], exchange: Exchange) -> dict[int, Tensor]:
        matrices = {key: each.reshape(each.shape[0], -1) for key, each in whole.items()}
        left = {key: each @ self._thin_of(key, each) for key, each in matrices.items()}
        _reduce_all(list(left.values()), exchange)
        # The sums are equal in every process to the bit, so the bases are, too.
        bases = {key: torch.linalg.qr(each).Q for key, each in left.items()}
        right = {key: each.T @ bases[key] for key, each in matrices.items()}
        for key, each in matrices.items():
            self._errors[key] = (each - bases[key] @ right[key].T).view_as(whole[key])
        _reduce_all(list(right.values()), exchange)
        self._thin |= right
        return {key: bases[key] @ right[key].T for key in matrices}

    def _thin_of(self, key: int, matrix: Tensor) -> Tensor:
        """Return the right factor of the step before: a power iteration over the steps."""
        thin = self._thin.get(key)
        if thin is None or not bool(thin.any()):
            # From the seed alone, so that every process draws the same.
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + key)
            thin = torch.randn(matrix.shape[1], self.config.rank, generator=generator)
        return thin.to(matrix)

    def _topk(self, whole: Mapping[int, Tensor], exchange: Exchange) -> dict[int, Tensor]:
        message = []
        for key, each in whole.items():
            flat = each.reshape(-1)
            places = torch.topk(flat.abs(), self._count(flat), sorted=False).indices.sort().values
            values = flat[places].to(torch.bfloat16)
            message += [values.view(torch.uint8), _packed(places, flat.numel())]
            error = flat.clone()
            error[places] -= values.to(flat)
            self._errors[key] = error.view_as(each)
        sizes = [part.numel() for part in message]
        total = {key: torch.zeros_like(each).reshape(-1) for key, each in whole.items()}
        for their in exchange.all_gather(torch.cat(message)):
            parts = iter(torch.split(their, sizes))
            for each in total.values():
                values = next(parts).clone().view(torch.bfloat16)
                places = _unpacked(next(parts), each.numel(), len(values))
                each.index_add_(0, places, values.to(each))
        return total

    def _count(self, flat: Tensor) -> int:
        return math.ceil(self.config.share * flat.numel())


def _packed(places: Tensor, size: int) -> Tensor:
    """Return ascending places in a flat tensor as bytes: numbers, or a bit for each element."""
    kind = _kind(size, len(places))
    if kind is not None:
        return places.to(kind).view(torch.uint8)
    bits = torch.zeros(8 * math.ceil(size / 8), dtype=torch.uint8, device=places.device)
    bits[places] = 1
    weights = 2 ** torch.arange(8, device=places.device)
    return (bits.view(-1, 8) * weights).sum(dim=1).to(torch.uint8)


def _unpacked(message: Tensor, size: int, count: int) -> Tensor:
    kind = _kind(size, count)
    if kind is not None:
        return message.clone().view(kind).to(torch.int64)
    bits = message[:, None] >> torch.arange(8, device=message.device).to(torch.uint8) & 1
    return bits.reshape(-1).nonzero().reshape(-1)


def _kind(size: int, count: int) -> torch.dtype | None:
    """Return the integers that take the fewest bytes, None where bits take fewer."""
    kind = torch.int16 if size <= 2**15 else torch.int32
    return kind if count * kind.itemsize <= size / 8 else None


def _reduce_all(tensors: list[Tensor], exchange: Exchange) -> None:
    """Sum up several tensors in one message, in place."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    exchange.all_reduce(flat)
    _scatter(flat, tensors)


def _scatter(flat: Tensor, tensors: list[Tensor]) -> None:
    parts = torch.split(flat, [t.numel() for t in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _parts(flat: Tensor, shapes: Mapping[int, Tensor]) -> dict[int, Tensor]:
    parts = torch.split(flat, [t.numel() for t in shapes.values()])
    return dict(zip(shapes, parts, strict=True))
