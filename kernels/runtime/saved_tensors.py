"""What autograd keeps for the backward pass: counted, packed, moved elsewhere.

Every operation saves tensors for its backward pass; they are what training needs more memory for
than inference. Hooks (``torch.autograd.graph.saved_tensors_hooks``) see each of them: weights are
left alone, the others are packed. Chen et al., "ActNN: reducing training memory footprint via
2-bit activation compressed training", 2021, and Jain et al., "Gist", 2018 (lossless for ReLU).

- ``lossless``: masks as bits, two-valued tensors (dropout) as bits, many zeros (after ReLU) as a
  mask and the rest, indices in the narrowest integers. Gradients stay what they are, bit by bit.
- ``bf16``, ``fp16``: half the bytes.
- ``int8``: a quarter; of every 256 neighbours the largest stays exact, the others err by at most
  1/254 of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from kernels.ops import compact

Packing = Literal["none", "lossless", "bf16", "fp16", "int8"]
SMALL = 1_024
"""Tensors of fewer elements are not worth packing."""

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
ZEROS = 0.25
"""Share of zeros from which a mask pays."""


class Packed:
    """A saved tensor in another form. Held by autograd; freed with it.

    Attributes:
        parts: The tensors it consists of.
    """

    __slots__ = ("__weakref__", "_home", "_restore", "parts")

    def __init__(self, parts: tuple[Tensor, ...], restore: Callable[..., Tensor]) -> None:
        self.parts = parts
        self._home = parts[0].device
        self._restore = restore

    def move(self, device: str) -> None:
        """Keep the parts elsewhere in the meantime."""
        self.parts = tuple(p.to(device, non_blocking=True) for p in self.parts)

    def restore(self) -> Tensor:
        """Return the tensor, on the device it came from."""
        return self._restore(*(p.to(self._home, non_blocking=True) for p in self.parts))

    @property
    def bytes(self) -> int:
        """Bytes it takes."""
        return sum(p.numel() * p.element_size() for p in self.parts)


@dataclass(slots=True)
class Count:
    """What was saved in one forward pass.

    Attributes:
        plain_bytes: Bytes of the tensors as they came, each storage once, without weights.
        kept_bytes: Bytes of what was kept in their place.
    """

    plain_bytes: int = 0
    kept_bytes: int = 0


class SavedTensors:
    """Packs what autograd saves.

    A tensor saved by several operations is packed once: its storage tells, by a weak reference
    that outlives it, so that a new tensor at the same address is not taken for it.
    """

    def __init__(self, model: nn.Module, packing: Packing, *, to_cpu: bool = False) -> None:
        """Prepare.

        Args:
            model: Its parameters are left alone.
            packing: How tensors are packed.
            to_cpu: Move them to the memory of the CPU in the meantime.
        """
        self._weights = [*model.parameters(), *model.buffers()]
        self._packing, self._to_cpu = packing, to_cpu
        self._known: dict[Any, tuple[StorageWeakRef, weakref.ref[Packed]]] = {}
        self._left: set[int] = set()
        self.count = Count()
        self._seen: set[Any] = set()

    @contextmanager
    def active(self) -> Iterator[Count]:
        """Pack what a forward pass inside saves; yields the count, complete at the end."""
        self._left = {w.untyped_storage().data_ptr() for w in self._weights}
        self._known.clear()
        self._seen.clear()
        self.count = Count()
        with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
            yield self.count
        self._known.clear()
        self._seen.clear()

    def _pack(self, tensor: Tensor) -> Tensor | Packed:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._left:
            return tensor
        place = (tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        key = (storage._cdata, tensor._version, *place)  # noqa: SLF001 - as torch's own reductions
        found = self._known.get(key)
        if found is not None and not _is_gone(found[0]) and (packed := found[1]()) is not None:
            return packed
        packed = self._packed(tensor)
        whole = (storage._cdata, tensor._version)  # noqa: SLF001 - as above
        if whole not in self._seen:
            self._seen.add(whole)
            self.count.plain_bytes += storage.nbytes()
            if packed is None:
                self.count.kept_bytes += storage.nbytes()
        if packed is None:
            return tensor
        self.count.kept_bytes += packed.bytes
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]  # torch's
        self._known[key] = (reference, weakref.ref(packed))
        return packed

    def _packed(self, tensor: Tensor) -> Packed | None:
        if tensor.numel() < SMALL or not tensor.is_contiguous():
            return None
        packed = pack(tensor, self._packing)
        if self._to_cpu and tensor.device.type != "cpu":
            packed = packed or Packed((tensor.detach(),), lambda t: t)
            packed.move("cpu")
        return packed

    @staticmethod
    def _unpack(saved: Tensor | Packed) -> Tensor:
        return saved.restore() if isinstance(saved, Packed) else saved


def pack(tensor: Tensor, packing: Packing) -> Packed | None:
    """Pack a contiguous tensor; None where it is to stay as it is."""
    if packing == "none":
        return None
    lossless = _lossless(tensor)
    if lossless is not None or packing == "lossless" or not tensor.is_floating_point():
        return lossless
    if packing == "int8":
        return _int8(tensor)
    dtype, own = torch.bfloat16 if packing == "bf16" else torch.float16, tensor.dtype
    if tensor.element_size() <= dtype.itemsize:
        return None
    return Packed((tensor.to(dtype),), lambda t: t.to(own))


def _lossless(tensor: Tensor) -> Packed | None:
    """Pack without any loss, where that saves something."""
    shape, own = tensor.shape, tensor.dtype
    flat = tensor.detach().reshape(-1)
    if own is torch.bool:
        bits, _ = _bits(flat.view(torch.uint8))
        return Packed((bits,), lambda b: _unmasked(b, _one(torch.uint8, b), shape).view(torch.bool))
    if not own.is_floating_point:
        return _narrow(tensor) if own in {torch.int64, torch.int32} else None
    # Compared as integers: a zero with a sign is not nothing.
    numbers = flat.view(_INTEGERS[own.itemsize])
    sample = numbers[:: max(len(numbers) // SMALL, 1)]
    if int((sample == 0).sum()) < ZEROS / 2 * len(sample):
        return None
    bits, count = _bits(numbers)
    if count > (1 - ZEROS) * len(numbers):
        return None
    kept = _kept(numbers, count)
    return Packed((bits, kept), lambda b, k: _unmasked(b, k, shape).view(own))


def _narrow(tensor: Tensor) -> Packed | None:
    own = tensor.dtype
    low, high = int(tensor.min()), int(tensor.max())
    for dtype in (torch.uint8, torch.int16, torch.int32):
        bounds = torch.iinfo(dtype)
        if bounds.min <= low and high <= bounds.max and dtype.itemsize < own.itemsize:
            return Packed((tensor.to(dtype),), lambda t: t.to(own))
    return None


def _int8(tensor: Tensor) -> Packed | None:
    """Scale every 256 neighbours by the largest of them."""
    shape, own, size = tensor.shape, tensor.dtype, tensor.numel()
    flat = tensor.detach().reshape(-1).float()
    if flat.device.type == "cpu":
        codes, scales = (torch.from_numpy(a) for a in compact.to_codes(flat.numpy()))
    else:
        padded = torch.nn.functional.pad(flat, (0, -size % compact.BLOCK))
        blocks = padded.view(-1, compact.BLOCK)
        scales = blocks.abs().amax(1) / 127
        codes = torch.round(blocks / scales.clamp(min=1e-30).unsqueeze(1)).to(torch.int8)

    def restore(kept: Tensor, factor: Tensor) -> Tensor:
        if kept.device.type == "cpu":
            found = torch.empty(size)
            compact.from_codes(kept.numpy(), factor.numpy(), found.numpy())
        else:
            found = (kept * factor.unsqueeze(1)).reshape(-1)[:size]
        return found.reshape(shape).to(own)

    return Packed((codes, scales), restore)


def _bits(numbers: Tensor) -> tuple[Tensor, int]:
    """Return which of n integers are not zero, eight to a byte, and how many."""
    if numbers.device.type == "cpu":
        found, count = compact.nonzero_bits(numbers.numpy())
        return torch.from_numpy(found), int(count)
    mask = numbers != 0
    padded = torch.nn.functional.pad(mask.to(torch.uint8), (0, -len(mask) % 8)).view(-1, 8)
    bits = (padded << torch.arange(8, dtype=torch.uint8, device=mask.device)).sum(1)
    return bits.to(torch.uint8), int(mask.sum())


def _kept(numbers: Tensor, count: int) -> Tensor:
    """Return the numbers that are not zero, or one of them where all are the same."""
    if numbers.device.type == "cpu":
        found, same = compact.gathered(numbers.numpy(), count)
        return torch.from_numpy(found[:1].copy() if same and count else found)
    kept = numbers[numbers != 0]
    return kept[:1].clone() if count and bool((kept == kept[0]).all()) else kept


def _unmasked(bits: Tensor, kept: Tensor, shape: torch.Size) -> Tensor:
    """Undo `_bits` and `_kept`."""
    size = shape.numel()
    if bits.device.type == "cpu":
        found = torch.empty(size, dtype=kept.dtype)
        if len(kept):
            compact.scattered(bits.numpy(), kept.numpy(), found.numpy())
        else:
            found.zero_()
        return found.reshape(shape)
    weights = 1 << torch.arange(8, dtype=torch.uint8, device=bits.device)
    mask = (bits.unsqueeze(1) & weights).bool().reshape(-1)[:size]
    found = torch.zeros(size, dtype=kept.dtype, device=bits.device)
    found[mask] = kept
    return found.reshape(shape)


def _one(dtype: torch.dtype, like: Tensor) -> Tensor:
    return torch.ones(1, dtype=dtype, device=like.device)


def _is_gone(reference: StorageWeakRef) -> bool:
    return bool(reference.expired())  # type: ignore[no-untyped-call]  # torch's
