"""Core ML: an archive of torch.export becomes an .mlpackage; it runs on machines of Apple alone."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

import numpy as np
from hand_over import Arrays, Runner, load_arrays, load_program, serve  # type: ignore[import-not-found]


def write(request: dict[str, Any]) -> dict[str, Any]:
    """Write the folder, and hold its description against what was asked for."""
    tools = importlib.import_module("coremltools")
    program = load_program(request["archive"])
    model = tools.convert(
        program,
        minimum_deployment_target=tools.target.iOS17,
        compute_precision=tools.precision.FLOAT32,
        outputs=[tools.TensorType(name=name) for name in request["outputs"]],
    )
    model.save(request["path"])
    told = tools.models.MLModel(request["path"], skip_model_load=True).get_spec().description
    inputs = [(one.name, tuple(one.type.multiArrayType.shape)) for one in told.input]
    outputs = [one.name for one in told.output]
    if len(inputs) != len(request["inputs"]) or outputs != list(request["outputs"]):
        raise RuntimeError(f"its description names {inputs} and {outputs}")
    for (name, shape), one in zip(inputs, load_arrays(request["example"]), strict=True):
        if len(shape) != np.ndim(one):
            raise RuntimeError(f"input {name} has {len(shape)} dimensions, {np.ndim(one)} wanted")
    return {
        "version": "ML program, iOS 17",
        "producers": {name: version(name) for name in ("coremltools", "torch")},
        "dynamic": any(request["free"]),
    }


def opened(path: str) -> Runner:
    """Refuse: there is no runtime outside of Apple's systems."""

    def run(arrays: Arrays) -> Arrays:
        raise RuntimeError(f"{path} with {len(arrays)} inputs runs on Apple's systems only")

    return run


if __name__ == "__main__":
    serve(write, opened)
