"""Sequences cut over processes: each has its tokens' queries and gathers all keys and values.

The way of Llama 3 (Dubey et al., "The Llama 3 herd of models", 2024, section 3.3.2). Torch's own
``context_parallel`` knows the attention kernels of GPUs alone; this one is made of torch's
``scaled_dot_product_attention`` and runs wherever that does. Everything else in a model must look
at one token at a time, and a batch must bring the tokens' positions where a model needs them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from kernels.runtime.accumulation import map_tensors
from kernels.runtime.parallel import SpreadError


class ContextAttention(TorchFunctionMode):
    """Lets attention inside see the whole sequence.

    Attributes:
        calls: How often attention was computed so far.
    """

    def __init__(self, group: dist.ProcessGroup, rank: int, size: int) -> None:
        """Know the processes among which sequences are cut.

        Args:
            group: They.
            rank: Number of this one.
            size: How many there are.
        """
        super().__init__()
        self._group, self._rank, self._size = group, rank, size
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.multi_head_attention_forward:
            raise SpreadError(
                "parallel.context: nn.MultiheadAttention hides its attention; call "
                "torch.nn.functional.scaled_dot_product_attention"
            )
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.calls += 1
        return self._attend(*args, **(kwargs or {}))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,  # noqa: FBT001, FBT002 - torch's signature
        scale: float | None = None,
        enable_gqa: bool = False,  # noqa: FBT001, FBT002 - torch's signature
    ) -> Tensor:
        """Compute attention of the queries that lie here to all keys.

        Args:
            query: (..., tokens here, width).
            key: The same, gathered here.
            value: The same.
            attn_mask: None; others would have to be cut, too.
            dropout_p: Dropout of the weights.
            is_causal: No token sees a later one.
            scale: Factor of the products, torch's by itself.
            enable_gqa: Several heads of queries share one of keys.
        """
        if attn_mask is not None:
            raise SpreadError("parallel.context knows is_causal but no attn_mask; leave it out")
        if is_causal:
            here = query.shape[-2]
            rows = torch.arange(here, device=query.device) + self._rank * here
            columns = torch.arange(here * self._size, device=query.device)
            attn_mask = rows[:, None] >= columns
        place = self._group, self._rank, self._size
        key, value = _Gathered.apply(key, *place), _Gathered.apply(value, *place)
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, scale=scale, enable_gqa=enable_gqa
        )


class _Gathered(torch.autograd.Function):
    """All processes' tokens, in order; gradients are summed where their tokens lie."""

    @staticmethod
    def forward(
        context: Any, tokens: Tensor, group: dist.ProcessGroup, rank: int, size: int
    ) -> Tensor:
        context.group, context.rank, context.size = group, rank, size
        parts = [
            torch.empty_like(tokens, memory_format=torch.contiguous_format) for _ in range(size)
        ]
        dist.all_gather(parts, tokens.contiguous(), group=group)
        return torch.cat(parts, dim=-2)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        total = gradient.contiguous()
        dist.all_reduce(total, group=context.group)
        return total.chunk(context.size, dim=-2)[context.rank], None, None, None


def cut_sequences(batch: Any, dim: int, rank: int, size: int) -> Any:
    """Return one process's tokens of a batch.

    Args:
        batch: Tensors, nested; those without dimension ``dim`` go to every process.
        dim: Dimension of the tokens.
        rank: Number of the process.
        size: How many there are.

    Raises:
        SpreadError: When a sequence cannot be cut evenly.
    """

    def cut(tensor: Tensor) -> Tensor:
        if tensor.ndim <= dim:
            return tensor
        if tensor.shape[dim] % size:
            raise SpreadError(
                f"parallel.context cuts sequences of {tensor.shape[dim]} tokens (dimension {dim}) "
                f"into {size}; pad them to a multiple, or leave context at 1"
            )
        return tensor.chunk(size, dim=dim)[rank]

    return map_tensors(batch, cut)
