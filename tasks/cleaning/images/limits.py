"""What one image may cost, and what it may be."""

from __future__ import annotations

from dataclasses import dataclass

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Formats that can be allowed, as Pillow names them."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits of the decoder; an image beyond one is quarantined.

    Attributes:
        formats: Allowed formats, of :data:`FORMATS`.
        max_bytes: Bytes of a file.
        max_pixels: Width times height; Pillow's own limit against bombs is set to it as well.
        max_side: Pixels of the longer side.
        min_side: Pixels of the shorter side.
        memory_mib: Address space of a worker process (``RLIMIT_AS``); Python, NumPy and Pillow
            alone take about 200 MiB of it.
        cpu_seconds: CPU time per image (``RLIMIT_CPU``, kept in whole seconds).
        wall_seconds: Time per image; then the worker is killed, by itself and by its parent.
    """

    formats: tuple[str, ...] = FORMATS
    max_bytes: int = 64 << 20
    max_pixels: int = 50_000_000
    max_side: int = 20_000
    min_side: int = 8
    memory_mib: int = 1_536
    cpu_seconds: int = 20
    wall_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse limits that no image could keep.

        Raises:
            ValueError: Says which limit, and what is allowed.
        """
        unknown = sorted(set(self.formats) - set(FORMATS))
        if unknown or not self.formats:
            raise ValueError(f"formats {unknown or 'none'}: choose of {', '.join(FORMATS)}")
        least = {
            "max_bytes": 1,
            "max_pixels": 64,
            "max_side": 8,
            "min_side": 8,
            "memory_mib": 384,
            "cpu_seconds": 1,
        }
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {lowest} or more")
        if not self.wall_seconds > 0:
            raise ValueError(f"wall_seconds is {self.wall_seconds}; it must be positive")
