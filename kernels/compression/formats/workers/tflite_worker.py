"""LiteRT: an archive of torch.export becomes .tflite, and runs in its interpreter."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from hand_over import Arrays, Runner, load_arrays, load_program, module_of, serve, shapes_of  # type: ignore[import-not-found]


def write(request: dict[str, Any]) -> dict[str, Any]:
    """Write the file."""
    import torch

    module = module_of(load_program(request["archive"]))
    example = tuple(torch.from_numpy(one) for one in load_arrays(request["example"]))
    convert = importlib.import_module("litert_torch").convert
    shapes = shapes_of(request)
    more = {} if shapes is None else {"dynamic_shapes": shapes}
    converted = convert(module, example, **more)
    converted.export(request["path"])
    if not Path(request["path"]).is_file():
        raise RuntimeError("the converter wrote nothing")
    names = ("litert-torch", "ai-edge-litert", "torch")
    return {
        "version": "tflite schema 3",
        "producers": {name: version(name) for name in names},
        "dynamic": shapes is not None,
    }


def opened(path: str) -> Runner:
    """Return what runs a file; the inputs of its signature are args_0, args_1 and so on."""
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(
        model_path=path, num_threads=1
    )
    signature = next(iter(interpreter.get_signature_list()))
    runner = interpreter.get_signature_runner(signature)
    inputs = sorted(runner.get_input_details(), key=_number)
    outputs = sorted(runner.get_output_details(), key=_number)

    def run(arrays: Arrays) -> Arrays:
        found = runner(**dict(zip(inputs, arrays, strict=True)))
        return [np.array(found[name]) for name in outputs]

    return run


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


if __name__ == "__main__":
    serve(write, opened)
