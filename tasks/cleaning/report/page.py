"""What every page of Penstock shares: frame, style, and a policy that lets nothing else in.

A page is one HTML file that needs no network, no script and no other file. Its
Content-Security-Policy allows nothing but its own style sheet, named by its hash, so even markup
that slipped through escaping could load or run nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

SHARED = "tasks.cleaning.report"
FRAME, MACROS, STYLE = "frame.html", "macros.html", "report.css"


def render_page(
    package: str,
    template: str,
    filters: Mapping[str, Callable[..., str]],
    *,
    style: str = "",
    **values: Any,
) -> str:
    """Return a page as one HTML document; the caller writes it.

    Args:
        package: Where the template and its style lie, dotted.
        template: File that extends ``frame.html``.
        filters: What the template writes values with.
        style: File of rules that only this page needs, after the shared ones.
        values: What the template shows; everything is escaped.
    """
    css = style_sheet(package, style)
    html = (
        environment(package, filters)
        .get_template(template)
        .render(
            css=Markup(css),  # noqa: S704 - our own files
            css_hash="sha256-" + base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
            **values,
        )
    )
    # Values may hold lone surrogates, which no file could be written with.
    return html.encode("utf-8", "replace").decode("utf-8")


def style_sheet(package: str, style: str = "") -> str:
    """Return the shared rules and those of one page, for the page or a drawing taken out of it."""
    css = own_file(SHARED, STYLE).strip()
    return css + "\n" + own_file(package, style).strip() if style else css


def environment(package: str, filters: Mapping[str, Callable[..., str]]) -> Environment:
    """Return where templates of a package, and the shared ones, are found and escaped."""

    def source(name: str) -> str:
        return own_file(SHARED if name in {FRAME, MACROS} else package, name)

    made = Environment(
        loader=FunctionLoader(source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= dict(filters)
    return made


def own_file(package: str, name: str) -> str:
    """Return a text file of a package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
