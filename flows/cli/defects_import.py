"""``penstock defects check``: what a folder of images would be as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.console import printable

SHOWN = 20
"""Quarantined files that are listed."""


def check(
    folder: Annotated[
        Path, typer.Argument(help="Folder of images, masks, annotations.", show_default=False)
    ],
    *,
    types_from: Annotated[
        str, typer.Option(help="Where types stand: auto, folder, name, none.")
    ] = "auto",
    annotations: Annotated[
        str, typer.Option(help="Annotation files: auto, none, voc, coco, yolo.")
    ] = "auto",
    masks: Annotated[
        str, typer.Option(help="Mask files: auto, none, folder, ending, beside.")
    ] = "auto",
    normal: Annotated[
        list[str] | None, typer.Option(help="A further name of folders of good images.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="CSV of what belongs to it [default: FOLDER/index.csv].")
    ] = None,
    parts: Annotated[
        Path | None, typer.Option(help="CSV of the physical part that each image shows.")
    ] = None,
    part_pattern: Annotated[
        str, typer.Option(help="Regular expression that finds the part in a path.")
    ] = "",
    mask_threshold: Annotated[
        int | None, typer.Option(help="Level from which a mask's pixel is on the defect.")
    ] = None,
    resize_masks: Annotated[
        bool, typer.Option("--resize-masks", help="Bring masks of the same shape to the size.")
    ] = False,
    quarantine: Annotated[
        Path | None, typer.Option(help="Folder to write the quarantine records to.")
    ] = None,
) -> None:
    """Say how a folder is understood, what it holds, and what cannot be used."""
    from connectors.defects.folders import load_dataset
    from connectors.defects.options import DatasetOptions
    from connectors.files import write_quarantine
    from tasks.defects.data.layout import LayoutOptions

    chosen: dict[str, Any] = {"types_from": types_from, "masks": masks}
    options: dict[str, Any] = {"annotations": annotations}
    dataset = load_dataset(
        folder,
        DatasetOptions(
            layout=LayoutOptions(**chosen, normal=tuple(normal or ())),
            index=index,
            parts=parts,
            part_pattern=part_pattern,
            mask_threshold=mask_threshold,
            resize_masks=resize_masks,
            **options,
        ),
    )
    for line in dataset.findings:
        typer.echo(printable(line))
    aside = dataset.quarantine.to_pylist()
    typer.echo(
        f"{dataset.rows_in:,} images in, {dataset.frame.height:,} used, {len(aside):,} quarantined"
    )
    counts = dataset.frame.group_by("label", "kind").len().sort("label", "kind", nulls_last=True)
    for label, kind, number in counts.iter_rows():
        typer.echo(printable(f"  {number:,} {label or 'not labelled'} {kind}".rstrip()))
    for record in aside[:SHOWN]:
        typer.echo(printable(f"  {record['source']}: {record['rule']}, {record['observed']}"))
    if len(aside) > SHOWN:
        typer.echo(f"  and {len(aside) - SHOWN:,} more; --quarantine FOLDER writes all")
    typer.echo(f"digest  {dataset.digest}")
    if quarantine is not None and (written := write_quarantine(dataset.quarantine, quarantine)):
        typer.echo(f"quarantine  {written}")
