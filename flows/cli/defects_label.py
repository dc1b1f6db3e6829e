"""``penstock defects label``: label the images of a folder in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def label(
    folder: Annotated[
        Path, typer.Argument(help="Folder of the images; labels go there.", show_default=False)
    ],
    *,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="A type of defect with a button from the start; may be repeated."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="A detector: an edge file, a bundle's folder, or registry:LINE. Its heat maps can "
            "be shown (H), and images that it doubts come first."
        ),
    ] = "",
    parts: Annotated[
        Path | None, typer.Option(help="CSV of the physical part that each image shows.")
    ] = None,
    part_pattern: Annotated[
        str, typer.Option(help="Regular expression that finds the part in a path.")
    ] = "",
    port: Annotated[
        int, typer.Option(help="Port on this machine [default: any free one].", min=0, max=65_535)
    ] = 0,
    idle_minutes: Annotated[
        float, typer.Option(help="End when nobody looked for so long.", min=0.01, max=1_440)
    ] = 60.0,
) -> None:
    """Open a page that shows the images to label, those first that teach most."""
    from connectors.defects.labelling.detector import EdgeDetector
    from connectors.defects.labelling.server import serve_labelling
    from connectors.defects.labelling.store import INDEX

    def tell(address: str) -> None:
        typer.echo(f"{address}\nonly this machine can open it; Ctrl-C ends it")

    serve_labelling(
        folder,
        kinds=kind or (),
        detector=EdgeDetector(model) if model else None,
        parts=parts,
        part_pattern=part_pattern,
        port=port,
        idle_seconds=60 * idle_minutes,
        tell=tell,
    )
    typer.echo(f"closed; what was labelled lies in {folder / INDEX}")
