"""GPU: mixed precision, fp8, compiled steps, sparse attention and graph layers on one CUDA device.

Baselines run in turn with what is compared, on the same inputs; a time is the least of the repeats
between two events of the device. Appends a line of figures to a dated file, see ``--csv``. Without
a CUDA device it says so and ends with 2; ``--smoke`` runs the same code anywhere.
"""

from __future__ import annotations

import csv
import datetime as dt
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.ops.attention.config import SparseAttentionConfig
from kernels.ops.attention.module import SparseAttention
from kernels.ops.graph import CsrGraph, SAGEConv
from kernels.runtime.precision import Precision, PrecisionConfig
from tests.benchmarks._gnn_cases import Sage, gat_case, skewed, sparse_rows, training_step
from tests.benchmarks._harness import emit, parser, run_program, table
from tests.benchmarks._pyg import pyg

Step = Callable[[], object]
NO_DEVICE = 2


def least_ms(ways: dict[str, Step], device: torch.device, repeats: int) -> dict[str, float]:
    """Return the least milliseconds of each way; all take turns after three rounds unmeasured."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 3):
        for name, step in ways.items():
            found[name].append(_ms(step, device))
    return {name: min(times[3:]) for name, times in found.items()}


def _ms(step: Step, device: torch.device) -> float:
    if device.type != "cuda":
        began = time.perf_counter()
        step()
        return (time.perf_counter() - began) * 1e3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def as_graph(step: Step, device: torch.device) -> Step:
    """Return a step that replays what one call launches, free of the CPU's part of it."""
    if device.type != "cuda":
        return step
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def encoder(width: int, layers: int) -> nn.Module:
    """Return a transformer encoder as users build it."""
    layer = nn.TransformerEncoderLayer(width, width // 64, 4 * width, 0.0, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def precision_ways(device: torch.device, *, small: bool) -> dict[str, Step]:
    """Return a training step of an encoder in every format that the runtime offers here."""
    width, layers, rows, length = (64, 1, 2, 16) if small else (1024, 8, 16, 512)
    model = encoder(width, layers).to(device)
    x = torch.randn(rows, length, width, device=device)

    def step_in(compute: Any) -> Step:
        precision = Precision(PrecisionConfig(compute=compute), device, model)

        def step() -> None:
            model.zero_grad(set_to_none=True)
            with precision.switched():
                with precision.autocast():
                    loss = model(x).float().square().sum()
                precision.scaled(loss, x.numel()).backward()

        return step

    # Products in tf32 are a format of their own, not what fp32 is compared with.
    ways = {name: step_in(name) for name in ("fp32", "bf16")}
    if device.type == "cuda":
        ways |= {name: step_in(name) for name in ("tf32", "fp16")}
    compiled = torch.compile(model) if device.type == "cuda" else model
    precision = Precision(PrecisionConfig(compute="bf16"), device, model)

    def compiled_step() -> None:
        model.zero_grad(set_to_none=True)
        with precision.autocast():
            loss = compiled(x).float().square().sum()
        loss.backward()

    return ways | {"compiled_bf16": compiled_step}


def fp8_ways(device: torch.device, *, small: bool) -> dict[str, Step]:
    """Return one product in bf16 and in fp8, where the device has it (compute capability 8.9)."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        return {}
    n = 256 if small else 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in "ab")
    narrow, other = a.to(torch.float8_e4m3fn), b.t().contiguous().to(torch.float8_e4m3fn)
    one = torch.ones((), device=device)

    def product() -> Tensor:
        found: Tensor = torch._scaled_mm(  # torch has no public name for it
            narrow, other.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16
        )
        return found

    return {"bf16": lambda: a @ b, "fp8": product}


def attention_ways(device: torch.device, rows: int, *, small: bool) -> dict[str, Step]:
    """Return forward and backward of dense and of sparse attention over ``rows`` sequences."""
    heads, n, dim = (2, 512, 32) if small else (8, 16_384, 64)
    kind = torch.float32 if device.type == "cpu" else torch.bfloat16
    inputs = [torch.randn(rows, heads, n, dim, device=device, dtype=kind) for _ in "qkvg"]
    config = SparseAttentionConfig(heads=heads, head_dim=dim, dense="never")
    sparse = SparseAttention(config).to(device)

    def step_of(attend: Callable[..., Tensor]) -> Step:
        def step() -> None:
            q, k, v = (x.detach().requires_grad_() for x in inputs[:3])
            attend(q, k, v).backward(inputs[3])

        return step

    @torch.no_grad()
    def infer(attend: Callable[..., Tensor]) -> Tensor:
        return attend(*inputs[:3])

    dense = functional.scaled_dot_product_attention
    ways: dict[str, Step] = {
        "dense": step_of(dense),
        "sparse": step_of(sparse),
        "dense_inference": lambda: infer(dense),
        "sparse_inference": lambda: infer(sparse),
    }
    return ways | {f"{name}_graph": as_graph(step, device) for name, step in ways.items()}


def graph_ways(device: torch.device, *, small: bool, seed: int) -> dict[str, Step]:
    """Return a step of two SAGE layers: PyG's, PyG's over sparse rows, ours."""
    nodes, edges, width = (500, 4_000, 16) if small else (1_000_000, 20_000_000, 64)
    edge_index = skewed(nodes, edges, seed)
    eager, ours = Sage(pyg.SAGEConv, width), Sage(SAGEConv, width)
    ours.load_state_dict(eager.state_dict())
    graph = CsrGraph(edge_index.to(device), nodes, nodes)
    x = torch.randn(nodes, width, device=device)
    label = torch.randint(0, 2, (nodes,), device=device)

    def loss(out: Tensor) -> Tensor:
        return functional.cross_entropy(out, label)

    eager, ours = eager.to(device), ours.to(device)
    return {
        "eager": training_step(eager, x, edge_index.to(device), loss),
        "csr": training_step(eager, x, sparse_rows(graph), loss),
        "ours": training_step(ours, x, graph, loss),
    }


def gat_ways(device: torch.device, make: str, *, small: bool, seed: int) -> dict[str, Step]:
    """Return a step of an attention layer of 4 heads of 16 channels: PyG's, ours."""
    nodes, edges = (500, 4_000) if small else (300_000, 6_000_000)
    ways, _ = gat_case(make, nodes, edges, seed)
    wanted = torch.randn(nodes, 64, device=device)

    def on_device(structure: Any) -> Any:
        if isinstance(structure, CsrGraph):
            return CsrGraph(skewed(nodes, edges, seed).to(device), nodes, nodes)
        return structure.to(device)

    return {
        name: training_step(
            net.to(device), x.to(device), on_device(structure), lambda out: (out * wanted).sum()
        )
        for name, (net, x, structure) in ways.items()
    }


RATIOS = {
    "amp_fp16_x_fp32": ("precision", "fp32", "fp16"),
    "amp_bf16_x_fp32": ("precision", "fp32", "bf16"),
    "tf32_x_fp32": ("precision", "fp32", "tf32"),
    "compile_x_eager": ("precision", "bf16", "compiled_bf16"),
    "fp8_x_bf16": ("fp8", "bf16", "fp8"),
    "attention_x_dense_16k": ("attention", "dense", "sparse"),
    "attention_graph_x_dense_16k": ("attention", "dense_graph", "sparse_graph"),
    "attention_x_dense_16k_8_rows": ("attention of 8 rows", "dense", "sparse"),
    "attention_graph_x_dense_16k_8_rows": ("attention of 8 rows", "dense_graph", "sparse_graph"),
    "sage_x_eager": ("graph", "eager", "ours"),
    "sage_x_csr": ("graph", "csr", "ours"),
    "gat_x_eager": ("GATConv", "eager", "ours"),
    "gatv2_x_eager": ("GATv2Conv", "eager", "ours"),
}
"""Key -> part, slower way, faster way."""
RATIOS |= {
    f"attention_inference{graph}_x_dense_16k{rows}": (
        f"attention{' of 8 rows' if rows else ''}",
        f"dense_inference{graph}",
        f"sparse_inference{graph}",
    )
    for graph in ("", "_graph")
    for rows in ("", "_8_rows")
}


def append(path: Path, figures: dict[str, Any]) -> None:
    """Add a line of figures to a file whose head line names them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        if is_new:
            writer.writerow(figures)
        writer.writerow(figures.values())


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    command = parser("gpu", __doc__ or "")
    command.add_argument("--repeats", type=int, default=10, help="timed rounds (default 10)")
    command.add_argument("--csv", type=Path, help="folder for the dated file of figures")
    args = command.parse_args(argv)
    if not torch.cuda.is_available() and not args.smoke:
        table("gpu", ("device", "figures"), [("no CUDA device here", "none measured")])
        return NO_DEVICE
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    makers: dict[str, Callable[[], dict[str, Step]]] = {
        "precision": lambda: precision_ways(device, small=args.smoke),
        "fp8": lambda: fp8_ways(device, small=args.smoke),
        "attention": lambda: attention_ways(device, 1, small=args.smoke),
        "attention of 8 rows": lambda: attention_ways(device, 8, small=args.smoke),
        "graph": lambda: graph_ways(device, small=args.smoke, seed=args.seed),
    }
    for make in ("GATConv", "GATv2Conv"):
        makers[make] = partial(gat_ways, device, make, small=args.smoke, seed=args.seed)
    times: dict[str, dict[str, float]] = {}
    for part, ways in makers.items():
        times[part] = least_ms(ways(), device, 1 if args.smoke else args.repeats)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    figures: dict[str, Any] = {
        key: times[part][slow] / times[part][fast] if fast in times[part] else None
        for key, (part, slow, fast) in RATIOS.items()
    }
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    figures |= {"device": name, "torch": torch.__version__}
    rows = [(f"{part} {way}", ms) for part, found in times.items() for way, ms in found.items()]
    table("least milliseconds", ("way", "ms"), rows)
    if args.csv:
        today = dt.datetime.now(dt.UTC).date().isoformat()
        append(args.csv / f"gpu-{today}.csv", {"date": today, **figures})
    emit(figures | {"ms": times}, args)
    return 0


if __name__ == "__main__":
    run_program("gpu", main)
