"""CPU kernel: kept key and value blocks are gathered and met by batched matrix products.

A task is one query block of one head. Tasks are worked off in chunks whose scores stay within the
cache; as a task sees all of its keys at once, its softmax needs no running maximum. The forward
pass saves the log-sum-exp of every row, and the backward pass recomputes the weights from it
(FlashAttention, Dao et al. 2022). Scores lie keys first, [w * block, rows], which spares the
products of the backward pass a transposition. Key and value gradients are added task by task, in
order, so results do not vary from run to run.

Where the norms of queries and keys bound every logit by `SAFE`, exponentials are taken without
subtracting the largest logit first: neither they nor their sums can leave the range of float32, and
floating point is as precise at any scale. Two of five passes over the scores fall away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kernels.ops.attention.config import KernelOptions

CHUNK_BYTES = (
    3_000_000  # scores of a chunk; 1.7 to 6 MB are within noise of each other, .4 is slower
)
MASKED = -1e30  # finite, so that a row without keys has no NaN
SAFE = 60.0  # exp(60) times 1e11 keys fits float32, and exp(-60) is no denormal number


class _Chunk(NamedTuple):
    """Tasks done together.

    Attributes:
        tasks: Slice of the task list.
        query: int64 [c], query block of each task among all heads'.
        key: int64 [c * w], key blocks.
        there: [c, w * block, 1], 1 for keys that may be seen and 0 for others, or None for all.
        past: [rows, rows], the same for keys and rows of the own blocks where causal, else None.
        absent: bool [c, rows], rows beyond the length, or None.
    """

    tasks: slice
    query: Tensor
    key: Tensor
    there: Tensor | None
    past: Tensor | None
    absent: Tensor | None


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    lengths: Tensor,
    options: KernelOptions,
) -> tuple[Tensor, Tensor]:
    """Return the output [B, H, n, D] and the log-sum-exp of each row [B * H, padded n].

    Arguments are those of `block_sparse_attention`, checked.
    """
    kind = torch.promote_types(q.dtype, torch.float32)
    block, query_block, scale = options.block, options.query_block, options.scale
    qs = _blocks(q, query_block, query_block)
    ks, vs = (_blocks(x, block, query_block) for x in (k, v))
    out = torch.empty(qs.shape, dtype=kind)
    lse = torch.empty(qs.shape[:2], dtype=kind)
    bounded = _bounded(q, k, scale)
    room = _Room.of(ks, index.shape[-1], query_block, kind, 1)
    for c in _chunks(index, lengths, options, room.blocks, kind):
        keys, values = room.gathered(ks, c, 0), room.gathered(vs, c, 1)
        queries = _taken(qs, c, kind).mul_(scale)
        scores = _scores(queries, keys, c, room.scores(c, 0), bounded=bounded)
        top = None if bounded else scores.amax(1, keepdim=True)
        scores = scores if top is None else scores.sub_(top)
        total = _exponentials(scores, c, bounded=bounded).sum(1)
        result = torch.bmm(scores.mT, values).div_(total[..., None])
        row_lse = total.log_() if top is None else total.log_().add_(top.squeeze(1))
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
    options: KernelOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v; ``out`` and ``lse`` are those of `forward`."""
    kind = torch.promote_types(q.dtype, torch.float32)
    block, query_block, scale = options.block, options.query_block, options.scale
    qs = _blocks(q, query_block, query_block)
    ks, vs = (_blocks(x, block, query_block) for x in (k, v))
    upper = _blocks(grad.to(kind), query_block, query_block)
    bounded = _bounded(q, k, scale)
    if bounded:  # weights are exp(scores - lse): the part of lse goes into what they multiply
        upper = upper * lse.neg().exp_().view(-1, query_block, 1)
    delta = (upper * _blocks(out, query_block, query_block)).sum(-1)
    row_lse = lse.view(-1, 1, query_block)
    dq = torch.empty(qs.shape, dtype=kind)
    dk, dv = (torch.zeros(ks.shape, dtype=kind) for _ in "kv")
    room = _Room.of(ks, index.shape[-1], query_block, kind, 2)
    for c in _chunks(index, lengths, options, room.blocks, kind):
        keys, values = room.gathered(ks, c, 0), room.gathered(vs, c, 1)
        queries, above = _taken(qs, c, kind).mul_(scale), upper[c.query]
        weights = _scores(queries, keys, c, room.scores(c, 0), bounded=bounded)
        weights = weights if bounded else weights.sub_(row_lse[c.query])
        _exponentials(weights, c, bounded=bounded)
        slope = torch.bmm(values, above.mT, out=room.scores(c, 1))
        slope.sub_(delta[c.query][:, None]).mul_(weights)
        dq[c.query] = torch.bmm(slope.mT, keys).mul_(scale)
        # The values were used above, so their room takes the products.
        product = torch.bmm(weights, above, out=values)
        dv.index_add_(0, c.key, product.view(-1, *ks.shape[1:]))
        product = torch.bmm(slope, queries, out=values)
        dk.index_add_(0, c.key, product.view(-1, *ks.shape[1:]))
    return _whole(dq, q), _whole(dk, k), _whole(dv, v)


def _bounded(q: Tensor, k: Tensor, scale: float) -> bool:
    """Return whether no logit can exceed `SAFE`, by Cauchy and Schwarz."""
    longest = [float(torch.linalg.vector_norm(x, dim=-1).max()) for x in (q, k)]
    return longest[0] * longest[1] * abs(scale) <= SAFE


