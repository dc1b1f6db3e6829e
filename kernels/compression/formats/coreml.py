"""Core ML (.mlpackage, a folder): converted and its description checked; not run here."""

from __future__ import annotations

from kernels.compression.formats.handed import HandedFormat

COREML = HandedFormat(
    "coreml",
    ".mlpackage",
    "coreml_worker.py",
    runs=False,
    notes=("not run here: Core ML runs on Apple's systems only; its description was checked",),
)
