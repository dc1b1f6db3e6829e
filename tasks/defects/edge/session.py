"""Runs an edge file: numpy and ONNX Runtime, nothing else.

Everything that decides lies in the file, so this is only a door: it checks the file, checks the
pixels, runs, and names the answers.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from numpy.typing import NDArray

from kernels.compression.parity import ParityError, ParityRecord, require_model
from kernels.compression.sessions import open_session
from tasks.defects.edge.format import (
    INPUT,
    MAX_PIXELS,
    MAX_SIDE,
    MIN_SIDE,
    OUTPUTS,
    VERDICTS,
    EdgeFacts,
    EdgeFileError,
    read_facts,
)
from tasks.defects.edge.tiles import tiles
from tasks.defects.judgement import Heat, Judgement
from tasks.defects.samples import Pixels, rgb


class EdgePixelsError(ValueError):
    """Pixels that are not judged; says what they are and what to give."""


class EdgeSession:
    """A detector on the edge.

    Attributes:
        facts: What the file says of itself.
    """

    def __init__(
        self, model: bytes, *, threads: int = 2, record: ParityRecord | None = None
    ) -> None:
        """Load a file.

        Args:
            model: Content of the edge file.
            threads: Cores that one image is judged on.
            record: Parity record that the file must belong to; None asks for none.

        Raises:
            EdgeFileError: When it is no edge file that can be run, or not the record's.
        """
        self.facts: EdgeFacts = read_facts(model)
        if record is not None:
            require_record(model, record)
        try:  # the arena would keep the memory of the largest image for ever
            session = open_session(model, threads=threads, arena=False)
        except Exception as error:  # ONNX Runtime has no base class of its errors
            reason = str(error).splitlines()[0][:300]
            raise EdgeFileError(f"ONNX Runtime cannot load the file: {reason}") from error
        inputs = [(i.name, i.type, len(i.shape)) for i in session.get_inputs()]
        outputs = tuple(output.name for output in session.get_outputs())
        if inputs != [(INPUT, "tensor(uint8)", 3)] or outputs != OUTPUTS:
            raise EdgeFileError(f"the file takes {inputs} and gives {outputs}; export again")
        self._session = session

    def judge(self, pixels: Pixels) -> Judgement:
        """Judge one decoded image.

        Args:
            pixels: uint8 [h, w] (gray) or [h, w, 3] (RGB), upright.

        Raises:
            EdgePixelsError: For other types, shapes or sizes.
        """
        image = checked_pixels(pixels)
        height, width = image.shape[:2]
        whole = np.zeros((height, width), np.float32)
        found = []
        for rows, columns in tiles(height, width, self.facts.tile):
            part = np.ascontiguousarray(image[rows, columns])
            score, heat, kinds, verdict = self._session.run(list(OUTPUTS), {INPUT: part})
            place = whole[rows, columns]
            np.maximum(place, enlarged(heat, (part.shape[0], part.shape[1])), out=place)
            found.append((float(score), kinds, int(verdict)))
        # A score that is no number is for a person, whatever the other tiles say.
        score, kinds, verdict = max(found, key=lambda x: math.inf if math.isnan(x[0]) else x[0])
        return Judgement(
            score=score,
            heat=whole,
            verdict=VERDICTS[verdict],
            kinds={k: float(p) for k, p in zip(self.facts.kinds, kinds, strict=True)},
        )


def require_record(model: bytes, record: ParityRecord) -> None:
    """Raise `EdgeFileError` unless file and parity record were made together."""
    try:
        require_model(model, record)
    except ParityError as error:
        raise EdgeFileError(str(error)) from error
    if record.digest() != read_facts(model).parity:
        raise EdgeFileError("the file was made with another parity record; export again")


def checked_pixels(pixels: NDArray[np.generic]) -> Pixels:
    """Return uint8 [h, w, 3].

    Raises:
        EdgePixelsError: For 16 bits, alpha, floats, no pixels or too many.
    """
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        told = getattr(pixels, "dtype", type(pixels).__name__)
        raise EdgePixelsError(
            f"pixels are {told}, the edge file takes uint8; bring deeper ones to 8 bits by "
            "tasks.defects.samples.eight_bits with the bits of the file's facts"
        )
    if pixels.ndim not in {2, 3} or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise EdgePixelsError(
            f"pixels are {pixels.shape}; give [h, w] or [h, w, 3], alpha laid over black"
        )
    height, width = pixels.shape[:2]
    short, long = sorted((height, width))
    if short < MIN_SIDE or long > MAX_SIDE or height * width > MAX_PIXELS:
        raise EdgePixelsError(
            f"the image has {height} x {width} pixels; {MIN_SIDE} to {MAX_SIDE:,} a side and "
            f"{MAX_PIXELS:,} in all are judged"
        )
    return np.ascontiguousarray(rgb(cast("Pixels", pixels)))


def enlarged(heat: Heat, shape: tuple[int, int]) -> Heat:
    """Return float32 [h, w]: bilinear between the middles of the cells, even beyond the outermost.

    This is `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`.
    """
    columns = _between(heat.astype(np.float32, copy=False), shape[1])
    return np.ascontiguousarray(_between(np.ascontiguousarray(columns.T), shape[0]).T)


def _between(values: Heat, length: int) -> Heat:
    """Resample the last axis to ``length``."""
    count = values.shape[1]
    place = np.clip((np.arange(length) + 0.5) * (count / length) - 0.5, 0, count - 1)
    left = place.astype(np.int64)
    right = np.minimum(left + 1, count - 1)
    share = (place - left).astype(np.float32)
    low = values[:, left]
    low += (values[:, right] - low) * share
    return low
