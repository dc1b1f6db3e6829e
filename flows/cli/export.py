"""``penstock export``: a model as a file of another format, held against the model first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kernels.compression.formats.card import Card

app = typer.Typer(add_completion=False)

NAMES = "onnx, openvino, torch-export, aoti, executorch, tflite, coreml"


@app.command()
def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Inspection model (folder or registry:LINE), .pt2 of torch.export, or .onnx file."
        ),
    ],
    *,
    to: Annotated[str, typer.Option("--to", help=f"Format: {NAMES}.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="File to write [default: the model's name, here].")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Held data: folder of images (inspection model), or .npz with an array per input."
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="Shape of an ONNX input that has none, 0 for free: x=0x3x224x224; of an "
            "inspection model the one size it takes: pixels=256x256x3."
        ),
    ] = None,
    float32: Annotated[
        bool, typer.Option("--float32", help="Of an inspection model the net before int8.")
    ] = False,
    limit: Annotated[
        float, typer.Option(help="A net with one score decides yes from here on.")
    ] = 0.5,
    check: Annotated[
        bool, typer.Option("--check", help="MODEL is an exported file: run it again here.")
    ] = False,
) -> None:
    """Write MODEL in another format, with a card; a file that decides otherwise is not kept."""
    if check:
        _check(Path(model))
        return
    from connectors.model_export import read_source
    from infra.errors import PenstockError
    from kernels.compression.formats.protocol import FormatUnavailableError
    from kernels.compression.formats.ship import ShipConfig, ship
    from kernels.compression.formats.table import format_named

    if not to:
        raise PenstockError("no format is given", f"Add --to with one of: {NAMES}")
    form = format_named(to)
    if reason := form.available():
        raise FormatUnavailableError(reason)
    shapes = dict(_shape(each) for each in shape or [])
    source = read_source(model, form, data=data, shapes=shapes, float32=float32)
    path = out or Path(source.name + form.suffix)
    if path.resolve() == Path(model).resolve():
        raise PenstockError(f"{path} is the model itself", "Name another file by --out")
    asked = ShipConfig(flips=source.flips, max_rel=source.max_rel, limit=limit, held=source.words)
    card = ship(
        source.source, form, path, source.held, source.config, asked=asked,
        reference=source.reference, example=source.example,
    )  # fmt: skip
    _tell(path, card, source.notes)


def _check(path: Path) -> None:
    from kernels.compression.formats.ship import recheck

    card, apart = recheck(path)
    typer.echo(f"file        {path} ({card.format}, {card.version})")
    typer.echo(
        f"decisions   {apart.flips} of {apart.decisions} differ, largest drift {apart.max_rel:.2g}"
    )


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    try:
        if not name:
            raise ValueError("no name")  # noqa: TRY301 - told below
        return name, tuple(int(one) for one in sizes.split("x"))
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r}: give NAME=0x3x224x224", param_hint="--shape"
        ) from error


def _tell(path: Path, card: Card, notes: tuple[str, ...]) -> None:
    from kernels.compression.formats.card import card_path

    typer.echo(f"file        {path} ({card.size:,} bytes, {card.version})")
    parity = card.parity
    if parity["run"]:
        typer.echo(
            f"decisions   {parity['flips']} of {parity['decisions']} differ, largest drift "
            f"{parity['max_rel']:.2g} ({parity['held']})"
        )
    for name, one in card.latency.items():
        typer.echo(f"{name:11} {one['median_ms']:.2f} ms CPU, p99 {one['p99_ms']:.2f}")
    typer.echo(f"card        {card_path(path)}")
    for note in (*notes, *card.notes):
        typer.echo(f"note        {note}")
