"""ExecuTorch: an archive of torch.export becomes .pte with the kernels of XNNPACK, and runs."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hand_over import (  # type: ignore[import-not-found]
    Arrays,
    Runner,
    exported,
    load_arrays,
    load_program,
    module_of,
    serve,
    shapes_of,
)


def write(request: dict[str, Any]) -> dict[str, Any]:
    """Write the file."""
    import torch

    # Exported anew: a loaded program has lost the example that sizes are told by.
    module = module_of(load_program(request["archive"]))
    example = tuple(torch.from_numpy(one) for one in load_arrays(request["example"]))
    program = exported(module, example, shapes_of(request))
    partition = importlib.import_module(
        "executorch.backends.xnnpack.partition.xnnpack_partitioner"
    ).XnnpackPartitioner()
    exir = importlib.import_module("executorch.exir")
    lowered = exir.to_edge_transform_and_lower(program, partitioner=[partition])
    widen(lowered.exported_program())
    lowered = lowered.to_executorch()
    Path(request["path"]).write_bytes(lowered.buffer)
    return {"version": "pte", "producers": producers(), "dynamic": any(request["free"])}


def widen(program: Any) -> None:
    """Give free sizes their whole range again, by which memory is planned.

    Lowering looks at convolutions once more, and which of torch's kernels would take them depends
    on whether the batch is below 16: from then on the range ends at 15, without a word.
    """
    for node in program.graph.nodes:
        if node.op == "placeholder":
            for size in getattr(node.meta.get("val"), "shape", ()):
                if not isinstance(size, int) and size.node.expr in program.range_constraints:
                    ranges = size.node.shape_env.var_to_range
                    ranges[size.node.expr] = program.range_constraints[size.node.expr]


def opened(path: str) -> Runner:
    """Return what runs a file."""
    import torch

    runtime = importlib.import_module("executorch.runtime").Runtime.get()
    program = runtime.load_program(path)
    method = program.load_method("forward")

    def run(arrays: Arrays) -> Arrays:
        found = method.execute([torch.from_numpy(one) for one in arrays])
        return [one.numpy() for one in found]

    run.kept = program  # type: ignore[attr-defined]  # the method points into it
    return run


def producers() -> dict[str, str]:
    """Return program -> version."""
    return {"executorch": version("executorch"), "torch": version("torch")}


if __name__ == "__main__":
    serve(write, opened)
