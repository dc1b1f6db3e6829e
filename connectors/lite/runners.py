"""The two kinds of file that are run: a detector's edge file, and any net with one input."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from connectors.lite.png import InputError
from kernels.compression.sessions import open_session
from tasks.defects.edge.format import EdgeFacts
from tasks.defects.edge.session import EdgeSession, checked_pixels
from tasks.defects.samples import eight_bits

TYPES = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}


class LiteError(ValueError):
    """A file that is not opened or run; says which, why and what to do."""


class Runner(Protocol):
    """What is behind an opened file."""

    def prepared(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an input as the file takes it, or raise `ValueError`."""

    def answer(self, array: NDArray[Any]) -> dict[str, Any]:
        """Return the outputs by name."""

    def described(self) -> dict[str, Any]:
        """Return what is known of it, as JSON takes it."""


class Detector:
    """A detector's edge file: thresholds and preparation are inside."""

    def __init__(self, content: bytes, threads: int) -> None:
        self._session = EdgeSession(content, threads=threads)

    def prepared(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        """Return uint8 [h, w, 3]; of uint16 the upper eight of the bits in use."""
        if array.dtype == np.uint16:
            array = eight_bits(array, self._session.facts.bits)
        return checked_pixels(array)

    def answer(self, array: NDArray[np.uint8]) -> dict[str, Any]:
        """Return the judgement of one image."""
        said = self._session.judge(array)
        return {
            "verdict": said.verdict,
            "score": said.score,
            "kinds": dict(said.kinds),
            "heat": said.heat,
        }

    def described(self) -> dict[str, Any]:
        """Return the page of the file."""
        facts: EdgeFacts = self._session.facts
        return {
            "thresholds": facts.thresholds.to_json(),
            "kinds": list(facts.kinds),
            "size": facts.size,
            "tile": facts.tile,
            "bits": facts.bits,
            "int8": facts.int8,
            "created_by": facts.created_by,
        }


class Net:
    """Any other file, with one input."""

    def __init__(self, content: bytes, threads: int) -> None:
        try:  # the arena would keep the memory of the largest input for ever
            self._session = open_session(content, threads=threads, arena=False)
        except Exception as error:  # ONNX Runtime has no base class of its errors
            raise LiteError(f"ONNX Runtime cannot load the file: {first_line(error)}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in TYPES:
            told = [(one.name, one.type) for one in inputs]
            raise LiteError(f"the file takes {told}; files with one tensor as input are run")
        self._name, self._shape = inputs[0].name, tuple(inputs[0].shape)
        self._dtype = np.dtype(TYPES[inputs[0].type])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def prepared(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array as it is, in one piece, or refuse it by type or shape."""
        fits = len(array.shape) == len(self._shape) and all(
            have == want or not isinstance(want, int)
            for have, want in zip(array.shape, self._shape, strict=True)
        )
        if array.dtype != self._dtype or not fits:
            raise InputError(
                f"{array.dtype} {array.shape} is given, the file takes {self._dtype} "
                f"{_shape(self._shape)}"
            )
        return np.ascontiguousarray(array)

    def answer(self, array: NDArray[Any]) -> dict[str, Any]:
        """Return each output by its name."""
        found = self._session.run(self._outputs, {self._name: array})
        return dict(zip(self._outputs, found, strict=True))

    def described(self) -> dict[str, Any]:
        """Return what goes in and what comes out."""
        return {
            "input": {"name": self._name, "type": str(self._dtype), "shape": list(self._shape)},
            "outputs": self._outputs,
        }


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, not too long."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _shape(shape: tuple[Any, ...]) -> str:
    return "[" + ", ".join(str(one) for one in shape) + "]"
