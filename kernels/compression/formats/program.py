"""The graph of a module as torch sees it, and archives of it that hold no pickle.

`torch.export.save` writes graph as JSON, weights as raw bytes, and the example inputs by pickle;
weights that are no plain tensors, and objects, too. `torch.export.load` unpickles whatever is
there. So examples are left out here, and an archive is looked through before it is loaded.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from kernels.compression.export import ExportConfig, dynamic_sizes, folded
from kernels.compression.formats.protocol import FormatError, first_line

MAX_ARCHIVE_BYTES = 4 * 2**30
MAX_JSON_BYTES = 256 * 2**20
_EXAMPLES = "data/sample_inputs/"
_CONFIGS = ("weights_config.json", "constants_config.json")


def program_of(
    module: nn.Module, example: Sequence[Tensor], config: ExportConfig
) -> ExportedProgram:
    """Return the module's graph with batch norms folded, core operators only, without examples.

    Raises:
        FormatError: When torch cannot see the graph.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own use of what torch deprecates
            program: ExportedProgram = torch.export.export(
                folded(module, example),
                tuple(example),
                dynamic_shapes=dynamic_sizes(config) if config.dynamic else None,
                strict=False,
                # What holds for some sizes only is checked when it runs, not refused here.
                prefer_deferred_runtime_asserts_over_guards=True,
            ).run_decompositions({})
    except Exception as error:
        raise FormatError(
            f"{type(module).__name__} has no graph that torch can export: {first_line(error)}"
        ) from error
    program.example_inputs = None
    return program


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write an archive and make sure that it holds no pickle."""
    program.example_inputs = None
    torch.export.save(program, path)
    require_plain(path)


def load_program(path: Path) -> ExportedProgram:
    """Return the program of an archive after looking through it.

    Raises:
        FormatError: When it is no archive, broken, or holds what is loaded by pickle.
    """
    require_plain(path)
    try:
        return torch.export.load(path)
    except Exception as error:
        raise FormatError(f"{path}: torch cannot load the archive: {first_line(error)}") from error


def require_plain(path: Path) -> None:
    """Raise `FormatError` unless a file is an archive of torch.export without pickle in it."""
    if not path.is_file():
        raise FormatError(f"{path}: there is no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_ARCHIVE_BYTES:
                raise FormatError(f"{path}: unpacks to more than {MAX_ARCHIVE_BYTES:,} bytes")
            names = [entry.filename.partition("/")[2] for entry in entries]
            if not any(name.startswith("models/") for name in names):
                raise FormatError(f"{path}: is no archive of torch.export.save")
            for name, entry in zip(names, entries, strict=True):
                _require_plain_entry(path, archive, name, entry)
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f"{path}: is no whole archive of torch.export ({first_line(error)}); write it anew"
        ) from error


def _require_plain_entry(
    path: Path, archive: zipfile.ZipFile, name: str, entry: zipfile.ZipInfo
) -> None:
    if name.startswith(_EXAMPLES) and entry.file_size:
        raise FormatError(
            f"{path}: keeps its example inputs by pickle, which can run code when loaded; save it "
            "with program.example_inputs = None"
        )
    if name.endswith(_CONFIGS):
        if entry.file_size > MAX_JSON_BYTES:
            raise FormatError(f"{path}: {name} is larger than {MAX_JSON_BYTES:,} bytes")
        for key, one in json.loads(archive.read(entry))["config"].items():
            if one.get("use_pickle") or not str(one["path_name"]).startswith(
                ("weight_", "tensor_")
            ):
                raise FormatError(f"{path}: keeps {key} by pickle, which can run code when loaded")


def runnable(program: ExportedProgram) -> nn.Module:
    """Return the program as a module in evaluation mode."""
    module = program.module()
    for each in module.modules():
        each.training = False
    return module


def described(program: ExportedProgram) -> tuple[ExportConfig, tuple[Tensor, ...]]:
    """Return names and free sizes of a loaded program, and zeros of a fitting shape.

    Raises:
        FormatError: When an input is no tensor.
    """
    names = program.graph_signature.user_inputs
    nodes = {node.name: node for node in program.graph.nodes}
    dynamic: dict[str, dict[int, tuple[str, int, int]]] = {}
    zeros = []
    for name in names:
        value: Any = nodes[str(name)].meta.get("val")
        if not isinstance(value, torch.Tensor):
            raise FormatError(f"input {name!r} of the archive is no tensor; wrap the module")
        shape = []
        sizes: list[Any] = list(value.shape)
        for axis, size in enumerate(sizes):
            if isinstance(size, int):
                shape.append(size)
                continue
            bounds = program.range_constraints[size.node.expr]
            low, high = max(1, int(bounds.lower)), int(min(bounds.upper, 2**20))
            free = (str(size.node.expr), low, high)
            dynamic.setdefault(str(name), {})[axis] = free
            shape.append(min(max(2, low), high))
        zeros.append(torch.zeros(shape, dtype=value.dtype))
    outputs = tuple(f"output_{i}" for i in range(len(program.graph_signature.user_outputs)))
    outputs = ("output",) if len(outputs) == 1 else outputs
    inputs = tuple(str(name) for name in names)
    return ExportConfig(inputs=inputs, outputs=outputs, dynamic=dynamic), tuple(zeros)
