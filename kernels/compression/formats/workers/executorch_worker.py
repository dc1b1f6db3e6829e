"""ExecuTorch: an archive of torch.export becomes .pte with the kernels of XNNPACK, and runs."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hand_over import (
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
    passes = importlib.import_module("executorch.exir.passes.sym_shape_eval_pass")
    # By its own choice memory is planned for the size of an example that it made up.
    settings = exir.ExecutorchBackendConfig(
        sym_shape_eval_pass=passes.ConstraintBasedSymShapeEvalPass()
    )
    lowered = exir.to_edge_transform_and_lower(program, partitioner=[partition])
    lowered = lowered.to_executorch(settings)
    Path(request["path"]).write_bytes(lowered.buffer)
    return {"version": "pte", "producers": producers(), "dynamic": any(request["free"])}


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
