"""The gate: which key blocks each query block attends to, and how it learns that.

Means of ``pool`` neighbouring queries and of as many keys are projected to a few dimensions. The
product of two means estimates the logits between them, and the log-sum-exp of the products between
a query block and a key block estimates how much attention the one spends on the other. (MoBA, Lu et
al. 2025, scores whole blocks by their mean key; SeerAttention, Gao et al. 2024, by learned
projections of pooled blocks.)

The gate learns by distillation, as SeerAttention's does, but of a sample: some query rows are
drawn, their attention over *all* keys is computed, and the share of each key block is the target of
a cross-entropy. As that loss is linear in the target, rows drawn at random give an unbiased
gradient, at ``sampled_rows / n`` of the cost of dense attention. Kept blocks are attended to
exactly; the gate's scores never touch the output.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from kernels.ops.attention.config import SparseAttentionConfig
from kernels.ops.attention.dispatch import choose_backend

STEP = 0.1  # a learned weight's part of a projection: the gate moves slower than the model
ROWS_PER_TILE = 8  # drawn rows come in groups of one query block, whose scores they share


class Pooled(NamedTuple):
    """What the gate sees of a batch.

    Attributes:
        queries: float32 [B, H, query blocks, a, D], means of ``pool`` positions.
        keys: float32 [B, H, key blocks, b, D], likewise.
        filled: bool [B, key blocks, b], whether any position of the mean is valid.
    """

    queries: Tensor
    keys: Tensor
    filled: Tensor


class BlockGate(nn.Module):
    """Scores and selects key blocks; see the module's text.

    At first both projections are one random rotation cut to ``rank``, so that a score is the
    log-sum-exp of the logits between means, as good as an untaught gate can be.
    """

    rotation: Tensor

    def __init__(self, config: SparseAttentionConfig) -> None:
        super().__init__()
        self.config = config
        rank = min(config.rank, config.head_dim)
        rotation = torch.empty(config.heads, config.head_dim, rank)
        for head in rotation:
            nn.init.orthogonal_(head)
        # Twice the logit of two means ranks best at first, between 1 and ``pool``, which would
        # restore the logit of a lone matching pair.
        self.register_buffer("rotation", rotation * (2 * config.head_dim / rank) ** 0.5)
        self.query = nn.Parameter(torch.zeros_like(rotation))
        self.key = nn.Parameter(torch.zeros_like(rotation))
        self.sharpness = nn.Parameter(torch.zeros(config.heads, 1, 1))
        self.temperature = nn.Parameter(torch.zeros(config.heads, 1, 1))

    @torch.no_grad()
    def pooled(self, q: Tensor, k: Tensor, lengths: Tensor) -> Pooled:
        """Return the means the gate looks at.

        Args:
            q: Queries [B, H, n, D].
            k: Keys [B, H, n, D].
            lengths: int64 [B], valid positions.
        """
        config = self.config
        means = triton_gate().means if self._on_triton(q.device) else _means
        queries, keys = (means(x, lengths, config) for x in (q, k))
        first = torch.arange(keys.shape[2], device=k.device) * config.pool
        filled = first < lengths[:, None]
        return Pooled(
            queries.unflatten(2, (config.tiles(q.shape[2]), -1)),
            keys.unflatten(2, (config.blocks(q.shape[2]), -1)),
            filled.view(len(filled), config.blocks(q.shape[2]), -1),
        )

    def scores(self, queries: Tensor, keys: Tensor, filled: Tensor) -> Tensor:
        """Return the score of each pair of blocks, float32 [B, H, query blocks, key blocks].

        Args:
            queries: As in `Pooled`, of all or some query blocks.
            keys: As in `Pooled`.
            filled: As in `Pooled`.
        """
        with torch.autocast(queries.device.type, enabled=False):
            return self._scores(queries, keys, filled)

    def _scores(self, queries: Tensor, keys: Tensor, filled: Tensor) -> Tensor:
        tiles, blocks = queries.shape[2], keys.shape[2]
        left, right = self._projected(queries, keys)
        found = left @ right.mT
        found = found.masked_fill(~filled.flatten(1)[:, None, None], -1e30)
        each = found.view(*found.shape[:2], tiles, -1, blocks, filled.shape[2])
        result: Tensor = each.logsumexp((3, 5)) * self.temperature.float().exp()
        return result

    def _projected(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Return means of queries, scaled, and of keys in few dimensions, [B, H, means, rank]."""
        scale = self.config.head_dim**-0.5 * self.sharpness.float().exp()
        left = queries.flatten(2, 3) @ (self.rotation + self.query * STEP).float()
        right = keys.flatten(2, 3) @ (self.rotation + self.key * STEP).float()
        return left * scale, right

    @torch.no_grad()
    def choose(self, pooled: Pooled, lengths: Tensor, n: int) -> Tensor:
        """Return the key blocks with the highest scores, as `select` does.

        Args:
            pooled: What `pooled` returned.
            lengths: int64 [B].
            n: Positions of the (padded) sequences.

        Returns:
            int64 [B, H, query blocks, kept], as `block_sparse_attention` takes them.
        """
        if not self._on_triton(lengths.device) or not triton_gate().fits(self.config):
            return self.select(self.scores(*pooled), lengths, n)
        with torch.autocast(lengths.device.type, enabled=False):
            left, right = self._projected(pooled.queries, pooled.keys)
            heat = self.temperature.float().exp().flatten()
            ranked = triton_gate().ranked(left, right, heat, lengths, n, self.config)
        return self._best(ranked, n)

    def _best(self, ranked: Tensor, n: int) -> Tensor:
        best = ranked.topk(self.config.kept(n), -1)
        return best.indices.masked_fill(best.values == float("-inf"), -1)

    def _on_triton(self, device: torch.device) -> bool:
        return choose_backend(self.config.backend, device) == "triton"

    def select(self, scores: Tensor, lengths: Tensor, n: int) -> Tensor:
        """Return the blocks with the highest scores, as `block_sparse_attention` takes them.

        Args:
            scores: [B, H, query blocks, key blocks].
            lengths: int64 [B].
            n: Positions of the (padded) sequences.

        Returns:
            int64 [B, H, query blocks, kept]; a query block's own blocks come first.
        """
        allowed = candidates(lengths, n, self.config)
        # NaN counts as 0, and nothing goes before a block of the query block's own.
        ranked = scores.detach().nan_to_num(nan=0.0).clamp(-1e29, 1e29)
        ranked = ranked.masked_fill(~allowed, float("-inf"))
        own = self.config.own
        for place in range(own):
            ranked[..., place::own].diagonal(dim1=-2, dim2=-1).fill_(1e30 * (own - place))
        return self._best(ranked, n)

    def loss(self, pooled: Pooled, q: Tensor, k: Tensor, lengths: Tensor) -> Tensor:
        """Return how badly the scores foretell the attention of rows drawn at random, a scalar.

        The cross-entropy, in nats, between the attention that a row spends outside its own query
        block (which is kept in any case) and the softmax of the scores over those blocks.

        Args:
            pooled: What `pooled` returned.
            q: Queries [B, H, n, D].
            k: Keys [B, H, n, D].
            lengths: int64 [B].
        """
        config, n = self.config, q.shape[2]
        per_tile = min(ROWS_PER_TILE, config.sampled_rows, config.query_block)
        count = min(-(-config.sampled_rows // per_tile), config.tiles(n))
        used = -(-lengths // config.query_block)
        draw = torch.rand(len(q), count, device=q.device)
        tile = (draw * used[:, None]).long()  # [B, count], the same for all heads
        inside = torch.rand(len(q), count, per_tile, device=q.device)
        start = tile[..., None] * config.query_block
        room = (lengths[:, None, None] - start).clamp(1, config.query_block)
        rows = (start + (inside * room).long()).clamp(max=n - 1)
        shares = triton_gate().block_shares if self._on_triton(q.device) else block_shares
        target = shares(q, k, rows.flatten(1), lengths, config)
        target = target.view(*target.shape[:2], count, per_tile, -1).mean(3)
        chosen = pooled.queries.take_along_dim(tile[:, None, :, None, None], 2)
        scores = self.scores(chosen, pooled.keys, pooled.filled)
        place = torch.arange(scores.shape[-1], device=q.device)
        holder = torch.div(place, config.own, rounding_mode="floor")
        allowed = candidates(lengths, n, config).take_along_dim(tile[:, None, :, None], 2)
        allowed = allowed & (holder != tile[:, None, :, None])
        log_share = scores.masked_fill(~allowed, -1e30).log_softmax(-1)
        return -(target * log_share.masked_fill(~allowed, 0.0)).sum(-1).mean()


def triton_gate() -> ModuleType:
    """Import on use: Triton reads TRITON_INTERPRET when it is imported."""
    return importlib.import_module("kernels.ops.attention.triton_gate")


def candidates(lengths: Tensor, n: int, config: SparseAttentionConfig) -> Tensor:
    """Return which key blocks a query block may keep, bool [B, 1, query blocks, key blocks]."""
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
        float32 [B, H, R, key blocks], summing to 1 over the blocks.
    """
    n = q.shape[2]
    picked = q.take_along_dim(rows[:, None, :, None], 2)
    logits = (picked @ k.to(q.dtype).mT).float() * config.head_dim**-0.5
    position = torch.arange(n, device=q.device)
    limit = (lengths - 1).clamp(min=0)[:, None].expand_as(rows)
    if config.causal:
        limit = torch.minimum(limit, rows)
    weights = logits.masked_fill_((position > limit[..., None])[:, None], -1e30).softmax(-1)
    padded = functional.pad(weights, (0, -n % config.query_block))
    return padded.view(*padded.shape[:-1], -1, config.block).sum(-1)


def _means(x: Tensor, lengths: Tensor, config: SparseAttentionConfig) -> Tensor:
    """Return the mean of the valid ones of each ``pool`` positions, float32 [B, H, m, D]."""
    gap = -x.shape[2] % config.query_block
    if gap:
        x = functional.pad(x, (0, 0, 0, gap))
    # To ask a GPU whether anything is to be masked takes longer than to mask.
    if x.device.type != "cpu" or not bool((lengths + gap == x.shape[2]).all()):
        beyond = torch.arange(x.shape[2], device=x.device) >= lengths[:, None]
        x = x.masked_fill(beyond[:, None, :, None], 0.0)
    groups = x.reshape(*x.shape[:2], -1, config.pool, x.shape[3])
    first = torch.arange(groups.shape[2], device=x.device) * config.pool
    count = (lengths[:, None] - first).clamp(1, config.pool)
    return groups.sum(3, dtype=torch.float32) / count[:, None, :, None]


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
