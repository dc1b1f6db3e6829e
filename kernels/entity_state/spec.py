"""What an entity's state remembers: windows, label delay, mailbox size.

Times are int64 epoch milliseconds everywhere in this package; amounts are int64 minor units
(cents). A window reaches from the tile boundary at or before ``t - length`` up to ``t`` itself:
exact at the head, tile-aligned at the tail.
"""

from __future__ import annotations

from dataclasses import dataclass

SECOND = 1_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
MAX_TILES = 4_096
"""Tiles per ring; more means a tile far too short for its window."""


@dataclass(frozen=True, slots=True)
class Window:
    """One look-back window.

    Attributes:
        name: Suffix of the features it yields, for example ``"7d"``.
        length: Milliseconds back from the event.
        tile: Milliseconds per tile; the tail of the window is aligned to it.
    """

    name: str
    length: int
    tile: int

    def __post_init__(self) -> None:
        """Reject windows that cannot be tiled."""
        if self.length <= 0 or self.tile <= 0:
            raise ValueError(f"window {self.name!r}: length and tile must be positive milliseconds")
        if self.length % self.tile:
            raise ValueError(
                f"window {self.name!r}: length {self.length} ms is no multiple of its tile "
                f"{self.tile} ms; choose a tile that divides it"
            )
        if self.length // self.tile > MAX_TILES:
            raise ValueError(
                f"window {self.name!r} would need {self.length // self.tile} tiles, more than "
                f"{MAX_TILES}; choose a longer tile"
            )


def days(n: int, *, tile: int = DAY) -> Window:
    """Return a window of ``n`` days.

    >>> days(7).length == 7 * DAY
    True
    """
    return Window(f"{n}d", n * DAY, tile)


DEFAULT_WINDOWS = (days(1, tile=HOUR), days(7), days(30))


@dataclass(frozen=True, slots=True)
class StateSpec:
    """Everything that fixes the layout of a state block of one entity kind.

    Attributes:
        windows: Transaction-side windows; one tile ring is kept per distinct tile length.
        label_tile: Tile length of the delayed-label side, milliseconds. Label windows have the
            lengths of ``windows`` and reach from the tile boundary at or before
            ``t - delay - length`` up to ``t`` (nothing younger than the delay is known).
        delay: Milliseconds between an event and the earliest use of its label.
        roles: How many entity columns name this kind (2 for sender and receiver). Each role
            keeps its own tiles, label side and mailbox inside the one block.
        mail_slots: Messages kept per role (K).
        mail_width: float32 entries of a message vector (at most 8).
        recent_ids: Event ids remembered for de-duplication.
    """

    windows: tuple[Window, ...] = DEFAULT_WINDOWS
    label_tile: int = DAY
    delay: int = 7 * DAY
    roles: int = 1
    mail_slots: int = 8
    mail_width: int = 8
    recent_ids: int = 16

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not self.windows:
            raise ValueError("state needs at least one window; add one, for example days(7)")
        if len({w.name for w in self.windows}) != len(self.windows):
            raise ValueError("window names must be unique")
        if not 0 <= self.mail_width <= 8:
            raise ValueError(f"mail_width must lie in 0..8, got {self.mail_width}")
        if self.roles < 1 or self.recent_ids < 1 or self.mail_slots < 1:
            raise ValueError("roles, recent_ids and mail_slots must be at least 1")
        if self.delay < 0 or self.label_tile <= 0:
            raise ValueError("delay must be >= 0 and label_tile > 0 milliseconds")
        if max(window.length for window in self.windows) // self.label_tile > MAX_TILES:
            raise ValueError(
                f"label_tile {self.label_tile} ms would need more than {MAX_TILES} tiles; "
                "choose a longer one"
            )
