"""Outlines and runs of annotations, made masks of their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain

from connectors.defects.dataset import DrawnMask
from connectors.defects.import_checks import Candidate, drawn_on_stored
from connectors.defects.options import DatasetOptions
from tasks.defects.data.settle import MOST_OUTSIDE
from tasks.defects.data.shapes import MAX_WORK, Runs, Shape, ShapeError, drawn, shapes_digest


def fit_shapes(images: Iterable[Candidate], options: DatasetOptions) -> list[str]:
    """Lay what annotations draw to the images that have no mask of their own; return sentences.

    An image of which only some defects are drawn keeps its boxes alone: a mask that leaves others
    out would call them good.
    """
    counts: Counter[str] = Counter()
    for image in images:
        note = image.annotation
        if note is None or not note.shapes or image.flag is not None or image.measured is None:
            continue
        if image.mask is not None:
            counts["beside a mask"] += 1
            continue
        if not all(note.shapes):
            counts["partly"] += 1
            continue
        turn = not image.indexed and drawn_on_stored(image, note.size, options)
        width, height = image.stored if turn else image.shown
        shapes = tuple(chain.from_iterable(note.shapes))
        try:
            _check(shapes, width, height)
        except ShapeError as error:
            image.refuse("shape-outside", str(error), f"shapes within {width} x {height} pixels")
            continue
        mask = DrawnMask(
            shapes, width, height, image.orientation if turn else 1, shapes_digest(shapes)
        )
        marked = int(drawn(shapes, width, height).sum())
        counts["masks" if marked else "empty"] += 1
        if marked:
            image.mask, image.marked = mask, marked
    says = {
        "masks": "images have a mask by outlines or runs of their annotation",
        "empty": "images have shapes that mark nothing: taken as not drawn",
        "partly": "images have outlines of some defects only: their boxes count alone",
        "beside a mask": "images have a mask file, which goes before outlines",
    }
    return [f"shapes: {counts[name]:,} {text}" for name, text in says.items() if counts[name]]


def _check(shapes: tuple[Shape, ...], width: int, height: int) -> None:
    """Refuse shapes of another image, before anything of their size is made."""
    if sum(shape.work() for shape in shapes) > MAX_WORK:
        raise ShapeError(f"{len(shapes):,} shapes that are too large together to be drawn by hand")
    for shape in shapes:
        if isinstance(shape, Runs):
            if (shape.width, shape.height) != (width, height):
                raise ShapeError(f"runs of {shape.width} x {shape.height} pixels")
            continue
        left, top, right, bottom = shape.extent()
        if max(-left, -top, right - width, bottom - height) > MOST_OUTSIDE:
            raise ShapeError(f"an outline {left:g}, {top:g}, {right:g}, {bottom:g}")
