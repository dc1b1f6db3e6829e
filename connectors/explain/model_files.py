"""A model's file as a score function: TorchScript, an archive of torch.export, or ONNX.

None of them is loaded by Python's pickle.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.files import require_file
from tasks.explain.errors import ExplanationError, ScoreError
from tasks.explain.scores import ScoreFunction, TorchScores

SUFFIXES = (".pt", ".ts", ".pt2", ".onnx")


def open_model(path: Path, output: int | None = None) -> ScoreFunction:
    """Return a model's file as a score function of rows ``[n, F]``.

    Args:
        path: TorchScript, torch.export or ONNX.
        output: Which of several outputs.

    Raises:
        ExplanationError: When it cannot be loaded.
    """
    require_file(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".onnx":
            return _OnnxScores(path, output)
        if suffix == ".pt2":
            from kernels.compression.formats.program import load_program

            module = load_program(path).module()
            return _ProgramScores(module, output)
        import torch

        with warnings.catch_warnings():
            # torch 2.14 prefers torch.export; TorchScript is what users have.
            warnings.simplefilter("ignore", FutureWarning)
            loaded = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        return TorchScores(loaded, output)
    except ExplanationError:
        raise
    except Exception as error:
        raise ExplanationError(
            f"{path} cannot be loaded as a model: {first_line(error)}; write it by "
            "torch.jit.script, torch.export or as ONNX"
        ) from error


class _ProgramScores(TorchScores):
    """A program of torch.export, which knows no training mode."""

    def __init__(self, module: Any, output: int | None) -> None:
        self.module = module
        self.output = output
        self._sample = next(module.parameters(), None)


class _OnnxScores:
    """An ONNX file with one input ``[n, F]``; its last output is the score."""

    def __init__(self, path: Path, output: int | None) -> None:
        from kernels.compression.sessions import open_session

        self._session = open_session(path.read_bytes(), threads=1)
        self._output = output
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise ExplanationError(f"{path} has {len(inputs)} inputs; a table is one of [n, F]")
        self._name, self._last = inputs[0].name, self._session.get_outputs()[-1].name
        self._type = np.float64 if "double" in inputs[0].type else np.float32

    def __call__(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Return scores ``[n]``."""
        feed = {self._name: np.ascontiguousarray(rows, dtype=self._type)}
        made = self._session.run([self._last], feed)[0]
        if not isinstance(made, np.ndarray):
            raise ScoreError(
                f"output {self._last!r} is no array (scikit-learn's converter makes a map of "
                "classes unless zipmap=False); export it with one"
            )
        width = made.shape[1] if made.ndim == 2 else 1
        if made.ndim > 2 or (self._output is None and width != 1) or (self._output or 0) >= width:
            raise ScoreError(
                f"output {self._last!r} has shape {made.shape}: say which column by --output"
            )
        one = made[:, self._output or 0] if made.ndim == 2 else made
        scores: NDArray[np.float64] = one.astype(np.float64)
        return scores


def first_line(error: BaseException) -> str:
    """Return the line of an error that says what is wrong: torch writes it last."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