def _blocks(x: Tensor, block: int, whole: int) -> Tensor:
    """Return [B, H, n, D] as [B * H * blocks, block, D], zeros up to a multiple of ``whole``."""
    gap = -x.shape[2] % whole
    padded = functional.pad(x, (0, 0, 0, gap)) if gap else x
    return padded.reshape(-1, block, x.shape[3])


def _whole(blocks: Tensor, like: Tensor) -> Tensor:
    batch, heads, n, _ = like.shape
    return blocks.view(batch, heads, -1, blocks.shape[-1])[:, :, :n].to(like.dtype)


def _taken(blocks: Tensor, c: _Chunk, kind: torch.dtype) -> Tensor:
    """Return a copy of each task's query block, [c, rows, D]."""
    return blocks.index_select(0, c.query).to(kind)


def _scores(queries: Tensor, keys: Tensor, c: _Chunk, out: Tensor, *, bounded: bool) -> Tensor:
    """Return the logits, keys first, masked unless `_exponentials` will do it."""
    torch.bmm(keys, queries.mT, out=out)
    if not bounded:
        if c.past is not None:
            out[:, : len(c.past)].add_((1 - c.past) * MASKED)
        if c.there is not None:
            out.add_((1 - c.there) * MASKED)
    return out


def _exponentials(scores: Tensor, c: _Chunk, *, bounded: bool) -> Tensor:
    """Return exp(scores) in place; bounded ones are masked now, as exp of -1e30 takes long."""
    scores.exp_()
    if bounded:
        if c.past is not None:
            scores[:, : len(c.past)].mul_(c.past)
        if c.there is not None:
            scores.mul_(c.there)
    return scores


@dataclass(frozen=True, slots=True)
class _Room:
    """Memory that every chunk uses again: fresh pages would cost as much as the products.

    Attributes:
        blocks: Kept blocks that fit, summed over the tasks of a chunk.
        rows: Queries per task.
        pairs: Gathered keys and values, [blocks, block, D] each.
        short: The same in the dtype of the inputs where that is another one, else None.
        squares: Scores, and what else has their size.
    """

    blocks: int
    rows: int
    pairs: tuple[Tensor, Tensor]
    short: Tensor | None
    squares: tuple[Tensor, ...]

    @classmethod
    def of(cls, keys: Tensor, width: int, rows: int, kind: torch.dtype, squares: int) -> _Room:
        """Return room for chunks of tasks of ``rows`` queries and up to ``width`` key blocks."""
        block = keys.shape[1]
        blocks = max(width, CHUNK_BYTES // (rows * block * kind.itemsize))
        shape = (blocks, *keys.shape[1:])
        return cls(
            blocks,
            rows,
            (torch.empty(shape, dtype=kind), torch.empty(shape, dtype=kind)),
            torch.empty(shape, dtype=keys.dtype) if keys.dtype != kind else None,
            tuple(torch.empty(blocks * block * rows, dtype=kind) for _ in range(squares)),
        )

    def gathered(self, blocks: Tensor, c: _Chunk, place: int) -> Tensor:
        """Return the kept blocks of each task side by side, [c, w * block, D]."""
        found = self.pairs[place][: len(c.key)]
        if self.short is None:
            torch.index_select(blocks, 0, c.key, out=found)
        else:
            found.copy_(torch.index_select(blocks, 0, c.key, out=self.short[: len(c.key)]))
        return found.view(len(c.query), -1, blocks.shape[2])

    def scores(self, c: _Chunk, place: int) -> Tensor:
        """Return room for the chunk's scores, [c, w * block, rows]."""
        size = len(c.key) * self.pairs[0].shape[1] * self.rows
        return self.squares[place][:size].view(len(c.query), -1, self.rows)


def _chunks(
    index: Tensor, lengths: Tensor, options: KernelOptions, room: int, kind: torch.dtype
) -> Iterator[_Chunk]:
    """Yield all tasks; those of one query block lie together, as they keep equally many keys."""
    block, rows = options.block, options.query_block
    batch, heads, tiles, width = index.shape
    blocks = tiles * rows // block
    tasks = index.permute(2, 0, 1, 3).reshape(-1, width)
    head = torch.arange(batch * heads).repeat(tiles)
    own = torch.arange(tiles).repeat_interleave(batch * heads)
    length = lengths.repeat_interleave(heads).repeat(tiles)
    first = (head * blocks)[:, None]
    counts = (tasks >= 0).sum(1)
    last = tasks.amax(1)
    ragged = ((last + 1) * block > length).tolist()
    counted = counts.tolist()
    inside, row = torch.arange(block), torch.arange(rows)
    past = (row[:, None] <= row).to(kind) if options.causal else None
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
        there = absent = None
        if any(ragged[part]) or min(counted[part]) < widest:
            place = kept[..., None] * block + inside
            seen = (kept >= 0)[..., None] & (place < length[part, None, None])
            there = seen.flatten(1)[..., None].to(kind)
            absent = own[part, None] * rows + row >= length[part, None]
        query = head[part] * tiles + own[part]
        key = (first[part] + kept.clamp(min=0)).reshape(-1)
        yield _Chunk(part, query, key, there, past, absent)
        start = stop
