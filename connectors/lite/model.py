"""A file that was exported, opened after its checks and run: numpy and ONNX Runtime alone.

model = open_model("line.onnx")
answer = model.run("part.png")
print(answer["verdict"], answer["score"])
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.defects.edge_reading import read_record, read_whole, record_path
from connectors.lite.pixels import read_input
from connectors.lite.png import InputError
from connectors.lite.runners import Detector, LiteError, Net, Runner, first_line
from kernels.compression.onnx_wire import OnnxOutline, OnnxWireError, read_outline
from kernels.compression.parity import (
    ParityCheck,
    ParityError,
    ParityRecord,
    check_parity,
    require_model,
)
from tasks.defects.edge.format import KEY, MAX_FILE_BYTES, OPSETS, EdgeFileError
from tasks.defects.edge.session import require_record

Given = str | os.PathLike[str] | NDArray[Any]
"""A file or an array."""


class LiteModel:
    """An opened file.

    Attributes:
        path: Where it lies.
        content: Its bytes.
        sha256: Of them.
        outline: What it says of itself.
        record: The parity record beside it, None where none lies there.
    """

    def __init__(
        self,
        path: Path,
        content: bytes,
        outline: OnnxOutline,
        record: ParityRecord | None,
        runner: Runner,
    ) -> None:
        self.path, self.content, self.outline, self.record = path, content, outline, record
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._runner = runner

    @property
    def is_detector(self) -> bool:
        """Whether it is a detector's edge file, with verdicts."""
        return KEY in self.outline.metadata

    def run(self, given: Given) -> dict[str, Any]:
        """Return the answer to one input.

        Args:
            given: An array, or a file of `connectors.lite.pixels.SUFFIXES`.

        Returns:
            Of a detector ``verdict``, ``score``, ``kinds`` and ``heat`` (float32 [h, w]); of other
            files each output by its name.

        Raises:
            ValueError: For an input that the file does not take.
            LiteError: When ONNX Runtime fails on it.
        """
        array = self.prepared(given)
        try:
            return self._runner.answer(array)
        except Exception as error:  # ONNX Runtime has no base class of its errors
            raise LiteError(f"ONNX Runtime failed: {first_line(error)}") from error

    def prepared(self, given: Given) -> NDArray[Any]:
        """Return an input as the file takes it.

        Raises:
            ValueError: For one that it does not take.
        """
        if isinstance(given, np.ndarray):
            return self._runner.prepared(given)
        path = Path(given)
        array = read_input(path)
        try:
            return self._runner.prepared(array)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error

    def check(self, images: list[Given], *, threads: int = 1) -> ParityCheck:
        """Run the file here on images of its record.

        Raises:
            ParityError: Without a record, or for images that are not in it.
        """
        if self.record is None:
            raise ParityError(f"{self.path}: no {record_path(self.path).name} lies beside it")
        arrays = [self.prepared(one) for one in images]
        return check_parity(self.content, self.record, arrays, threads=threads)

    def described(self) -> dict[str, Any]:
        """Return what is known of it, as JSON takes it."""
        record = self.record
        told = {
            "images": len(record.images),
            "flips_float32": record.exported.flips,
            "flips": record.quantised.flips,
            "runtime": record.runtime,
        } if record is not None else None  # fmt: skip
        return {
            "file": str(self.path),
            "kind": "detector" if self.is_detector else "onnx",
            "bytes": len(self.content),
            "sha256": self.sha256,
            "opset": self.outline.opset,
            "operators": self.outline.nodes,
            **self._runner.described(),
            "record": told,
        }


def open_model(
    path: str | os.PathLike[str],
    *,
    threads: int = 2,
    demand_record: bool = False,
    sha256: str = "",
) -> LiteModel:
    """Check a file and open it.

    Checked before anything of it is run: its size, that it is whole, needs no other file and no
    operators but standard ones, its digest, and that it belongs to the parity record beside it.

    Args:
        path: Of the file.
        threads: Cores that one input is run on.
        demand_record: Refuse a file without a parity record beside it.
        sha256: That the file must have; "" asks for none.

    Raises:
        LiteError: When it is not opened.
    """
    where = Path(path)
    try:
        content, outline, record = _checked(where, demand_record=demand_record, sha256=sha256)
        kind = Detector if KEY in outline.metadata else Net
        runner: Runner = kind(content, threads)
    except OnnxWireError as error:
        raise LiteError(f"{where}: the file {error}") from error
    except (EdgeFileError, ParityError, LiteError) as error:
        told = str(error).removeprefix(f"{where}: ")
        raise LiteError(f"{where}: {told}") from error
    return LiteModel(where, content, outline, record, runner)


def _checked(
    where: Path, *, demand_record: bool, sha256: str
) -> tuple[bytes, OnnxOutline, ParityRecord | None]:
    content = read_whole(where, MAX_FILE_BYTES)
    found = hashlib.sha256(content).hexdigest()
    if sha256 and sha256.lower() != found:
        raise LiteError(f"the file is {found[:12]}, not {sha256[:12]}; copy it anew")
    outline = read_outline(content)
    if outline.opset not in OPSETS:
        raise LiteError(f"operator set {outline.opset} is outside of {OPSETS}; export again")
    record = read_record(where)
    if record is None:
        if demand_record:
            beside = record_path(where).name
            raise LiteError(f"no parity record {beside} lies beside it; copy it along")
    elif KEY in outline.metadata:
        require_record(content, record)
    else:
        require_model(content, record)
    return content, outline, record
