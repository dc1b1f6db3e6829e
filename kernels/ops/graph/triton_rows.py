"""What the Triton kernels of graphs share: the edges of a row, some at a time."""

from __future__ import annotations

import triton
from triton import language as tl

MOST_NUMBERS = 512
"""Numbers that a program holds of the rows at the other ends of its edges."""
MOST_EDGES, FEWEST_EDGES, MOST_WARPS = 32, 4, 8
EMPTY = tl.constexpr(-3.4e38)
"""Largest score of no edges: about the least float32, finite, so that differences are no NaN."""


def launch_sizes(width: int, per_warp: int) -> dict[str, int]:
    """Return edges taken at a time and warps; measured on an H200, see docs/benchmarks.md.

    Args:
        width: Numbers in a row, a power of two.
        per_warp: Numbers that a warp holds.
    """
    edges = max(FEWEST_EDGES, min(MOST_EDGES, MOST_NUMBERS // width))
    warps = max(1, min(MOST_WARPS, edges * width // per_warp))
    return {"EDGES": edges, "num_warps": triton.next_power_of_2(warps)}


@triton.jit  # type: ignore[untyped-decorator]  # triton has no type information
def leaky(x: tl.tensor, slope: tl.constexpr) -> tl.tensor:
    """Return the leaky ReLU."""
    return tl.where(x < 0, x * slope, x)
