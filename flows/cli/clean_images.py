"""``penstock clean images``: set bad images of a folder aside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def images(
    folder: Annotated[
        Path, typer.Argument(help="Folder of PNG, JPEG, BMP, TIFF or WebP.", show_default=False)
    ],
    *,
    reference: Annotated[
        Path | None,
        typer.Option(help="Good images of the same line: a folder, or what --save wrote."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Where to keep what was learnt from --reference, as JSON.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run [default: FOLDER.clean].")
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Share of good images that the reference may set aside.")
    ] = 0.01,
    csv: Annotated[bool, typer.Option("--csv", help="List of good images as CSV.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the good images as well.")] = False,
) -> None:
    """Set bad images aside: broken, copied, blurred, dark, light, of another camera or size."""
    from connectors.cleaning.images import (
        REPORT,
        clean_folder,
        load_reference,
        promise,
        write_reference,
    )
    from connectors.cleaning.outputs import published
    from tasks.cleaning.images.checks import ImageCheckConfig

    config = ImageCheckConfig(alpha=alpha)
    if save is not None and reference is None:
        raise typer.BadParameter("--save needs --reference: nothing else is learnt from")
    learnt = None if reference is None else load_reference(reference, config=config)
    if save is not None and learnt is not None:
        write_reference(learnt, save)
        typer.echo(f"wrote {save}")
    place = out or folder.resolve().with_name(f"{folder.resolve().name}.clean")
    run = clean_folder(
        folder, place, learnt, config=config, kind="csv" if csv else "parquet", copy=copy
    )
    found = published(place)
    assert found is not None  # noqa: S101 - just published
    counts = run.counts
    typer.echo(
        f"{counts['rows_in']:,} images in, {counts['clean']:,} clean, "
        f"{counts['quarantined']:,} quarantined"
    )
    for name, number in counts.items():
        if name.startswith("quarantined:"):
            typer.echo(f"  {number:,} by {name.removeprefix('quarantined:')}")
    if run.skipped:
        typer.echo(f"{len(run.skipped):,} other entries skipped")
    for name, why in sorted(run.checked.not_judged.items()):
        typer.echo(f"not judged: {name} ({why})")
    if run.checked.promised is not None:
        typer.echo(promise(run.checked.promised, run.reference_images))
        if run.checked.promised > alpha:
            typer.echo(f"  --alpha {alpha:g} needs {round(1 / alpha) - 1:,} reference images")
    typer.echo(f"clean   {found.clean_path}")
    typer.echo(f"report  {found.attached(REPORT)}")
