"""One ONNX file in memory: looked through, opened, described, and run on arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.model_server.datatypes import DTYPES, datatype_of_ort
from connectors.model_server.tensors import Array, TensorError
from infra.errors import PenstockError
from kernels.compression.onnx_wire import STANDARD, OnnxWireError, read_outline
from kernels.compression.sessions import open_session

DOMAINS = STANDARD | {"ai.onnx.ml"}
"""Operators that ONNX Runtime itself brings: neural networks, and trees of classical models."""


class ModelFileError(PenstockError):
    """A file that is not served; says which and why."""


class RunError(RuntimeError):
    """ONNX Runtime did not take the values of an input."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output as the file declares it.

    Attributes:
        name: Its name.
        datatype: Datatype of the protocol.
        shape: Sides, None where they are free.
    """

    name: str
    datatype: str
    shape: tuple[int | None, ...]

    @property
    def free_rows(self) -> bool:
        """Whether its first dimension is free."""
        return bool(self.shape) and self.shape[0] is None

    def to_dict(self) -> dict[str, Any]:
        """Return it as the protocol's metadata has it."""
        shape = [-1 if side is None else side for side in self.shape]
        return {"name": self.name, "datatype": self.datatype, "shape": shape}

    def check(self, array: Array) -> None:
        """Look whether an array fits.

        Raises:
            TensorError: It does not.
        """
        wanted = DTYPES[self.datatype]
        if array.dtype != wanted:
            raise TensorError(f"{self.name}: the model reads {self.datatype}, got {array.dtype}")
        fits = len(array.shape) == len(self.shape) and all(
            side is None or side == given
            for side, given in zip(self.shape, array.shape, strict=True)
        )
        if not fits:
            shape = self.to_dict()["shape"]
            raise TensorError(
                f"{self.name}: the model reads shape {shape}, got {list(array.shape)}"
            )


class OnnxModel:
    """A file in service.

    Attributes:
        digest: SHA-256 of the file.
        inputs: By name.
        outputs: By name.
    """

    def __init__(self, content: bytes, what: str, *, threads: int = 1) -> None:
        """Look through a file and open it.

        Args:
            content: The file.
            what: What it is, for messages.
            threads: Cores that one run uses.

        Raises:
            ModelFileError: It must not or cannot be run.
        """
        try:
            read_outline(content, DOMAINS)
        except OnnxWireError as error:
            raise ModelFileError(f"{what}: the file {error}", "Export the model anew") from error
        try:
            self._session = open_session(content, threads=threads)
        except Exception as error:
            # ONNX Runtime has an exception class for every kind of trouble, all of its own.
            reason = str(error).splitlines()[0][:300]
            raise ModelFileError(
                f"{what}: ONNX Runtime does not open the file ({reason})", "Export the model anew"
            ) from error
        self.digest = digest_of(content)
        self.inputs = {spec.name: spec for spec in _specs(self._session.get_inputs(), what)}
        self.outputs = {spec.name: spec for spec in _specs(self._session.get_outputs(), what)}

    @property
    def free_rows(self) -> bool:
        """Whether every input and output has a free first dimension."""
        specs = (*self.inputs.values(), *self.outputs.values())
        return bool(self.inputs) and all(spec.free_rows for spec in specs)

    def check(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> None:
        """Look whether a request fits, before it waits.

        Raises:
            TensorError: It does not.
        """
        missing = [name for name in self.inputs if name not in feeds]
        strange = [name for name in feeds if name not in self.inputs]
        if missing or strange:
            said = f"lacks {missing[0]!r}" if missing else f"has {strange[0]!r}"
            raise TensorError(f"the request {said}; inputs are {', '.join(self.inputs)}")
        for name, array in feeds.items():
            self.inputs[name].check(array)
        for name in outputs:
            if name not in self.outputs:
                raise TensorError(
                    f"there is no output {name!r}; outputs are {', '.join(self.outputs)}"
                )

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Return outputs by name; empty: all.

        Raises:
            RunError: The values do not suit the model.
        """
        names = list(outputs or self.outputs)
        try:
            found: list[Array] = self._session.run(names, dict(feeds))
        except Exception as error:
            raise RunError(str(error).splitlines()[0][:300]) from error
        return dict(zip(names, found, strict=True))


def _specs(nodes: Sequence[Any], what: str) -> list[TensorSpec]:
    found = []
    for node in nodes:
        datatype = datatype_of_ort(node.type)
        if not datatype:
            raise ModelFileError(
                f"{what}: {node.name!r} is a {node.type}, which the protocol has no datatype for",
                "Export the model with plain tensors of numbers or text",
            )
        shape = tuple(side if isinstance(side, int) and side >= 0 else None for side in node.shape)
        found.append(TensorSpec(node.name, datatype, shape))
    return found


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(content).hexdigest()
