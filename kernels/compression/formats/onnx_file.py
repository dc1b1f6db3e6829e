"""ONNX: the file of `kernels.compression.export`, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from kernels.compression.export import ExportConfig, export_onnx
from kernels.compression.formats.protocol import (
    Arrays,
    FormatError,
    Local,
    Source,
    Written,
    first_line,
)
from kernels.compression.onnx_wire import STANDARD, read_outline
from kernels.compression.sessions import open_session

KNOWN = STANDARD | {"ai.onnx.ml"}
"""Standard operators, and those for trees and linear models."""


class OnnxFormat:
    """See `kernels.compression.formats.protocol.Format`."""

    name, suffix, runs, from_onnx = "onnx", ".onnx", True, True

    def available(self) -> str:
        """Return "": both packages belong to the environment."""
        return ""

    def write(
        self, source: Source, example: Sequence[Tensor], path: Path, config: ExportConfig
    ) -> Written:
        """Write the file; an ONNX file is written as it is."""
        import onnxruntime
        import torch

        model = source if isinstance(source, bytes) else export_onnx(source, example, config)
        path.write_bytes(model)
        outline = read_outline(model, KNOWN)
        return Written(
            files=(path,),
            version=f"opset {outline.opset}, ir {outline.ir_version}",
            producers={
                "torch": torch.__version__.split("+")[0],
                "onnxruntime": onnxruntime.__version__,
            },
            dynamic=bool(config.dynamic),
        )

    def open(self, path: Path, config: ExportConfig) -> Local:
        """Open the file in ONNX Runtime on one thread."""
        return Local(onnx_runner(path.read_bytes(), path, config))


def onnx_runner(model: bytes, path: Path | str, config: ExportConfig) -> Any:
    """Return a function from arrays by name to outputs by name.

    Raises:
        FormatError: When ONNX Runtime cannot load the file.
    """
    try:
        read_outline(model, KNOWN)
        session = open_session(model, threads=1, arena=False)
    except Exception as error:  # ONNX Runtime has no base class of its errors
        raise FormatError(f"{path}: cannot be loaded: {first_line(error)}") from error
    names = list(config.outputs)

    def run(inputs: Arrays) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run
