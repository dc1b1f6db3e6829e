"""``penstock defects golden``: a golden sample of a print or a board, with a promise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import open_console, printable

if TYPE_CHECKING:
    from connectors.defects.golden import GoldenRecord

SHOWN = 5


def golden(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of good images of one product, and of defective ones.", show_default=False
        ),
    ],
    *,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the golden sample [default: FOLDER.golden].")
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(help="A golden image by its path in the folder; may be repeated."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Golden images, where none is named.")] = 5,
    max_escape: Annotated[
        float | None, typer.Option(help="Share of defective parts that may pass, e.g. 0.1.")
    ] = None,
    max_false_reject: Annotated[
        float | None, typer.Option(help="Share of good parts that may be rejected, e.g. 0.05.")
    ] = None,
    shift: Annotated[
        float, typer.Option(help="Largest shift on the line, as a share of the sides.")
    ] = 0.15,
    turn: Annotated[float, typer.Option(help="Largest rotation on the line, degrees.")] = 5.0,
    parts: Annotated[
        Path | None, typer.Option(help="CSV image,part: which images show one part.")
    ] = None,
) -> None:
    """For parts that all look the same: what differs from good ones is missing or extra.

    Some good images are the golden sample, all others set the thresholds.
    """
    from connectors.defects.golden import GoldenConfig, make_golden
    from connectors.defects.options import DatasetOptions
    from flows.cli.progress import shown
    from tasks.defects.promise.thresholds import Promise
    from tasks.defects.template.config import TemplateConfig

    asked = max_escape is not None or max_false_reject is not None
    config = GoldenConfig(
        goldens=tuple(image or ()),
        count=count,
        promise=Promise(max_escape, max_false_reject) if asked else None,
        template=TemplateConfig(shift=shift, turn=turn),
    )
    place = out or folder.resolve().with_name(f"{folder.resolve().name}.golden")
    console = open_console()
    with shown(f"comparing {folder.name}", console):
        record = make_golden(folder, place, config, DatasetOptions(parts=parts))
    for line in _told(record, place):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _told(record: GoldenRecord, place: Path) -> list[str]:
    from flows.cli.paths import nearby, own_command
    from tasks.defects.promise.words import sentences

    judged, figures = record.judged, record.figures
    first, ok, ng = printable(record.goldens[0]), judged["ok"], judged["ng"]
    others = f"{ok:,} other good and {ng:,} defective ones set the thresholds"
    lines = [f"{len(record.goldens):,} golden images, {first} the first; {others}"]
    if record.refused:
        named = ", ".join(map(printable, record.refused[:SHOWN]))
        lines.append(f"{len(record.refused):,} cannot be laid on it, as on the line: {named}")
    if "auroc" in figures:
        spread = f"[{figures['auroc_low']:.3f}, {figures['auroc_high']:.3f}]"
        lines.append(f"AUROC {figures['auroc']:.3f} {spread}")
    lines += sentences(record.promised)
    command = f"{own_command()} defects inspect IMAGES --model {nearby(str(place))}"
    return [*lines, "", f"golden sample  {nearby(str(place))}", f"inspect        {command}"]
