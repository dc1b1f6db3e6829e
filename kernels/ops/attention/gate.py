"""The gate: which key blocks each query block attends to, and how it learns that.

Queries and keys are pooled over their blocks and projected to a few dimensions; their product says
how much of a query block's attention a key block is expected to hold (SeerAttention, Gao et al.
2024; MoBA, Lu et al. 2025, scores by mean keys alone). It learns by distillation: some query rows
are drawn, their attention over *all* keys is computed, and the share of each key block is the
target of a cross-entropy. As that loss is linear in the target, rows drawn at random give an
unbiased gradient, at ``rows / n`` of the cost of dense attention. Kept blocks are attended to
exactly; the gate's scores never touch the output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from kernels.ops.attention.config import SparseAttentionConfig


class BlockGate(nn.Module):
    """Scores and selects key blocks; see the module's text.

    At first both projections are one random rotation cut to ``rank``, so that a score is about
    the logit of the mean query and the mean key, as good as an untaught gate can be. Largest and
    smallest key of a block start with weight 0.
    """

    def __init__(self, config: SparseAttentionConfig) -> None:
        super().__init__()
        self.config = config
        rank = min(config.rank, config.head_dim)
        rotation = torch.empty(config.heads, config.head_dim, rank)
        for head in rotation:
            nn.init.orthogonal_(head)
        rotation *= (config.head_dim / rank) ** 0.5
        self.query = nn.Parameter(rotation)
        self.key = nn.Parameter(
            torch.cat([rotation, torch.zeros_like(rotation).repeat(1, 2, 1)], 1)
        )

    def scores(self, q: Tensor, k: Tensor, lengths: Tensor) -> Tensor:
        """Return the score of each pair of blocks, float32 [B, H, query blocks, key blocks].

        Args:
            q: Queries [B, H, n, D]; no gradient runs back into them.
            k: Keys [B, H, n, D], likewise.
            lengths: int64 [B], valid positions.
        """
        config = self.config
        queries = pooled_mean(q.detach(), lengths, config.query_block, config)
        mean = pooled_mean(k.detach(), lengths, config.block, config)
        keys = torch.cat([mean, *pooled_range(k.detach(), lengths, config)], -1)
        found = (queries @ self.query) @ (keys @ self.key).mT
        result: Tensor = found * self.config.head_dim**-0.5
        return result

    def select(self, scores: Tensor, lengths: Tensor, n: int) -> Tensor:
        """Return the blocks with the highest scores, as `block_sparse_attention` takes them.

        Args:
            scores: [B, H, query blocks, blocks].
            lengths: int64 [B].
            n: Positions of the (padded) sequences.

        Returns:
            int64 [B, H, query blocks, kept]; a query block's own blocks come first.
        """
        allowed = candidates(lengths, n, self.config)
        ranked = scores.detach().masked_fill(~allowed, float("-inf"))
        own = self.config.own
        for place in range(own):
            ranked[..., place::own].diagonal(dim1=-2, dim2=-1).fill_(1e30 * (own - place))
        best = ranked.topk(self.config.kept(n), -1)
        return best.indices.masked_fill(best.values == float("-inf"), -1)

    def loss(self, scores: Tensor, q: Tensor, k: Tensor, lengths: Tensor) -> Tensor:
        """Return how badly the scores foretell the attention of rows drawn at random, a scalar.

        The cross-entropy, in nats, between the attention that a row spends outside its own query
        block (which is kept in any case) and the softmax of the scores over those blocks.

        Args:
            scores: What `scores` returned.
            q: Queries [B, H, n, D].
            k: Keys [B, H, n, D].
            lengths: int64 [B].
        """
        config, n = self.config, q.shape[2]
        count = min(config.sampled_rows, n)
        draw = torch.rand(q.shape[0], count, device=q.device) * lengths[:, None]
        rows = draw.long().clamp(max=n - 1).sort(1).values  # [B, rows], the same for all heads
        own = torch.div(rows, config.query_block, rounding_mode="floor")
        target = block_shares(q, k, rows, lengths, config)
        chosen = scores.take_along_dim(own[:, None, :, None], 2)
        allowed = candidates(lengths, n, config).take_along_dim(own[:, None, :, None], 2)
        place = torch.arange(scores.shape[-1], device=q.device)
        holder = torch.div(place, config.own, rounding_mode="floor")
        allowed = allowed & (holder != own[:, None, :, None])
        log_share = chosen.masked_fill(~allowed, -1e30).log_softmax(-1)
        return -(target * log_share.masked_fill(~allowed, 0.0)).sum(-1).mean()


def candidates(lengths: Tensor, n: int, config: SparseAttentionConfig) -> Tensor:
    """Return which key blocks a query block may keep, bool [B, 1, query blocks, blocks]."""
    place = torch.arange(config.blocks(n), device=lengths.device)
    filled = (place * config.block < lengths[:, None])[:, None, None]
    if config.causal:
        last = torch.arange(1, config.tiles(n) + 1, device=lengths.device) * config.own
        return filled & (place < last[:, None])
    return filled.expand(-1, -1, config.tiles(n), -1)


@torch.no_grad()
def block_shares(
    q: Tensor, k: Tensor, rows: Tensor, lengths: Tensor, config: SparseAttentionConfig
) -> Tensor:
    """Return the share of each key block in the dense attention of some rows.

    Args:
        q: Queries [B, H, n, D].
        k: Keys [B, H, n, D].
        rows: int64 [B, R], query rows below the length.
        lengths: int64 [B].
        config: Blocks, and whether the past alone is seen.

    Returns:
        float32 [B, H, R, blocks], summing to 1 over the blocks.
    """
    n = q.shape[2]
    picked = q.take_along_dim(rows[:, None, :, None], 2)
    logits = (picked @ k.mT).float() * config.head_dim**-0.5
    position = torch.arange(n, device=q.device)
    limit = rows if config.causal else (lengths - 1)[:, None].expand_as(rows)
    limit = torch.minimum(limit, (lengths - 1).clamp(min=0)[:, None])
    weights = logits.masked_fill_((position > limit[..., None])[:, None], -1e30).softmax(-1)
    gap = -n % config.query_block
    padded = functional.pad(weights, (0, gap))
    return padded.view(*padded.shape[:-1], -1, config.block).sum(-1)


def pooled_mean(x: Tensor, lengths: Tensor, block: int, config: SparseAttentionConfig) -> Tensor:
    """Return the mean of the valid positions of each block, float32 [B, H, blocks, D]."""
    whole = _split(x, lengths, block, config.query_block, 0.0)
    first = torch.arange(whole.shape[2], device=x.device) * block
    count = (lengths[:, None] - first).clamp(1, block)
    return whole.sum(3, dtype=torch.float32) / count[:, None, :, None]


def pooled_range(
    x: Tensor, lengths: Tensor, config: SparseAttentionConfig
) -> tuple[Tensor, Tensor]:
    """Return the largest and smallest valid value of each block, float32 [B, H, blocks, D]."""
    sizes = config.block, config.query_block
    high = _split(x, lengths, *sizes, float("-inf")).amax(3).float()
    low = _split(x, lengths, *sizes, float("inf")).amin(3).float()
    return high.nan_to_num(neginf=0.0), low.nan_to_num(posinf=0.0)


def _split(x: Tensor, lengths: Tensor, block: int, whole: int, fill: float) -> Tensor:
    """Return [B, H, blocks, block, D] with ``fill`` beyond each length."""
    gap = -x.shape[2] % whole
    if gap:
        x = functional.pad(x, (0, 0, 0, gap), value=fill)
    if not bool((lengths + gap == x.shape[2]).all()):
        beyond = torch.arange(x.shape[2], device=x.device) >= lengths[:, None]
        x = x.masked_fill(beyond[:, None, :, None], fill)
    return x.reshape(*x.shape[:2], -1, block, x.shape[3])


class AttachLoss(torch.autograd.Function):
    """Identity on an output whose backward pass also runs through a loss.

    So the gate learns whatever the caller's own loss is, with no line added to the caller's loop.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, loss: Tensor, weight: float) -> Tensor:
        """Return ``out``."""
        ctx.weight, ctx.kind = weight, loss.dtype
        return out.view_as(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Hand the gradient on, and give the loss its weight."""
        return grad, torch.full((), ctx.weight, dtype=ctx.kind, device=grad.device), None
