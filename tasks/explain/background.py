"""The frozen rows that explanations compare with, known by their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """The frozen rows that explained rows are compared with; equal by its digest.

    Attributes:
        names: Feature names in the model's order.
        values: float32 ``[m, F]``; a copy, so that later changes of the rows given do not matter.
        sha256: Digest of names, shape and little-endian values; checked on construction.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]
    sha256: str = ""

    def __post_init__(self) -> None:
        """Compute the digest, or refuse rows that no longer match it."""
        if self.values.ndim != 2 or self.values.shape[1] != len(self.names):
            raise ValueError(
                f"background has shape {self.values.shape} for {len(self.names)} feature names; "
                "pass rows of the model's own feature list"
            )
        if len(self.values) == 0:
            raise ValueError("background is empty; freeze at least one row")
        values = np.array(self.values, dtype=np.float32, order="C")
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


def _digest(names: Sequence[str], values: NDArray[np.float32]) -> str:
    digest = hashlib.sha256()
    digest.update("\x1f".join(names).encode())
    digest.update(f"|{values.shape[0]}x{values.shape[1]}|".encode())
    digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return digest.hexdigest()
