"""`SparseAttention`: takes the place of ``scaled_dot_product_attention`` in a model.

self.attend = SparseAttention(SparseAttentionConfig(heads=8, head_dim=64, causal=True))
out = self.attend(q, k, v)  # was F.scaled_dot_product_attention(q, k, v, is_causal=True)
"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.ops.attention.config import KernelOptions, SparseAttentionConfig
from kernels.ops.attention.crossover import Crossover
from kernels.ops.attention.dispatch import attend, check_inputs, choose_backend
from kernels.ops.attention.gate import AttachLoss, BlockGate, Pooled

logger = logging.getLogger(__name__)


class SparseAttention(nn.Module):
    """Self-attention over the key blocks that a learned gate keeps.

    In training the output carries the gate's loss: the caller's backward pass also teaches the
    gate, whose gradient reaches its own weights alone.

    Args:
        config: Settings.
        crossover: Where to remember which lengths dense attention serves faster; shared between
            layers, each case is measured once. None: an own one.

    Attributes:
        gate: The gate, a `BlockGate`.
        gate_loss: The gate's loss at the last call in training, without gradient; None before.
    """

    def __init__(self, config: SparseAttentionConfig, crossover: Crossover | None = None) -> None:
        super().__init__()
        self.config = config
        self.gate = BlockGate(config)
        self.gate_loss: Tensor | None = None
        self._crossover = Crossover() if crossover is None else crossover
        self._logged: set[tuple[int, bool]] = set()

    def forward(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the attention of each position, [B, H, n, D].

        Args:
            q: Queries [B, H, n, D], float32, bfloat16, float16 or float64.
            k: Keys, like ``q``.
            v: Values, like ``q``.
            lengths: int64 [B], valid positions of each sequence; rows beyond give 0.

        Raises:
            ValueError: For shapes that do not fit the configuration.
            RuntimeError: When the backend asked for cannot run here.
        """
        self._check(q)
        limits = check_inputs(q, k, v, lengths)
        dense = self._use_dense(q)
        learns = self.training and torch.is_grad_enabled() and self.config.gate_weight > 0
        learns = learns and self.gate.query.requires_grad
        if dense and not learns:
            return dense_attention(q, k, v, lengths, causal=self.config.causal)
        pooled = self.gate.pooled(q, k, limits)
        if dense:
            out = dense_attention(q, k, v, lengths, causal=self.config.causal)
        else:
            out = self._sparse(q, k, v, pooled, limits)
        if not learns:
            return out
        loss = self.gate.loss(pooled, q.detach(), k.detach(), limits)
        self.gate_loss = loss.detach()
        taught: Tensor = AttachLoss.apply(out, loss, self.config.gate_weight)
        return taught

    def _sparse(self, q: Tensor, k: Tensor, v: Tensor, pooled: Pooled, lengths: Tensor) -> Tensor:
        config = self.config
        options = KernelOptions(
            block=config.block,
            query_block=config.query_block,
            causal=config.causal,
            scale=config.head_dim**-0.5,
        )
        index = self.gate.choose(pooled, lengths, q.shape[2])
        return attend(q, k, v, index, lengths, options, config.backend)

    @torch.no_grad()
    def kept(self, q: Tensor, k: Tensor, lengths: Tensor) -> Tensor:
        """Return the key blocks that each query block keeps, as `BlockGate.select` does.

        Args:
            q: Queries [B, H, n, D].
            k: Keys [B, H, n, D].
            lengths: int64 [B].
        """
        return self.gate.choose(self.gate.pooled(q, k, lengths), lengths, q.shape[2])

    def _use_dense(self, q: Tensor) -> bool:
        config, n = self.config, q.shape[2]
        if config.dense != "measured":
            dense = config.dense == "always"
        elif config.kept(n) >= config.blocks(n):
            dense = True  # the same result, by a kernel without lists
        else:
            dense = not self._sparse_pays(q, n)
        if (n, dense) not in self._logged:
            self._logged.add((n, dense))
            way = "dense" if dense else f"sparse on {choose_backend(config.backend, q.device)}"
            logger.info(
                "attention at n=%d: %s, %d of %d key blocks",
                n, way, config.kept(n), config.blocks(n),
            )  # fmt: skip
        return dense

    def _sparse_pays(self, q: Tensor, n: int) -> bool:
        config = self.config

        def sparse() -> SparseAttention:
            one_head = replace(config, heads=1, dense="never", gate_weight=0.0)
            return SparseAttention(one_head).to(q.device)

        def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return dense_attention(q, k, v, None, causal=config.causal)

        kept = config.per_log2 if config.share is None else f"share {config.share}"
        blocks = f"blocks of {config.query_block} and {config.block}"
        case = f"causal={config.causal}, D={config.head_dim}, {blocks}, kept={kept}"
        return self._crossover.sparse_pays(sparse, dense, q, n, case)

    def _check(self, q: Tensor) -> None:
        wanted = (self.config.heads, self.config.head_dim)
        if q.dim() != 4 or (q.shape[1], q.shape[3]) != wanted:
            raise ValueError(
                f"SparseAttention expects [batch, {wanted[0]}, n, {wanted[1]}] as its config says "
                f"(heads={wanted[0]}, head_dim={wanted[1]}), got {list(q.shape)}; change either"
            )


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, *, causal: bool
) -> Tensor:
    """Return dense attention by torch's kernel; positions beyond a length give 0."""
    if lengths is None:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    there = torch.arange(q.shape[2], device=q.device) < lengths.to(q.device)[:, None]
    # A causal row below the length sees no key beyond it.
    mask = None if causal else (there | ~there.any(1, keepdim=True))[:, None, None]
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return out.masked_fill(~there[:, None, :, None], 0.0)
