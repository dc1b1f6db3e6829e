"""The worker's end of the hand-over: one JSON request a line in, one JSON reply a line out.

Arrays travel as npz files without pickle, nets as archives of torch.export without pickle. Whatever
libraries print goes to standard error. A worker ends when its input does.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = list[Any]
Runner = Callable[[Arrays], Arrays]
Writer = Callable[[dict[str, Any]], dict[str, Any]]


def load_arrays(path: str) -> Arrays:
    """Return the arrays of an npz file in the order of their names, which are numbers."""
    with np.load(path, allow_pickle=False) as held:
        return [held[name] for name in sorted(held.files, key=int)]


def save_arrays(path: str, arrays: Arrays) -> None:
    """Write arrays so that `load_arrays` reads them."""
    np.savez(path, **{str(place): np.asarray(one) for place, one in enumerate(arrays)})


def load_program(path: str) -> Any:
    """Return the exported program of an archive, its parameters without gradients."""
    import torch

    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    return torch.export.load(path)


def module_of(program: Any) -> Any:
    """Return a program as a module in evaluation mode."""
    module = program.module()
    for each in module.modules():
        each.training = False
    return module


def exported(module: Any, example: tuple[Any, ...], shapes: Any) -> Any:
    """Return the module's program; what holds for some sizes only is checked when it runs."""
    import torch

    return torch.export.export(
        module,
        example,
        dynamic_shapes=shapes,
        strict=False,
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def shapes_of(request: dict[str, Any]) -> Any:
    """Return the free sizes that a request asks for as torch takes them, None for none."""
    import torch

    if not any(request["free"]):
        return None
    made: dict[str, Any] = {}
    found = []
    for one in request["free"]:
        axes = {}
        for axis, (name, low, high) in one.items():
            if name not in made:
                made[name] = torch.export.Dim(name, min=low, max=high)
            axes[int(axis)] = made[name]
        found.append(axes)
    return tuple(found)


def serve(write: Writer, opened: Callable[[str], Runner]) -> None:
    """Answer requests until the input ends.

    Args:
        write: Request -> facts; writes the file.
        opened: Path -> function from input arrays to output arrays.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to what they think is standard output
    run: Runner | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply: dict[str, Any] = {}
            if request["do"] == "bound":
                limit = int(request["bytes"])
                resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
            elif request["do"] == "write":
                reply = write(request)
            elif request["do"] == "open":
                run = opened(request["path"])
            elif run is not None:
                given = load_arrays(request["inputs"])
                began = time.process_time()
                answers = run(given)
                reply = {"ms": 1e3 * (time.process_time() - began)}
                save_arrays(request["outputs"], answers)
        except Exception as error:  # noqa: BLE001 - told to the other end, whatever it is
            text = str(error).strip().splitlines() or [type(error).__name__]
            reply = {"error": f"{type(error).__name__}: {text[0][:300]}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
