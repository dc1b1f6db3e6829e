"""CPU kernel: kept key and value blocks are gathered and met by batched matrix products.

A task is one query block of one head. Tasks are worked off in chunks whose scores stay within the
cache; as a task sees all of its keys at once, its softmax needs no running maximum. The forward
pass saves the log-sum-exp of every row, and the backward pass recomputes the weights from it
(FlashAttention, Dao et al. 2022). Key and value gradients are added task by task, in order, so
results do not vary from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

CHUNK_BYTES = (
    1_700_000  # scores of a chunk; the fastest of .2 to 8 MB on 2 MB of second-level cache
)
MASKED = -1e30  # finite, so that a row without keys has no NaN


class _Chunk(NamedTuple):
    """Tasks done together.

    Attributes:
        tasks: Slice of the task list.
        query: int64 [c], query block of each task among all heads'.
        key: int64 [c * w], key blocks.
        hidden: bool [c, 1, w * block], keys to mask, or None.
        own: bool [block, block], what causality masks in the own block, or None.
        absent: bool [c, block], rows beyond the length, or None.
    """

    tasks: slice
    query: Tensor
    key: Tensor
    hidden: Tensor | None
    own: Tensor | None
    absent: Tensor | None


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    lengths: Tensor,
    *,
    block: int,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return the output [B, H, n, D] and the log-sum-exp of each row [B * H, padded n].

    Arguments are those of `block_sparse_attention`, checked.
    """
    kind = torch.promote_types(q.dtype, torch.float32)
    qs, ks, vs = (_blocks(x, block) for x in (q, k, v))
    out = torch.empty(qs.shape, dtype=kind)
    lse = torch.empty(qs.shape[:2], dtype=kind)
    for c in _chunks(index, lengths, block, kind.itemsize, causal=causal):
        keys, values = _gather(ks, c, kind), _gather(vs, c, kind)
        scores = _scores(qs, keys, c, kind, scale)
        top = scores.amax(-1, keepdim=True)
        total = scores.sub_(top).exp_().sum(-1, keepdim=True)
        result = torch.bmm(scores, values).div_(total)
        row_lse = top.add_(total.log_()).squeeze(-1)
        if c.absent is not None:
            result.masked_fill_(c.absent[..., None], 0.0)
            row_lse.masked_fill_(c.absent, float("inf"))
        out[c.query] = result
        lse[c.query] = row_lse
    return _whole(out, q), lse.view(q.shape[0] * q.shape[1], -1)


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    lengths: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    block: int,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v; ``out`` and ``lse`` are those of `forward`."""
    kind = torch.promote_types(q.dtype, torch.float32)
    qs, ks, vs, gs = (_blocks(x, block) for x in (q, k, v, grad))
    delta = _blocks((grad.to(kind) * out.to(kind)).sum(-1, keepdim=True), block)
    row_lse = lse.view(qs.shape[0], block, 1)
    dq = torch.empty(qs.shape, dtype=kind)
    dk, dv = (torch.zeros(ks.shape, dtype=kind) for _ in "kv")
    for c in _chunks(index, lengths, block, kind.itemsize, causal=causal):
        keys, values = _gather(ks, c, kind), _gather(vs, c, kind)
        weights = _scores(qs, keys, c, kind, scale).sub_(row_lse[c.query]).exp_()
        upper = gs[c.query].to(kind)
        dv.index_add_(0, c.key, torch.bmm(weights.mT, upper).view(-1, *ks.shape[1:]))
        slope = torch.bmm(upper, values.mT).sub_(delta[c.query]).mul_(weights)
        dq[c.query] = torch.bmm(slope, keys).mul_(scale)
        queries = qs[c.query].to(kind).mul_(scale)
        dk.index_add_(0, c.key, torch.bmm(slope.mT, queries).view(-1, *ks.shape[1:]))
    return _whole(dq, q), _whole(dk, k), _whole(dv, v)


def _blocks(x: Tensor, block: int) -> Tensor:
    """Return [B, H, n, D] as [B * H * blocks, block, D], padded with zeros."""
    gap = -x.shape[2] % block
    padded = functional.pad(x, (0, 0, 0, gap)) if gap else x
    return padded.reshape(-1, block, x.shape[3])


def _whole(blocks: Tensor, like: Tensor) -> Tensor:
    batch, heads, n, _ = like.shape
    return blocks.view(batch, heads, -1, blocks.shape[-1])[:, :, :n].to(like.dtype)


def _gather(blocks: Tensor, c: _Chunk, kind: torch.dtype) -> Tensor:
    """Return the kept blocks of each task side by side, [c, w * block, D]."""
    return blocks.index_select(0, c.key).to(kind).view(len(c.query), -1, blocks.shape[2])


def _scores(qs: Tensor, keys: Tensor, c: _Chunk, kind: torch.dtype, scale: float) -> Tensor:
    scores = torch.bmm(qs[c.query].to(kind).mul_(scale), keys.mT)
    if c.own is not None:
        scores[..., : c.own.shape[1]].masked_fill_(c.own, MASKED)
    if c.hidden is not None:
        scores.masked_fill_(c.hidden, MASKED)
    return scores


def _chunks(
    index: Tensor, lengths: Tensor, block: int, itemsize: int, *, causal: bool
) -> Iterator[_Chunk]:
    """Yield all tasks; those of one query block lie together, as they keep equally many keys."""
    batch, heads, blocks, width = index.shape
    tasks = index.permute(2, 0, 1, 3).reshape(-1, width)
    head = torch.arange(batch * heads).repeat(blocks)
    own = torch.arange(blocks).repeat_interleave(batch * heads)
    length = lengths.repeat_interleave(heads).repeat(blocks)
    first = (head * blocks)[:, None]
    counts = (tasks >= 0).sum(1)
    last = tasks.amax(1)
    ragged = ((last + 1) * block > length).tolist()
    counted = counts.tolist()
    inside = torch.arange(block)
    upper = inside > inside[:, None] if causal else None
    room = CHUNK_BYTES // (block * block * itemsize)
    start = 0
    while start < len(tasks):
        widest, stop = counted[start], start + 1
        while stop < len(tasks):
            wider = max(widest, counted[stop])
            if (stop + 1 - start) * wider > room:
                break
            widest, stop = wider, stop + 1
        part = slice(start, stop)
        kept = tasks[part, :widest]
        hidden = absent = None
        if any(ragged[part]) or min(counted[part]) < widest:
            place = kept[..., None] * block + inside
            hidden = (kept < 0)[..., None] | (place >= length[part, None, None])
            hidden = hidden.flatten(1)[:, None]
            absent = own[part, None] * block + inside >= length[part, None]
        query = first[part, 0] + own[part]
        key = (first[part] + kept.clamp(min=0)).reshape(-1)
        yield _Chunk(part, query, key, hidden, upper, absent)
        start = stop
