"""Layers that somebody designed: printed text, pads and traces of a circuit board."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from tasks.defects.textures.fields import Field, Shape, standard
from tasks.defects.textures.layers import between


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Rows of letters of an alphabet that nobody reads; the same text on every part.

    Attributes:
        scale: Pixels per dot of a letter.
        spacing: Empty dots between letters and, twice that, between rows.
        letters: Number of different letters.
        seed: Of alphabet and text.
    """

    scale: int
    spacing: int
    letters: int
    seed: int

    @classmethod
    def draw(cls, rng: Generator) -> Glyphs:
        """Draw the parameters."""
        return cls(
            int(rng.integers(1, 6)),
            int(rng.integers(1, 4)),
            int(rng.integers(1, 30)),
            int(rng.integers(2**31)),
        )

    def render(self, shape: Shape, rng: Generator) -> Field:
        """Return the text, moved by a few pixels."""
        own = np.random.default_rng(self.seed)
        alphabet = np.zeros((self.letters, 7 + 2 * self.spacing, 5 + self.spacing), np.float32)
        half = own.random((self.letters, 7, 3)) < 0.55
        alphabet[:, :7, :3] = half
        alphabet[:, :7, 3:5] = half[:, :, 1::-1]
        rows, columns = (
            length // (self.scale * side) + 3
            for length, side in zip(shape, alphabet.shape[1:], strict=True)
        )
        text = own.integers(self.letters + 2, size=(rows, columns))
        shown = np.where((text < self.letters)[:, :, None, None], alphabet[text % self.letters], 0)
        page = shown.transpose(0, 2, 1, 3).reshape(rows * alphabet.shape[1], -1)
        page = page.repeat(self.scale, 0).repeat(self.scale, 1)
        top, left = rng.integers(3, size=2)
        return standard(page[top : top + shape[0], left : left + shape[1]])


@dataclass(frozen=True, slots=True)
class Traces:
    """Pads on a lattice and traces between them; the same board on every part.

    Attributes:
        pitch: Pixels between pads.
        width: Width of a trace as a share of the pitch.
        pads: Share of the lattice that carries a pad.
        lines: Share of the lattice's edges that carry a trace.
        hole: Share of a pad's radius that is drilled away.
        seed: Of the board.
    """

    pitch: float
    width: float
    pads: float
    lines: float
    hole: float
    seed: int

    @classmethod
    def draw(cls, rng: Generator) -> Traces:
        """Draw the parameters."""
        return cls(
            between(rng, 8, 40),
            rng.uniform(0.1, 0.4),
            rng.uniform(0.1, 0.9),
            rng.uniform(0.1, 0.7),
            rng.choice((0.0, 0.45)),
            int(rng.integers(2**31)),
        )

    def render(self, shape: Shape, rng: Generator) -> Field:
        """Return the board, moved by a pixel or two."""
        own = np.random.default_rng(self.seed)
        y = (np.arange(shape[0], dtype=np.float32) + np.float32(rng.uniform(0, 2)))[:, None]
        x = (np.arange(shape[1], dtype=np.float32) + np.float32(rng.uniform(0, 2)))[None, :]
        y, x = y / np.float32(self.pitch), x / np.float32(self.pitch)
        row, column = y.astype(np.intp), x.astype(np.intp)
        # The board's, however far this part is moved: another size would draw another board.
        lattice = tuple(int((side + 1) / self.pitch) + 2 for side in shape)
        pads = own.random(lattice) < self.pads
        across, down = own.random((2, *lattice)) < self.lines
        radius = own.uniform(0.2, 0.38)
        # Lattice points lie in the middle of their cells.
        off_y, off_x = y - row - np.float32(0.5), x - column - np.float32(0.5)
        near_row, near_column = np.abs(off_y) < self.width / 2, np.abs(off_x) < self.width / 2
        left = across[row, np.maximum(column - 1, 0)] & (off_x <= 0)
        up = down[np.maximum(row - 1, 0), column] & (off_y <= 0)
        right, under = across[row, column] & (off_x >= 0), down[row, column] & (off_y >= 0)
        copper = (near_row & (left | right)) | (near_column & (up | under))
        far = np.sqrt(off_y * off_y + off_x * off_x)
        copper |= pads[row, column] & (far < radius)
        copper &= ~(pads[row, column] & (far < self.hole * radius))
        return standard(copper.astype(np.float32))
