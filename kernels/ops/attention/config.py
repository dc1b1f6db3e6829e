"""What a sparse attention keeps, and how its gate learns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Backend = Literal["auto", "reference", "cpu", "triton"]
Dense = Literal["measured", "never", "always"]
BACKENDS = ("auto", "reference", "cpu", "triton")


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelOptions:
    """What every implementation of the kernel is told beside its tensors.

    Attributes:
        block: Keys per key block.
        query_block: Queries per query block, ``block`` or twice that.
        causal: Whether a query sees only keys up to its own position.
        scale: Factor of the logits.
    """

    block: int
    query_block: int
    causal: bool
    scale: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseAttentionConfig:
    """Settings of `SparseAttention`.

    Attributes:
        heads: Number of heads H.
        head_dim: Width D of a head, 16 to 128.
        causal: Whether a position sees only itself and earlier ones.
        block: Keys per key block.
        query_block: Queries that share one list of key blocks, a multiple of ``block``.
        per_log2: Key blocks kept per query block are ``per_log2 * log2(n)`` (rounded), so that the
            cost is O(n log n). Ignored where ``share`` is given.
        share: Fixed share of the key blocks kept instead, in (0, 1]; 1 is exact dense attention.
        pool: Neighbouring positions whose mean the gate looks at, a divisor of ``block``.
        rank: Width of the gate's projections of pooled queries and keys.
        sampled_rows: Query rows per head and call whose dense attention teaches the gate.
        gate_weight: Weight of the gate's loss, which the backward pass adds by itself; 0 for a
            gate that does not learn.
        backend: Kernel backend; ``auto`` takes Triton on CUDA and the CPU kernel elsewhere.
        dense: When to call dense attention instead: ``measured`` where a measurement on this
            device finds it faster, ``never`` or ``always``.
    """

    heads: int
    head_dim: int
    causal: bool = False
    block: int = 64
    query_block: int = 128
    per_log2: float = 1.0
    share: float | None = None
    pool: int = 16
    rank: int = 32
    sampled_rows: int = 64
    gate_weight: float = 1.0
    backend: Backend = "auto"
    dense: Dense = "measured"

    def __post_init__(self) -> None:
        """Raises ValueError naming the field and its range."""
        _at_least_one("heads", self.heads)
        _at_least_one("rank", self.rank)
        _at_least_one("sampled_rows", self.sampled_rows)
        if not 16 <= self.head_dim <= 128:
            raise ValueError(
                f"head_dim must be 16 to 128, got {self.head_dim}; use more or fewer heads"
            )
        check_blocks(self.block, self.query_block)
        if self.pool < 1 or self.block % self.pool:
            raise ValueError(f"pool must divide block ({self.block}), got {self.pool}; try 16")
        if not self.per_log2 > 0:
            raise ValueError(f"per_log2 must be above 0, got {self.per_log2}; 1 is the default")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {self.share}; None keeps log2(n)")
        if not self.gate_weight >= 0:
            raise ValueError(f"gate_weight must be 0 or more, got {self.gate_weight}")
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {self.backend!r}")
        if self.dense not in ("measured", "never", "always"):
            raise ValueError(f"dense must be measured, never or always, got {self.dense!r}")

    def tiles(self, n: int) -> int:
        """Return the number of query blocks of ``n`` positions."""
        return -(-n // self.query_block)

    def blocks(self, n: int) -> int:
        """Return the number of key blocks, those that fill up the last query block included."""
        return self.tiles(n) * self.own

    @property
    def own(self) -> int:
        """Key blocks that hold a query block's own positions."""
        return self.query_block // self.block

    def kept(self, n: int) -> int:
        """Return how many key blocks a query block keeps among ``n`` positions."""
        total = self.blocks(n)
        if self.share is not None:
            wanted = math.ceil(self.share * total)
        else:
            wanted = round(self.per_log2 * math.log2(max(n, 2)))
        return max(self.own, min(wanted, total))


def check_blocks(block: int, query_block: int) -> None:
    """Raises ValueError for block sizes that the kernels do not serve."""
    if block not in (16, 32, 64, 128):
        raise ValueError(f"block must be 16, 32, 64 or 128, got {block}")
    if query_block not in (block, 2 * block):
        raise ValueError(
            f"query_block must be block or twice that ({block} or {2 * block}), got {query_block}"
        )


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
