"""ONNX Runtime on the CPU, set up the same way wherever a file is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def open_session(
    model: bytes, *, threads: int, arena: bool = True, level: str = "ORT_ENABLE_ALL"
) -> Any:
    """Return an `onnxruntime.InferenceSession`.

    Args:
        model: Content of a file.
        threads: Cores that one run uses.
        arena: Keep freed memory for the next run; without, memory follows the size of each input.
        level: Name in `onnxruntime.GraphOptimizationLevel`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = arena
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def answers_to(
    model: bytes, inputs: Sequence[Mapping[str, Any]], *, threads: int
) -> list[dict[str, Any]]:
    """Return what a file answers to each of some inputs, by the names of its outputs."""
    session = open_session(model, threads=threads)
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(one)), strict=True)) for one in inputs]
