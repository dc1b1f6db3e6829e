"""The kernel as one function: checks, chooses a backend, and connects it to autograd."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.ops.attention.config import BACKENDS, Backend, KernelOptions, check_blocks
from kernels.ops.attention.reference import attention_reference
from kernels.ops.current_device import current_device_of

logger = logging.getLogger(__name__)
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    *,
    block: int = 64,
    query_block: int = 128,
    causal: bool = False,
    lengths: Tensor | None = None,
    scale: float | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Attend, from each query block, to the key blocks listed for it.

    Exact: the result is softmax attention over the listed keys, and dense attention where all are
    listed. Memory beside inputs and output is linear in n.

    Args:
        q: Queries [B, H, n, D], float32, bfloat16, float16 or float64; D from 16 to 128.
        k: Keys, like ``q``.
        v: Values, like ``q``.
        index: int64 [B, H, query blocks, w]; for every query block the key blocks of its own
            positions first, in order, then others (earlier ones where causal), each at most once,
            then -1 for empty slots.
        block: Keys per key block, 16, 32, 64 or 128.
        query_block: Queries per query block, ``block`` or twice that.
        causal: Whether a query sees only keys up to its own position.
        lengths: int64 [B], valid positions of each sequence; rows beyond give 0 and get no
            gradient. None: all n.
        scale: Factor of the logits, D ** -.5 by default.
        backend: ``auto`` takes Triton on CUDA and the CPU kernel elsewhere.

    Returns:
        [B, H, n, D] in the dtype of ``q``.

    Raises:
        ValueError: For shapes, dtypes or an index that do not fit.
        RuntimeError: When the backend asked for cannot run here.
    """
    limits = check_inputs(q, k, v, lengths)
    _check_index(q, index, block, query_block, causal=causal)
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    options = KernelOptions(block=block, query_block=query_block, causal=causal, scale=factor)
    return attend(q, k, v, index, limits, options, backend)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    limits: Tensor,
    options: KernelOptions,
    backend: Backend,
) -> Tensor:
    """Do what `block_sparse_attention` does with inputs that are known to be right.

    Checking an index makes a GPU wait; a gate's own lists need no check.

    Args:
        q: Queries [B, H, n, D].
        k: Keys, like ``q``.
        v: Values, like ``q``.
        index: int64 [B, H, query blocks, w].
        limits: int64 [B], contiguous, what `check_inputs` returned.
        options: Blocks, scale, and whether the past alone is seen.
        backend: See `block_sparse_attention`.

    Returns:
        [B, H, n, D] in the dtype of ``q``.

    Raises:
        RuntimeError: When the backend asked for cannot run here.
    """
    chosen = choose_backend(backend, q.device)
    if chosen == "reference":
        return attention_reference(q, k, v, index, limits, options)
    result: Tensor = _Attention.apply(q, k, v, index, limits, _kernel(chosen), options)
    return result


def choose_backend(asked: Backend, device: torch.device) -> str:
    """Return the backend that runs; logs it.

    Raises:
        ValueError: For an unknown name.
        RuntimeError: When a backend asked for is missing or does not serve the device.
    """
    if asked not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {asked!r}")
    chosen = asked
    if asked == "auto":
        chosen = "triton" if device.type == "cuda" else "cpu"
    if chosen == "cpu" and device.type != "cpu":
        raise RuntimeError(f"backend cpu serves CPU tensors, these are on {device}; use auto")
    if chosen == "triton":
        _require_triton(device)
    logger.debug("block-sparse attention on %s: backend %s (asked: %s)", device, chosen, asked)
    return chosen


def _require_triton(device: torch.device) -> None:
    if importlib.util.find_spec("triton") is None:
        raise RuntimeError("backend triton is not installed; install triton or use backend auto")
    if device.type == "cuda":
        return
    import triton

    if not triton.knobs.runtime.interpret:
        raise RuntimeError(
            f"backend triton needs CUDA tensors, these are on {device}; use backend auto, or set "
            "TRITON_INTERPRET=1 before the start to test it on the CPU"
        )


