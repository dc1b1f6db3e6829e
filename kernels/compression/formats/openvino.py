"""OpenVINO's own files (.xml and .bin), made of the ONNX file, computed in float32.

On CPUs with bf16 OpenVINO would compute float nets in bf16 by itself, which decides otherwise and
is slower without AMX; the hint holds it to float32. Weights stay float32 in the file, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kernels.compression.export import ExportConfig, export_onnx
from kernels.compression.formats.protocol import (
    Arrays,
    FormatError,
    FormatUnavailableError,
    Local,
    Source,
    Written,
    first_line,
)

MISSING = "openvino is not installed; run: make setup"
PRECISION = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


class OpenVinoFormat:
    """See `kernels.compression.formats.protocol.Format`."""

    name, suffix, runs, from_onnx = "openvino", ".xml", True, True

    def available(self) -> str:
        """Return "" where the package is installed."""
        import importlib.util

        return "" if importlib.util.find_spec("openvino") else MISSING

    def write(
        self, source: Source, example: Sequence[Tensor], path: Path, config: ExportConfig
    ) -> Written:
        """Write .xml and .bin."""
        import io

        openvino = _openvino()
        model = source if isinstance(source, bytes) else export_onnx(source, example, config)
        try:
            read = openvino.Core().read_model(io.BytesIO(model))
        except Exception as error:
            raise FormatError(f"OpenVINO does not take the net: {_reason(error)}") from error
        _mend_antialias(read)
        openvino.save_model(read, str(path), compress_to_fp16=False)
        return Written(
            files=(path, path.with_suffix(".bin")),
            version="IR 11",
            producers={"openvino": openvino.__version__.split("-")[0]},
            dynamic=bool(config.dynamic),
            notes=("compile with INFERENCE_PRECISION_HINT = f32: the default may be bf16",),
        )

    def open(self, path: Path, config: ExportConfig) -> Local:
        """Open the files on one thread."""
        openvino = _openvino()
        try:
            compiled = openvino.Core().compile_model(str(path), "CPU", PRECISION)
        except Exception as error:
            raise FormatError(f"{path}: OpenVINO cannot load it: {_reason(error)}") from error
        request = compiled.create_infer_request()
        wanted = {name: compiled.input(name) for name in config.inputs}

        def run(inputs: Arrays) -> dict[str, NDArray[Any]]:
            for name, one in wanted.items():  # OpenVINO itself runs wrong sizes without a word
                _require_fit(name, one, inputs[name])
            # Inputs are copied in and outputs out: else both would be views of its own memory.
            answers = request.infer(dict(inputs), share_inputs=False, share_outputs=False)
            return {name: np.array(answers[compiled.output(name)]) for name in config.outputs}

        return Local(run)


def _mend_antialias(model: Any) -> None:
    """Let antialiased resizing be Pillow's, which is torch's.

    The reader of ONNX makes an operator of it that leaves the antialiasing out where an image
    becomes smaller: off by half of the range.
    """
    import importlib

    operators = importlib.import_module("openvino.opset11")
    for one in model.get_ordered_ops():
        if one.get_type_name() != "Interpolate":
            continue
        told = one.get_attributes()
        if not told["antialias"] or told["mode"] not in {"linear", "linear_onnx"}:
            continue
        if told["shape_calculation_mode"] != "sizes" or one.get_input_size() != 2:
            raise FormatError("OpenVINO: antialiased resizing by scales; give the size itself")
        whole = [operators.constant(np.array([place])) for place in (2, 4, 1)]
        size = operators.slice(one.input_value(1), *whole)
        axes = operators.constant(np.array([2, 3]))
        made = operators.interpolate(
            one.input_value(0), size, "bilinear_pillow", "sizes", axes=axes
        )
        one.output(0).replace(made.output(0))


def _require_fit(name: str, wanted: Any, given: NDArray[Any]) -> None:
    shape = wanted.partial_shape
    fits = shape.rank.is_dynamic or (
        len(shape) == given.ndim
        and all(
            size.is_dynamic or size.get_length() == has
            for size, has in zip(shape, given.shape, strict=True)
        )
    )
    if not fits or wanted.element_type.to_dtype() != given.dtype:
        raise FormatError(
            f"the engine refuses the inputs: {name} is {given.dtype} {given.shape}, the file takes "
            f"{wanted.element_type.to_dtype()} {shape}"
        )


def _openvino() -> Any:
    import importlib

    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise FormatUnavailableError(MISSING) from error


def _reason(error: Exception) -> str:
    """OpenVINO's first lines are names of its own source files."""
    lines = [one.strip() for one in str(error).splitlines() if one.strip()]
    told = [one for one in lines if not one.startswith(("Exception from", "Check '"))]
    return first_line(" ".join(told) or str(error))
