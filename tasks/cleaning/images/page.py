"""The page of a run over images: what was set aside, with small pictures made in the sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.cleaning.report.page import render_page

MAX_SHOWN = 120
"""Images on the page; at about 20 KiB each."""


@dataclass(frozen=True, slots=True)
class ShownImage:
    """An image that was set aside.

    Attributes:
        file: Its name.
        rule: Why.
        observed: What was found.
        expected: What a good one has.
        picture: PNG in base64, "" where it does not decode.
    """

    file: str
    rule: str
    observed: str
    expected: str
    picture: str


@dataclass(frozen=True, slots=True)
class ImagePage:
    """Everything the page shows.

    Attributes:
        source: The folder's name.
        time: When it was looked at.
        files: Images in.
        clean: Images that stay.
        by_rule: Images set aside by rule, most first.
        shown: The first of them.
        promise: What the reference promises, in a sentence; "" without one.
        not_judged: Checks that were not made, with the reason.
        skipped: Entries of the folder that were not looked at.
    """

    source: str
    time: str
    files: int
    clean: int
    by_rule: Sequence[tuple[str, int]]
    shown: Sequence[ShownImage]
    promise: str
    not_judged: Sequence[tuple[str, str]]
    skipped: int


def build_image_page(page: ImagePage) -> str:
    """Return the page as one HTML document without script, network or other files."""
    filters = {"count": lambda n: f"{n:,}"}
    return render_page("tasks.cleaning.images", "images.html", filters, style="images.css", r=page)
