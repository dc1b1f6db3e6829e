"""What the records of an entity kind look like by its spec."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.layout import layout_of, spec_digest
from kernels.entity_state.parts import Part, parts_of
from kernels.entity_state.spec import StateSpec


class Shape(NamedTuple):
    """What a spec says about its records.

    Attributes:
        digest: Digest of the spec.
        empty: Block that has seen nothing, uint8 [size], read-only.
        parts: The parts of a block.
        suffixes: What follows the entity in the key of each part.
    """

    digest: int
    empty: NDArray[np.uint8]
    parts: tuple[Part, ...]
    suffixes: tuple[bytes, ...]


@lru_cache(maxsize=64)
def shape_of(spec: StateSpec) -> Shape:
    """Return what a spec says about its records (cached)."""
    parts = parts_of(spec)
    suffixes = tuple(bytes((0, part.number)) for part in parts)
    return Shape(spec_digest(spec), layout_of(spec).empty, parts, suffixes)
