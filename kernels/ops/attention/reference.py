"""What block-sparse attention computes, in plain torch: dense attention under a mask."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.ops.attention.config import KernelOptions


def visible(index: Tensor, lengths: Tensor, n: int, options: KernelOptions) -> Tensor:
    """Return which keys each query sees, bool [B, H, n, n]; see `block_sparse_attention`."""
    block, query_block = options.block, options.query_block
    blocks = index.shape[2] * query_block // block
    kept = torch.zeros(*index.shape[:3], blocks + 1, dtype=torch.bool, device=index.device)
    kept.scatter_(3, index.where(index >= 0, blocks), True)  # noqa: FBT003 - a value, not a flag
    seen = kept[..., :blocks].repeat_interleave(query_block, 2).repeat_interleave(block, 3)
    seen = seen[:, :, :n, :n]
    position = torch.arange(n, device=index.device)
    if options.causal:
        seen = seen & (position[:, None] >= position)
    there = position < lengths[:, None]
    return seen & there[:, None, :, None] & there[:, None, None, :]


def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    lengths: Tensor,
    options: KernelOptions,
) -> Tensor:
    """Return the attention of each query over the keys it sees; autograd differentiates it.

    Args:
        q: Queries [B, H, n, D].
        k: Keys [B, H, n, D].
        v: Values [B, H, n, D].
        index: int64 [B, H, query blocks, w], key blocks of each query block, -1 for an empty slot.
        lengths: int64 [B], valid positions of each sequence; the others get 0.
        options: Sizes of blocks, whether causal, and the factor of the logits.
    """
    kind = torch.promote_types(q.dtype, torch.float32)
    seen = visible(index, lengths, q.shape[2], options)
    logits = (q.to(kind) @ k.to(kind).transpose(-1, -2)) * options.scale
    weights = logits.masked_fill(~seen, float("-inf")).softmax(-1)
    weights = weights.masked_fill(~seen.any(-1, keepdim=True), 0.0)
    return (weights @ v.to(kind)).to(q.dtype)
