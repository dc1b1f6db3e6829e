"""Serves the labelling page of one folder on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.types import ASGIApp

from connectors.cleaning.image_files import ImageFolderError, list_images
from connectors.defects.annotation_files import OtherFiles, find_index
from connectors.defects.labelling.detector import Detector
from connectors.defects.labelling.pictures import Pictures
from connectors.defects.labelling.queue import Queue
from connectors.defects.labelling.store import LabelStore
from connectors.defects.parts import named_parts
from connectors.local_page.server import serve, token_of
from tasks.cleaning.images.limits import ImageLimits
from tasks.cleaning.images.sandbox import Sandbox

TOKEN_VARIABLE = "PENSTOCK_LABEL_TOKEN"  # noqa: S105 - its name


def serve_labelling(
    folder: Path,
    *,
    kinds: Sequence[str] = (),
    detector: Detector | None = None,
    parts: Path | None = None,
    part_pattern: str = "",
    limits: ImageLimits | None = None,
    port: int = 0,
    idle_seconds: float,
    tell: Callable[[str], None],
) -> None:
    """Serve the page until Ctrl-C, or until nobody looks any more.

    Args:
        folder: The images, also in folders within it; the labels are written there.
        kinds: Types that have a button from the start, before those that folders are named after.
        detector: Says where an image looks defective, and which images leave it in doubt.
        parts: A CSV that says which images show one part; before it goes what ``index.csv`` says.
        part_pattern: A regular expression that finds the part in an image's path.
        limits: What one image may cost.
        port: On this machine's loopback; 0 takes any free one.
        idle_seconds: Ends when no request came for so long.
        tell: Called with the page's address once it is served.

    Raises:
        ImageFolderError: When the folder cannot be read, or holds no image.
        LabelError: When labels lie there that cannot be read, or a type's name cannot be one.
        AnnotationError: When the parts or the folder's index cannot be read.
        ConfigurationError: When the token of the environment can be guessed.
        ServiceError: When the port is taken.
    """
    token = token_of(TOKEN_VARIABLE)
    with Sandbox(limits, workers=2) as sandbox:
        pictures = Pictures(folder, sandbox, detector)
        if not pictures.files:
            raise ImageFolderError(f"{folder} holds no image; name the folder that holds them")
        store = LabelStore(folder)
        shown = _parts(folder, list(pictures.places), parts, part_pattern)
        with Queue(pictures) as queue:

            def app() -> ASGIApp:
                from connectors.defects.labelling.app import create_app

                return create_app(store, pictures, queue, token, tuple(kinds), shown)

            serve(app, token, port=port, idle_seconds=idle_seconds, tell=tell)


def _parts(folder: Path, names: list[str], table: Path | None, pattern: str) -> dict[str, str]:
    """Return the physical part of each image that one is known of."""
    found, _ = named_parts(names, table, pattern)
    index = find_index(OtherFiles(folder, list_images(folder))) or []
    return found | {entry.image: entry.part for entry in index if entry.part}
