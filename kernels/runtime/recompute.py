"""Activation checkpointing: what a block computed is thrown away and computed again when needed.

Chen et al., "Training deep nets with sublinear memory cost", 2016. ``full`` keeps only the inputs
of each block and costs one more forward pass; ``selective`` keeps what matrix products and
convolutions gave and computes the cheap rest again (Korthikanti et al., "Reducing activation
recomputation in large transformer models", 2022). ``segments`` cuts the whole model instead of
taking its blocks, see `segments`.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from kernels.runtime.forward import replaced_forward

Recompute = Literal["none", "selective", "full", "segments"]
EXPENSIVE = frozenset(
    {"mm", "addmm", "bmm", "baddbmm", "convolution"}
    | {f"_scaled_dot_product_{kind}_attention" for kind in ("flash", "efficient", "cudnn")}
    | {"_scaled_dot_product_flash_attention_for_cpu"}
)
"""Operations of aten whose results ``selective`` keeps."""


Results = deque[tuple[Any, list[Tensor], list[int]]]


class Kept:
    """Results that a block keeps from its forward pass for the one that is done again.

    Attributes:
        bytes: Bytes of all results kept so far.
    """

    def __init__(self) -> None:
        self.bytes = 0

    def contexts(self) -> tuple[TorchDispatchMode, TorchDispatchMode]:
        """Return the contexts of the first and of the second pass over a block."""
        results: Results = deque()
        return _Keeping(results, self), _Giving(results)


class _Keeping(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """First pass: notes the results of expensive operations, in order."""

    def __init__(self, results: Results, kept: Kept) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._results, self._kept = results, kept

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in EXPENSIVE:
            parts = [found] if isinstance(found, Tensor) else list(found)
            tensors = [p for p in parts if isinstance(p, Tensor)]
            self._kept.bytes += sum(t.numel() * t.element_size() for t in tensors)
            self._results.append((found, tensors, [_version(t) for t in tensors]))
        return found


class _Giving(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Second pass: gives them again instead of computing them."""

    def __init__(self, results: Results) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._results = results

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ not in EXPENSIVE:
            return func(*args, **(kwargs or {}))
        found, tensors, versions = self._results.popleft()
        if [_version(t) for t in tensors] != versions:
            raise RuntimeError(
                f"a result of {func} was changed in place after it had been kept; take "
                "memory.recompute='full', or an operation that is not in place"
            )
        return found


def _version(tensor: Tensor) -> int:
    return tensor._version  # noqa: SLF001 - autograd's own count of changes; there is no other


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the blocks of a model by name: the members of its lists and sequences.

    Of nested ones the outermost that have more than one member with parameters; a model without
    any is one block by itself.
    """
    found: dict[str, nn.Module] = {}

    def walk(module: nn.Module, prefix: str) -> None:
        members = [(n, m) for n, m in module.named_children() if any(True for _ in m.parameters())]
        if isinstance(module, nn.Sequential | nn.ModuleList) and len(members) > 1:
            found.update({f"{prefix}{name}": member for name, member in members})
            return
        for name, member in members:
            walk(member, f"{prefix}{name}.")

    walk(model, "")
    return found or {"": model}


@contextmanager
def recomputed(blocks: Sequence[nn.Module], *, selective: bool = False) -> Iterator[Kept]:
    """Let blocks compute again inside; afterwards they are as before.

    Args:
        blocks: Modules none of which is part of another.
        selective: Keep the results of expensive operations.

    Yields:
        What is kept beside that which autograd saves.
    """
    kept = Kept()
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(_wrapped(block, kept if selective else None))
        yield kept


@contextmanager
def _wrapped(block: nn.Module, kept: Kept | None) -> Iterator[None]:
    forward = block.forward
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        first, second = kept.contexts() if kept else (nullcontext(), nullcontext())
        return first, _both(second, _still(norms)) if norms else second

    @functools.wraps(forward)
    def again(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)

    with replaced_forward(block, again):
        yield


@contextmanager
def _still(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Keep batch norms from counting a batch twice: their averages moved in the first pass."""
    own = [(norm, dict(norm.named_buffers(recurse=False))) for norm in norms]
    for norm, buffers in own:
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in own:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


@contextmanager
def _both(one: AbstractContextManager[Any], other: AbstractContextManager[Any]) -> Iterator[None]:
    with one, other:
        yield
