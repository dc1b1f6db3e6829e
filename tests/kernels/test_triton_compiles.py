"""Every Triton kernel compiles for a GPU, and fits into it, where there is none.

The interpreter that the other tests run by takes what the compiler refuses.
"""

from __future__ import annotations

import inspect

import pytest
import torch

from kernels.ops.attention.config import KernelOptions, SparseAttentionConfig

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from kernels.ops.attention import triton as sparse  # noqa: E402
from kernels.ops.attention import triton_gate  # noqa: E402
from kernels.ops.graph import triton_attention, triton_attention_v2, triton_sum  # noqa: E402

NAMES = {
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}
SHARED_BYTES = {86: 101_376, 90: 232_448}
"""Shared memory that a block of threads may have, by compute capability (CUDA's table 30)."""
INT64 = {"index", "lengths", "starts"}
INT32 = {"indptr", "indices", "edge_of", "place", "readers", "ends"}
NUMBERS = {
    "n",
    "heads",
    "tiles",
    "width",
    "blocks",
    "stride",
    "channels",
    "groups",
    "count",
    "size",
}


def compiled(kernel, dtype, constants, capability, **kinds_of):
    """Compile a kernel whose pointers are to ``dtype`` where their names do not tell otherwise."""
    wide = "fp64" if dtype == torch.float64 else "fp32"
    warps, stages = constants.pop("num_warps", 4), constants.pop("num_stages", 3)
    signature = {}
    for name in inspect.signature(kernel.fn).parameters:
        kinds = {name in constants: "constexpr", name in INT64: "*i64", name in INT32: "*i32",
                 name in NUMBERS: "i32"}  # fmt: skip
        if kernel.fn.__module__.startswith("kernels.ops.attention"):
            kinds[name in {"lse", "delta"}] = f"*{wide}"
            kinds[name in {"left", "right", "temperature"}] = "*fp32"
        signature[name] = kinds_of.get(name) or kinds.get(True, f"*{NAMES[dtype]}")
    places = {(list(signature).index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places)
    options = {"num_warps": warps, "num_stages": stages}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert made.metadata.shared <= SHARED_BYTES[capability]
    return made


def parameters(kernel, values):
    return {name: v for name, v in values.items() if name in inspect.signature(kernel.fn).parameters
            or name.startswith("num_")}  # fmt: skip


@pytest.mark.parametrize("capability", [86, 90])
@pytest.mark.parametrize(
    ("dtype", "dim", "block"),
    [(torch.float32, 128, 64), (torch.bfloat16, 64, 64), (torch.float16, 128, 128),
     (torch.float64, 24, 16)],
    ids=str,
)  # fmt: skip
def test_sparse_attention(dtype, dim, block, capability):
    options = KernelOptions(block=block, query_block=2 * block, causal=dim == 24, scale=dim**-0.5)
    for kernel in (sparse._forward, sparse._backward_queries, sparse._backward_keys):
        back = kernel is not sparse._forward
        sizes = sparse.sizes_of(dtype, dim, options, back=back)
        compiled(kernel, dtype, parameters(kernel, sizes | {"LISTED": 16}), capability)
    for kernel in (sparse._count_readers, sparse._list_readers):
        compiled(kernel, dtype, {"TOGETHER": sparse.TOGETHER}, capability)
    compiled(
        sparse._row_products, dtype, {"DIM": dim, "WIDE": 128, "ROWS": 32}, capability, rows="i32"
    )


@pytest.mark.parametrize("capability", [86, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_gate(dtype, capability):
    means = {"DIM": 128, "WIDE": 128, "POOL": 16, "GROUPS": 8}
    shares = {
        "SCALE": 0.1, "DIM": 128, "WIDE": 128, "ROWS": 64, "BLOCK": 128, "CAUSAL": True,
        "WIDEN": False,
    }  # fmt: skip
    compiled(triton_gate._means, dtype, means, capability)
    compiled(triton_gate._block_lse, dtype, shares, capability, rows="*i64")


@pytest.mark.parametrize("capability", [86, 90])
@pytest.mark.parametrize(
    ("block", "pool", "rank"),
    [(64, 16, 32), (64, 4, 64), (128, 128, 128), (64, 2, 32), (128, 4, 32)],
)
def test_the_ranking_wherever_it_is_taken(block, pool, rank, capability):
    config = SparseAttentionConfig(
        heads=1, head_dim=128, block=block, query_block=2 * block, pool=pool, rank=rank
    )
    assert triton_gate.fits(config) or rank * 2 * block / pool > 2_048
    if triton_gate.fits(config):
        constants = triton_gate.ranked_sizes(config, rank)
        compiled(triton_gate._ranked, torch.float32, constants, capability)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sums_over_rows(dtype):
    flags = dict.fromkeys(("GATHERED", "WEIGHTED", "PLACED", "SCALED", "MEAN"), True)
    for capability, columns in ((86, 2), (86, 128), (90, 128)):
        sizes = {"COLUMNS": columns, **triton_sum.launch_sizes(columns, triton_sum.PER_WARP)}
        compiled(triton_sum._sum_rows, dtype, flags | sizes, capability)
        compiled(triton_sum._edge_products, dtype, {"MEAN": True} | sizes, capability)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("capability", [86, 90])
@pytest.mark.parametrize(("heads", "channels"), [(4, 16), (3, 60), (8, 128)])
def test_graph_attention(dtype, heads, channels, capability):
    for kernel in (
        triton_attention._gat_forward, triton_attention._gat_backward,
        triton_attention_v2._gatv2_forward, triton_attention_v2._gatv2_by_source,
        triton_attention_v2._gatv2_by_target,
    ):  # fmt: skip
        sizes = {"SLOPE": 0.2, **triton_attention.head_sizes(heads, channels)}
        compiled(kernel, dtype, sizes, capability)
