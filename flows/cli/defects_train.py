"""``penstock defects train``: a folder of images made a detector, registered and promoted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.console import open_console, shield_flow

if TYPE_CHECKING:
    from rich.console import Console

TITLE = "penstock defects train"
Record = dict[str, Any]


def train(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of good images and of none, few or many defective ones.",
            show_default=False,
        ),
    ],
    *,
    line: Annotated[str, typer.Option(help="Name of the line [default: of the folder].")] = "",
    max_escape: Annotated[
        float | None,
        typer.Option(help="Share of defective parts that may pass, e.g. 0.1; needs enough labels."),
    ] = None,
    max_false_reject: Annotated[
        float | None, typer.Option(help="Share of good parts that may be rejected, e.g. 0.05.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=0, help="Training steps [default: of the detector].")
    ] = None,
    parts: Annotated[
        Path | None, typer.Option(help="CSV image,part: which images show one part.")
    ] = None,
    part_pattern: Annotated[
        str, typer.Option(help="Regular expression that finds the part in an image's path.")
    ] = "",
    costs: Annotated[
        str,
        typer.Option(
            help="Cost of an escape, a false reject and a review, for the cost curve of the record."
        ),
    ] = "100,10,1",
    prevalence: Annotated[
        float, typer.Option(help="Share of defective parts on the line, likewise.")
    ] = 0.01,
    boxes: Annotated[
        bool | None,
        typer.Option(
            "--boxes/--no-boxes",
            help="Learn boxes from labelled ones and masks [default: where enough have them].",
        ),
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote/--no-promote", help="Let it serve if it deserves to.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Check the images, train, promise a miss rate, export the edge file, write the audit record.

    Without a promise asked for, the strictest that the labelled parts can carry is taken.
    """
    settings: Record = {"detect": {"seed": seed}, "plan": {"seed": seed}}
    settings["boxes"] = {"fit": boxes, "detector": {"seed": seed}}
    if steps is not None:
        settings["detect"]["steps"] = steps
    if max_escape is not None or max_false_reject is not None:
        settings["promise"] = {"max_escape": max_escape, "max_false_reject": max_false_reject}
    settings["costs"] = costs_of(costs) | {"prevalence": prevalence}
    options: Record = {}
    if parts is not None:
        options["parts"] = str(parts.resolve())
    if part_pattern:
        options["part_pattern"] = part_pattern
    console = open_console()
    record = run_training(console, folder, line, settings, options, promote=promote)
    show_training(console, record)


def costs_of(text: str) -> dict[str, float]:
    """Return the costs of ``ESCAPE,FALSE_REJECT,REVIEW``.

    >>> costs_of("200,5,1")
    {'escape': 200.0, 'false_reject': 5.0, 'review': 1.0}

    Raises:
        BadParameter: It is not three numbers.
    """
    names = ("escape", "false_reject", "review")
    try:
        return dict(zip(names, map(float, text.split(",")), strict=True))
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r}: give three numbers, as 100,10,1", param_hint="--costs"
        ) from error


def run_training(
    console: Console,
    folder: Path,
    line: str,
    settings: Record,
    options: Record | None = None,
    *,
    promote: bool = True,
) -> Record:
    """Run the flow, with what its steps say on the terminal."""
    from flows.cli.progress import shown

    with shown(f"training on {folder.name}", console):
        from flows.train_defects import train_defects

        shield_flow()
        record: Record = train_defects(
            str(folder.resolve()), line, settings, options or {}, promote=promote
        )
    return record


def show_training(console: Console, record: Record) -> None:
    """Say what came of it, and what to do next."""
    from flows.cli.paths import nearby, own_command
    from tasks.defects.boxes.figures import box_words

    fitted, finished = record["fitted"], record["finished"]
    roles = ", ".join(f"{n:,} {role}" for role, n in fitted["roles"].items())
    lines = [f"{fitted['rows_in']:,} images in, {fitted['quarantined']:,} quarantined; {roles}"]
    for role, found in finished["figures"].items():
        if "auroc" in found:
            spread = f"[{found['auroc_low']:.3f}, {found['auroc_high']:.3f}]"
            parts = f"{found['ok_parts']} good, {found['ng_parts']} defective parts"
            lines.append(f"{role}: AUROC {found['auroc']:.3f} {spread} on {parts}")
    if types := finished["types"]:
        floors = ", ".join(f"{right} by {name}" for name, right in types["floors"].items())
        lines.append(
            f"types: {types['right']} of {types['parts']} parts held out are named right "
            f"[{types['low']:.3f}, {types['high']:.3f}] ({floors}), by the {types['view']}"
            + ("" if types["decides"] else "; the prototypes name")
        )
    if finished["boxes"]:
        aside = record["boxes"]["provenance"]["left_aside"]
        note = f"; {aside:,} images left aside, whose boxes lack a type" if aside else ""
        lines.append(box_words(finished["boxes"]) + note)
    elif why := record["boxes"]["reason"]:
        lines.append(f"boxes: contours of the heat map ({why})")
    lines += finished["thresholds"]["in_words"]
    if record["promotion"]:
        promoted = "serves now" if record["promotion"]["promoted"] else "does not serve"
        lines.append(f"{promoted}: {record['promotion']['reason']}")
    penstock, bundle = own_command(), nearby(record["bundle"])
    lines += ["", f"edge file   {bundle}/edge.onnx", f"bundle      {bundle}"]
    if record["audit"]:
        lines.append(f"record      {nearby(record['audit'])}")
    lines += [
        f"inspect     {penstock} defects inspect IMAGES --model {bundle}",
        f"pages       {penstock} up",
    ]
    console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)
