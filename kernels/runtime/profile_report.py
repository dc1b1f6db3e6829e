"""The HTML report of a profile: one file, read without a network."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernels.runtime.profile_tables import MemoryTimeline
    from kernels.runtime.profiler import Profile

ROWS = 100
WIDTH, HEIGHT = 960, 220
COLOURS = ("#2a6f97", "#61a5c2", "#52796f", "#e09f3e", "#9e2a2b")


def write_report(profile: Profile) -> Path:
    """Write the report beside the trace; return its path."""
    path = profile.report_path
    path.write_text(report_html(profile), encoding="utf-8")
    return path


def report_html(profile: Profile) -> str:
    """Return the report."""
    longest = max((row.share for row in profile.operators), default=1.0) or 1.0
    phases = list(zip(profile.phases.items(), COLOURS, strict=False))
    total = sum(profile.phases.values()) or 1.0
    text: str = _template().render(
        profile=profile,
        phases=[
            {"name": n, "ms": 1e3 * s, "share": s / total, "colour": c} for (n, s), c in phases
        ],
        rows=profile.operators[:ROWS],
        hidden=max(len(profile.operators) - ROWS, 0),
        longest=longest,
        memory=_drawn(profile.memory),
        size=size_in_words,
    )
    return text


def size_in_words(count: float) -> str:
    """Return bytes in a unit that people read.

    >>> size_in_words(3 * 2**20)
    '3.0 MiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def _drawn(memory: MemoryTimeline) -> dict[str, Any] | None:
    """Return what the drawing of memory over time needs, in pixels."""
    if not memory.seconds:
        return None
    begin, end = memory.seconds[0], memory.seconds[-1]
    wide, high = max(end - begin, 1e-9), max(memory.peak_bytes, 1)

    def at(seconds: float, size: float) -> tuple[float, float]:
        return WIDTH * (seconds - begin) / wide, HEIGHT * (1 - 0.88 * max(size, 0) / high)

    corners: list[tuple[float, float]] = []
    for seconds, size in zip(memory.seconds, memory.bytes, strict=True):
        x, y = at(seconds, size)
        if corners:  # memory stays what it is until it changes
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    peak_x, peak_y = at(memory.peak_seconds, memory.peak_bytes)
    return {
        "line": line,
        "area": f"0,{HEIGHT} {line} {corners[-1][0]:.1f},{HEIGHT}",
        "width": WIDTH,
        "height": HEIGHT,
        "peak": (round(peak_x, 1), round(peak_y, 1)),
        "anchor": "end" if peak_x > WIDTH / 2 else "start",
        "label_x": round(peak_x + (-8 if peak_x > WIDTH / 2 else 8), 1),
        "milliseconds": 1e3 * wide,
        "begin": 1e3 * begin,
    }


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    found = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return found.get_template("profile_report.html")
