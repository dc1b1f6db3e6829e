"""A small plotting frame that writes inline SVG.

Colours come from the page's style sheet by class name, so plots follow light, dark and print; no
attribute needs an inline style, which the page's content policy forbids. All text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

Scale = Callable[[float], float]


def num(value: float) -> str:
    """Write a coordinate shortly.

    >>> num(1.0), num(2.3456)
    ('1', '2.35')
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Map ``low..high`` onto ``start..end``."""
    span = (high - low) or 1.0
    return lambda v: start + (v - low) / span * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Map positive ``low..high`` onto ``start..end`` by decades; lower values sit at ``start``."""
    a, b = math.log10(low), math.log10(high)
    span = (b - a) or 1.0
    return lambda v: start + (math.log10(max(v, low)) - a) / span * (end - start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers inside ``low..high``, about ``count`` of them.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return the powers of ten inside ``low..high``."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**i for i in range(first, last + 1)]


@dataclass(slots=True)
class Drawing:
    """SVG elements collected in drawing order.

    Attributes:
        key: Unique on the page; becomes part of ids.
        width: View box width.
        height: View box height.
        title: Short name, read aloud first.
        description: What the plot shows, in a sentence with its main numbers.
    """

    key: str
    width: float
    height: float
    title: str
    description: str
    parts: list[Markup] = field(default_factory=list)

    def add(self, element: str, text: str | None = None, **attributes: object) -> None:
        """Add an element; trailing underscores fall off names and inner ones become hyphens."""
        words = "".join(
            f' {name.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"'
            for name, value in attributes.items()
        )
        body = "/>" if text is None else f">{escape(text)}</{element}>"
        self.parts.append(Markup(f"<{element}{words}{body}"))  # noqa: S704 - escaped above

    def text(self, x: float, y: float, text: str, **attributes: object) -> None:
        """Add a text element."""
        self.add("text", text, x=x, y=y, **attributes)

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str) -> None:
        """Add a straight line."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)

    def path(self, points: Sequence[tuple[float, float]], class_: str) -> None:
        """Add a line through points."""
        steps = " ".join(f"{num(x)},{num(y)}" for x, y in points)
        self.add("polyline", points=steps, class_=class_)

    def tip(self, tip: str, element: str, **attributes: object) -> None:
        """Add an element with a tooltip."""
        words = "".join(
            f' {name.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"'
            for name, value in attributes.items()
        )
        self.parts.append(
            Markup(  # noqa: S704 - attributes and text are escaped
                f"<{element}{words}><title>{escape(tip)}</title></{element}>"
            )
        )

    def document(self, style: str) -> str:
        """Return the drawing as an SVG file of its own.

        Args:
            style: CSS of the page that it comes from.
        """
        size = f'width="{num(self.width)}" height="{num(self.height)}"'
        paper = f'<rect {size} style="fill: var(--card)"/>'
        start, rest = self.render().split(">", 1)
        head = f'{start} xmlns="http://www.w3.org/2000/svg" {size}>'
        return f"{head}<style>{style}</style>{paper}{rest}\n"

    def render(self, class_: str = "plot") -> Markup:
        """Return the finished ``<svg>``."""
        head = (
            f'<svg class="{class_}" viewBox="0 0 {num(self.width)} {num(self.height)}" role="img" '
            f'aria-labelledby="{self.key}-t {self.key}-d">'
            f'<title id="{self.key}-t">{escape(self.title)}</title>'
            f'<desc id="{self.key}-d">{escape(self.description)}</desc>'
        )
        return Markup(head + "".join(self.parts) + "</svg>")  # noqa: S704 - parts are escaped


def _attribute(value: object) -> str:
    return num(value) if isinstance(value, float) else str(value)


@dataclass(slots=True)
class Axes:
    """The plotting area of a drawing.

    Attributes:
        drawing: Where it draws.
        left: Left margin.
        top: Top margin.
        right: Right margin.
        bottom: Bottom margin.
    """

    drawing: Drawing
    left: float = 62
    top: float = 14
    right: float = 14
    bottom: float = 40

    @property
    def x0(self) -> float:
        """Left end."""
        return self.left

    @property
    def x1(self) -> float:
        """Right end."""
        return self.drawing.width - self.right

    @property
    def y0(self) -> float:
        """Lower end (largest SVG coordinate)."""
        return self.drawing.height - self.bottom

    @property
    def y1(self) -> float:
        """Upper end."""
        return self.top

    def x_axis(
        self, scale: Scale, at: Sequence[float], name: str, form: Callable[[float], str]
    ) -> None:
        """Draw ticks, labels and the name below the area."""
        for value in at:
            x = scale(value)
            self.drawing.line(x, self.y0, x, self.y0 + 4, "tick")
            self.drawing.text(x, self.y0 + 17, form(value), class_="tl", text_anchor="middle")
        self.drawing.line(self.x0, self.y0, self.x1, self.y0, "axis")
        middle = (self.x0 + self.x1) / 2
        self.drawing.text(middle, self.y0 + 35, name, class_="an", text_anchor="middle")

    def y_axis(
        self, scale: Scale, at: Sequence[float], name: str, form: Callable[[float], str]
    ) -> None:
        """Draw grid lines, labels and the name at the left."""
        for value in at:
            y = scale(value)
            self.drawing.line(self.x0, y, self.x1, y, "grid")
            self.drawing.text(self.x0 - 8, y + 4, form(value), class_="tl", text_anchor="end")
        middle = (self.y0 + self.y1) / 2
        turn = f"rotate(-90 11 {num(middle)})"
        self.drawing.text(11, middle, name, class_="an", text_anchor="middle", transform=turn)
