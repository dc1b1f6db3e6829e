"""ExecuTorch (.pte, kernels of XNNPACK): what phones and boards run without Python."""

from __future__ import annotations

from kernels.compression.formats.handed import HandedFormat

EXECUTORCH = HandedFormat("executorch", ".pte", "executorch_worker.py")
