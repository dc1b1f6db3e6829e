"""What block-sparse attention computes, in plain torch: dense attention under a mask."""

from __future__ import annotations

import torch
from torch import Tensor


def visible(
    index: Tensor, lengths: Tensor, n: int, block: int, query_block: int, *, causal: bool
) -> Tensor:
    """Return which keys each query sees, bool [B, H, n, n]; see `block_sparse_attention`."""
    blocks = index.shape[2] * query_block // block
    kept = torch.zeros(*index.shape[:3], blocks + 1, dtype=torch.bool, device=index.device)
    kept.scatter_(3, index.where(index >= 0, blocks), True)  # noqa: FBT003 - a value, not a flag
    seen = kept[..., :blocks].repeat_interleave(query_block, 2).repeat_interleave(block, 3)
    seen = seen[:, :, :n, :n]
    position = torch.arange(n, device=index.device)
    if causal:
        seen = seen & (position[:, None] >= position)
    there = position < lengths[:, None]
    return seen & there[:, None, :, None] & there[:, None, None, :]


def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    lengths: Tensor,
    *,
    block: int,
    query_block: int,
    causal: bool,
    scale: float,
) -> Tensor:
    """Return the attention of each query over the keys it sees; autograd differentiates it.

    Args:
        q: Queries [B, H, n, D].
        k: Keys [B, H, n, D].
        v: Values [B, H, n, D].
        index: int64 [B, H, query blocks, w], key blocks of each query block, -1 for an empty slot.
        lengths: int64 [B], valid positions of each sequence; the others get 0.
        block: Keys per key block.
        query_block: Queries per query block.
        causal: Whether only keys up to the query's position are seen.
        scale: Factor of the logits.
    """
    kind = torch.promote_types(q.dtype, torch.float32)
    seen = visible(index, lengths, q.shape[2], block, query_block, causal=causal)
    logits = (q.to(kind) @ k.to(kind).transpose(-1, -2)) * scale
    weights = logits.masked_fill(~seen, float("-inf")).softmax(-1)
    weights = weights.masked_fill(~seen.any(-1, keepdim=True), 0.0)
    return (weights @ v.to(kind)).to(q.dtype)
