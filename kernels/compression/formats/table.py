"""All formats by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kernels.compression.formats.aoti import AOTI
from kernels.compression.formats.coreml import COREML
from kernels.compression.formats.executorch import EXECUTORCH
from kernels.compression.formats.onnx_file import OnnxFormat
from kernels.compression.formats.openvino import OpenVinoFormat
from kernels.compression.formats.protocol import Format, FormatError
from kernels.compression.formats.tflite import TFLITE
from kernels.compression.formats.torch_export import TorchExportFormat

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        form.name: form
        for form in (
            OnnxFormat(),
            OpenVinoFormat(),
            TorchExportFormat(),
            AOTI,
            EXECUTORCH,
            TFLITE,
            COREML,
        )
    }
)


def format_named(name: str) -> Format:
    """Return a format.

    Raises:
        FormatError: When there is none of that name.
    """
    if name not in FORMATS:
        raise FormatError(f"{name!r} is no format; choose one of: {', '.join(FORMATS)}")
    return FORMATS[name]
