"""Small pictures drawn inline; colours come from the page's style by class."""

from __future__ import annotations

from markupsafe import Markup

from tasks.cleaning.profile.distributions import Histogram

WIDTH, HEIGHT = 320, 64
GAP = 1.5
LEAST = 1.5
"""Height of a bar that counts anything: it must be seen."""


def histogram_picture(histogram: Histogram) -> Markup:
    """Return a histogram as one SVG path; values over the ends are marked at the sides.

    Where every bar stands for one value, bars lie at equal steps.
    """
    counts = histogram.counts
    most = max(counts, default=0) or 1
    step = WIDTH / max(len(counts), 1)
    width = max(step - GAP, 1.0) if step < 60 else 40.0
    bars = []
    for i, count in enumerate(counts):
        if count == 0:
            continue
        tall = max(LEAST, (HEIGHT - 2) * count / most)
        left = i * step + (step - width) / 2
        bars.append(f"M{left:.1f} {HEIGHT}v-{tall:.1f}h{width:.1f}V{HEIGHT}z")
    told = f"{len(counts)} bars, the tallest {most:,} of {sum(counts):,} values"
    return Markup(  # noqa: S704 - numbers only
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}" '
        f'preserveAspectRatio="none"><path d="{"".join(bars)}"/></svg>'
    )


def bar(share: float | None, floor: float | None = None) -> Markup:
    """Return a bar of a share of 1, with a mark at the floor if there is one."""
    if share is None:
        return Markup("")
    mark = ""
    if floor:
        at = 100 * min(floor, 1.0)
        mark = f'<path class="floor" d="M{at:.1f} 0v8"/>'
    return Markup(  # noqa: S704 - numbers only
        '<svg class="bar" viewBox="0 0 100 8" aria-hidden="true" preserveAspectRatio="none">'
        '<rect class="track" width="100" height="8" rx="2"/>'
        f'<rect class="fill" width="{100 * min(max(share, 0.0), 1.0):.1f}" height="8" rx="2"/>'
        f"{mark}</svg>"
    )
