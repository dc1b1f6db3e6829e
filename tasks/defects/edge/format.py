"""The edge file's own page: what is written into the ONNX metadata, and how it is read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from kernels.compression.onnx_wire import OnnxWireError, read_outline
from kernels.compression.parity import ParityRecord
from tasks.defects.judgement import Thresholds, Verdict
from tasks.defects.samples import DEEPEST

FORMAT = 2
KEY = "penstock.defects.edge"
INPUT = "pixels"
OUTPUTS = ("score", "heat", "kinds", "verdict")
VERDICTS: tuple[Verdict, ...] = ("OK", "NG", "REVIEW")
"""By their numbers in the file."""
MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 50_000_000
MIN_SIDE, MAX_SIDE = 8, 20_000
LEAST_TILE = 128
OPSETS = range(18, 24)


class EdgeFileError(ValueError):
    """Bytes that are no edge file this program can run; says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeFacts:
    """What an edge file says of itself.

    Attributes:
        kinds: Names of the types, in the order of the output ``kinds``.
        thresholds: As they stand in the file.
        size: Height and width that images are brought to, None where they keep their own.
        tile: Longest side judged in one go; larger images are judged in tiles and the highest
            score counts. None: every image is judged whole.
        model: SHA-256 of the trained weights.
        parity: Digest of the parity record, see `kernels.compression.parity.ParityRecord`.
        created_by: Program and version.
        int8: Whether it was quantised.
        bits: In use of a deep image's pixels: of them the upper eight are judged.
    """

    kinds: tuple[str, ...]
    thresholds: Thresholds
    size: tuple[int, int] | None
    tile: int | None
    model: str
    parity: str
    created_by: str
    int8: bool
    bits: int = DEEPEST

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.tile is not None and not LEAST_TILE <= self.tile <= MAX_SIDE:
            raise ValueError(f"tile is {self.tile}; give {LEAST_TILE} to {MAX_SIDE:,} pixels")
        if not 8 <= self.bits <= DEEPEST:
            raise ValueError(f"bits are {self.bits}; give 8 to {DEEPEST}")

    def to_metadata(self) -> Mapping[str, str]:
        """Return the entries for the ONNX file."""
        told = {
            "format": FORMAT,
            "kinds": self.kinds,
            "ok_below": repr(self.thresholds.ok_below),
            "ng_from": repr(self.thresholds.ng_from),
            "size": self.size,
            "tile": self.tile,
            "model": self.model,
            "parity": self.parity,
            "created_by": self.created_by,
            "int8": self.int8,
            "bits": self.bits,
        }
        return {KEY: json.dumps(told, sort_keys=True)}


@dataclass(frozen=True, slots=True)
class EdgeFile:
    """What is shipped.

    Attributes:
        model: The edge file.
        record: Its parity record.
        float32: The same graph before quantisation, to measure against; not shipped.
    """

    model: bytes
    record: ParityRecord
    float32: bytes


def read_facts(model: bytes) -> EdgeFacts:
    """Return what a file says of itself, before anything of it is run.

    Raises:
        EdgeFileError: When it is no edge file, newer than this program, truncated, or needs more
            than itself.
    """
    if len(model) > MAX_FILE_BYTES:
        raise EdgeFileError(
            f"the file has {len(model):,} bytes, at most {MAX_FILE_BYTES:,} are run"
        )
    try:
        outline = read_outline(model)
    except OnnxWireError as error:
        raise EdgeFileError(f"the file {error}") from error
    if KEY not in outline.metadata:
        raise EdgeFileError(
            "the file is ONNX, but no edge file of defects; write one by build_edge"
        )
    try:
        told = json.loads(outline.metadata[KEY])
        _require_readable(told["format"], outline.opset)
        size = told["size"]
        return EdgeFacts(
            kinds=tuple(str(kind) for kind in told["kinds"]),
            thresholds=Thresholds(float(told["ok_below"]), float(told["ng_from"])),
            size=None if size is None else (int(size[0]), int(size[1])),
            tile=None if told["tile"] is None else int(told["tile"]),
            model=str(told["model"]),
            parity=str(told["parity"]),
            created_by=str(told["created_by"]),
            int8=bool(told["int8"]),
            bits=int(told["bits"]),
        )
    except EdgeFileError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise EdgeFileError(f"the page of the edge file is broken ({error!r})") from error


def _require_readable(version: object, opset: int) -> None:
    if version != FORMAT:
        raise EdgeFileError(
            f"edge file of format {version!r}, this program reads {FORMAT}; "
            "update it, or export again"
        )
    if opset not in OPSETS:
        raise EdgeFileError(f"operator set {opset} is outside of {OPSETS}; export again")
