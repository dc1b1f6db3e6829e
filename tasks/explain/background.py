"""The frozen rows that explanations compare with, known by their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.errors import BackgroundError


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """The frozen rows that explained rows are compared with; equal by its digest.

    Attributes:
        names: Feature names in the model's order; any sequence, kept as a tuple.
        values: float32 ``[m, F]``; a copy, so that later changes of the rows given do not matter.
        sha256: Digest of names, shape and little-endian values; checked on construction.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]
    sha256: str = ""

    def __post_init__(self) -> None:
        """Compute the digest, or refuse rows that no longer match it.

        Raises:
            BackgroundError: On a value that float32 cannot hold.
            ValueError: On another shape, no rows or another digest.
        """
        object.__setattr__(self, "names", tuple(self.names))
        if self.values.ndim != 2 or self.values.shape[1] != len(self.names):
            raise ValueError(
                f"background has shape {self.values.shape} for {len(self.names)} feature names; "
                "pass rows of the model's own feature list"
            )
        if len(self.values) == 0:
            raise ValueError("background is empty; freeze at least one row")
        values = np.array(narrowed(self.values, self.names, "background row"), order="C")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)
        digest = _digest(self.names, values)
        if self.sha256 and self.sha256 != digest:
            raise ValueError(
                f"background does not match its sha256 {self.sha256[:12]}...: the file was changed "
                "after the model was explained; restore it from the model's bundle"
            )
        object.__setattr__(self, "sha256", digest)

    def __eq__(self, other: object) -> bool:
        """Backgrounds of one digest are equal."""
        return isinstance(other, Background) and other.sha256 == self.sha256

    def __hash__(self) -> int:
        """Hash the digest."""
        return hash(self.sha256)


def narrowed(
    rows: NDArray[np.floating[Any]], names: Sequence[str], what: str = "row"
) -> NDArray[np.float32]:
    """Return rows ``[n, F]`` as the float32 that every score sees.

    Background and explained rows meet in the same numbers: a feature that both hold as 0.1 must
    not differ by the digits that only one of them lost.

    Args:
        rows: Of any floating type.
        names: The F feature names, for the error.
        what: What a row is called in the error.

    Raises:
        BackgroundError: On a finite value that becomes infinite.

    >>> narrowed(np.array([[0.1]]), ["a"]).dtype
    dtype('float32')
    """
    with np.errstate(over="ignore"):
        found = np.asarray(rows, dtype=np.float32)
    if found is rows:
        return found
    lost = np.argwhere(np.isinf(found) & np.isfinite(rows))
    if len(lost):
        row, feature = lost[0]
        raise BackgroundError(
            f"{names[feature]!r} of {what} {row} is {rows[row, feature]:g}, more than float32 "
            f"holds ({np.finfo(np.float32).max:g} at most): give the feature in a larger unit, or "
            "its logarithm, to the model and here"
        )
    return found


def _digest(names: Sequence[str], values: NDArray[np.float32]) -> str:
    digest = hashlib.sha256()
    digest.update("\x1f".join(names).encode())
    digest.update(f"|{values.shape[0]}x{values.shape[1]}|".encode())
    digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return digest.hexdigest()
