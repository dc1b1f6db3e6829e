"""torch's own archive (.pt2): a graph as JSON and raw weights, run by torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kernels.compression.export import ExportConfig
from kernels.compression.formats.program import load_program, program_of, runnable, save_program
from kernels.compression.formats.protocol import Arrays, Local, Source, Written, require_module


class TorchExportFormat:
    """See `kernels.compression.formats.protocol.Format`."""

    name, suffix, runs, from_onnx = "torch-export", ".pt2", True, False

    def available(self) -> str:
        """Return "": torch belongs to the environment."""
        return ""

    def write(
        self, source: Source, example: Sequence[Tensor], path: Path, config: ExportConfig
    ) -> Written:
        """Write the archive, without pickle."""
        program = program_of(require_module(source, self.name), example, config)
        save_program(program, path)
        return Written(
            files=(path,),
            version="pt2 archive 0",
            producers={"torch": torch.__version__.split("+")[0]},
            dynamic=bool(config.dynamic),
        )

    def open(self, path: Path, config: ExportConfig) -> Local:
        """Open the archive after looking through it."""
        return Local(torch_runner(runnable(load_program(path)), config))


def torch_runner(module: nn.Module | Any, config: ExportConfig) -> Any:
    """Return a function from arrays by name to outputs by name."""

    def run(inputs: Arrays) -> dict[str, NDArray[Any]]:
        given = [torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in config.inputs]
        with torch.no_grad():  # inference mode would mark the tensors for all who share them
            found = module(*given)
        each = (found,) if isinstance(found, Tensor) else tuple(found)
        return {name: one.numpy(force=True) for name, one in zip(config.outputs, each, strict=True)}

    return run