def _kernel(name: str) -> ModuleType:
    """Import a backend on use: Triton reads TRITON_INTERPRET when it is imported."""
    return importlib.import_module(f"kernels.ops.attention.{name}")


def check_inputs(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the length of each sequence, int64 [B], after checks; see `block_sparse_attention`."""
    if q.dim() != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(
            "q, k and v must have one shape [batch, heads, n, head_dim], got "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if q.dtype not in FLOATS or not q.dtype == k.dtype == v.dtype:
        raise ValueError(
            "q, k and v must share a dtype of float32, bfloat16, float16 or float64, got "
            f"{q.dtype}, {k.dtype} and {v.dtype}; convert them first"
        )
    if not 16 <= q.shape[3] <= 128:
        raise ValueError(f"head_dim must be 16 to 128, got {q.shape[3]}; change the heads")
    if 0 in q.shape:
        raise ValueError(f"q, k and v must not be empty, got {tuple(q.shape)}")
    if lengths is None:
        return torch.full((q.shape[0],), q.shape[2], dtype=torch.int64, device=q.device)
    if lengths.shape != q.shape[:1]:
        raise ValueError(
            f"lengths must hold one number per sequence, [{q.shape[0]}], got {list(lengths.shape)}"
        )
    if not bool(((lengths >= 0) & (lengths <= q.shape[2])).all()):
        raise ValueError(f"lengths must lie in 0..{q.shape[2]}, got {lengths.tolist()}")
    return lengths.to(q.device, torch.int64).contiguous()


def _check_index(q: Tensor, index: Tensor, block: int, query_block: int, *, causal: bool) -> None:
    check_blocks(block, query_block)
    own, tiles = query_block // block, -(-q.shape[2] // query_block)
    if index.dtype != torch.int64 or index.device != q.device:
        raise ValueError(
            f"index must be int64 on {q.device}, got {index.dtype} on {index.device}; use .to()"
        )
    if index.dim() != 4 or index.shape[:3] != (*q.shape[:2], tiles) or index.shape[3] < own:
        raise ValueError(
            f"index must be [{q.shape[0]}, {q.shape[1]}, {tiles}, w] with w >= {own} for query "
            f"blocks of {query_block}, got {list(index.shape)}"
        )
    tile = torch.arange(tiles, device=index.device)[:, None] * own
    limit = tile + own - 1 if causal else tiles * own - 1
    empty = index < 0
    packed = (empty[..., 1:] | ~empty[..., :-1]).all()  # nothing after an empty slot
    ordered = index.sort(-1).values
    single = ((ordered[..., 1:] != ordered[..., :-1]) | (ordered[..., 1:] < 0)).all()
    first = (index[..., :own] == tile + torch.arange(own, device=index.device)).all()
    if not bool(first & packed & single & ((index >= -1) & (index <= limit)).all()):
        raise ValueError(
            f"index must list, for each query block, its own {own} key blocks first, then others "
            f"in 0..{tiles * own - 1}{' that come earlier' if causal else ''}, each once, then -1; "
            "BlockGate.select makes such lists"
        )


class _Attention(torch.autograd.Function):
    """Saves inputs, output and log-sum-exp; the weights are recomputed."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        index: Tensor,
        lengths: Tensor,
        kernel: ModuleType,
        options: KernelOptions,
    ) -> Tensor:
        with torch.autocast(q.device.type, enabled=False), current_device_of(q):
            out, lse = kernel.forward(q, k, v, index, lengths, options)
        ctx.save_for_backward(q, k, v, index, lengths, out, lse)
        ctx.kernel, ctx.options = kernel, options
        result: Tensor = out
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad.device.type, enabled=False), current_device_of(grad):
            grads = ctx.kernel.backward(grad, *ctx.saved_tensors, ctx.options)
        return (*grads, None, None, None, None)
