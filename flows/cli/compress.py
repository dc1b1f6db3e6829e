"""``penstock compress``: plans and makes a smaller, faster file of a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.console import open_console, shield_flow

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Make a trained model small and fast for a device, with its loss stated.",
)
Record = dict[str, Any]

Model = Annotated[
    str,
    typer.Argument(
        help="Folder of an inspection bundle, registry:LINE, or an ONNX file.", show_default=False
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        help="Images that the model was trained on; for an ONNX file, .npz of examples.",
        show_default=False,
    ),
]
DeviceName = Annotated[
    str, typer.Option("--device", help="server-core, box-2gb, arm-board or phone.")
]
Megabytes = Annotated[float | None, typer.Option("--mb", help="Size of the file at most.")]
Smaller = Annotated[float | None, typer.Option(help="Times smaller than the float file.")]
Milliseconds = Annotated[float | None, typer.Option("--ms", help="Median time of one item.")]
Faster = Annotated[
    float | None, typer.Option(help="Times faster than the float file in the same engine.")
]
Memory = Annotated[
    float | None, typer.Option("--memory-mb", help="Peak memory [default: of the device].")
]
Loss = Annotated[float, typer.Option("--max-loss", help="Quality that may be lost.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
PartPattern = Annotated[
    str, typer.Option(help="Regular expression that finds the part in an image's path.")
]


@app.command()
def plan(
    model: Model,
    *,
    data: Data,
    device: DeviceName = "box-2gb",
    mb: Megabytes = None,
    smaller: Smaller = None,
    ms: Milliseconds = None,
    faster: Faster = None,
    memory_mb: Memory = None,
    max_loss: Loss = 0.01,
    part_pattern: PartPattern = "",
    run: Annotated[bool, typer.Option("--run", help="Carry the plan out at once.")] = False,
    as_json: Json = False,
) -> None:
    """Say within minutes what will be tried, or that nothing can meet the budget."""
    budget = _budget(
        mb=mb, smaller=smaller, ms=ms, faster=faster, memory_mb=memory_mb, loss=max_loss
    )
    if run:
        _carry_out(model, data, device, budget, part_pattern, as_json=as_json)
        return
    from connectors.compress.job import budget_of, subject_of
    from connectors.defects.models import model_at
    from tasks.compress.device import device_named
    from tasks.compress.planner import make_plan
    from tasks.compress.record import plan_record

    target, asked = device_named(device), budget_of(budget)
    console = open_console()
    from flows.cli.progress import shown

    with shown(f"planning for {device}", console):
        subject = subject_of(model_at(model), data, _options(part_pattern))
        made = plan_record(make_plan(subject, target, asked))
    show_plan(console, made)
    if as_json:
        typer.echo(json.dumps(made))


@app.command(name="run")
def carry_out(
    model: Model,
    *,
    data: Data,
    device: DeviceName = "box-2gb",
    mb: Megabytes = None,
    smaller: Smaller = None,
    ms: Milliseconds = None,
    faster: Faster = None,
    memory_mb: Memory = None,
    max_loss: Loss = 0.01,
    minutes: Annotated[float, typer.Option(help="After which no further recipe is begun.")] = 15.0,
    part_pattern: PartPattern = "",
    register: Annotated[
        bool, typer.Option("--register/--no-register", help="Publish the compressed model.")
    ] = True,
    name: Annotated[
        str, typer.Option(help="Registered model that an ONNX file becomes [default: its name].")
    ] = "",
    as_json: Json = False,
) -> None:
    """Plan, try, judge, and register the fastest file that keeps every limit."""
    budget = _budget(
        mb=mb, smaller=smaller, ms=ms, faster=faster, memory_mb=memory_mb, loss=max_loss
    )
    _carry_out(
        model,
        data,
        device,
        budget,
        part_pattern,
        minutes=minutes,
        register=register,
        name=name,
        as_json=as_json,
    )


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
) -> None:
    """Show what a finished run tried, lost and took."""
    from connectors.compress.job import OUTCOME, PAGE, PLAN

    try:
        planned, done = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in (PLAN, OUTCOME)
        )
    except (OSError, ValueError) as error:
        raise typer.BadParameter(
            f"{folder} holds no finished run of penstock compress: {error}"
        ) from error
    console = open_console()
    show_outcome(console, {"plan": planned, "outcome": done, "page": str(folder / PAGE)})


def show_plan(console: Console, made: Record) -> None:
    """Print a plan."""
    whole = made["whole"]
    lines = [
        f"{made['subject']} for {made['device']['name']}: {made['budget_words']}",
        f"as trained   {whole['mb']:.2f} MB, {whole['ms']:.2f} ms, {whole['memory_mb']:.0f} MB",
    ]
    chosen = [one["name"] for one in made["chosen"]]
    for one in made["sketches"]:
        place = f"{chosen.index(one['name']) + 1}." if one["name"] in chosen else "  "
        over = "" if one["keeps"] else f"   over {', '.join(one['over'])}"
        lines.append(
            f"{place:>3} {one['name']:<24} {one['mb']:6.2f} MB {one['smaller']:5.2f}x "
            f"{one['ms']:7.2f} ms {one['faster']:5.2f}x{over}"
        )
    lines += [f"    {name}: {why}" for name, why in made["ruled_out"].items()]
    console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)


def show_outcome(console: Console, record: Record) -> None:
    """Print what came of a run."""
    from flows.cli.paths import nearby

    done = record["outcome"]
    lines = [f"{record['plan']['subject']} for {record['plan']['device']['name']}"]
    lines += [_trial_line(one) for one in done["trials"]]
    paths = [name for name in ("model", "bundle", "page") if isinstance(record.get(name), str)]
    lines += [f"{name:<11} {nearby(record[name])}" for name in paths]
    if found := record.get("registered"):
        lines.append(f"registered  {found['name']} {found['version']}")
    console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)


def _trial_line(one: Record) -> str:
    # From 0, so that a loss of nothing has no minus sign.
    change, low, high = (0 - one[name] for name in ("loss", "loss_high", "loss_low"))
    return (
        f"{'->' if one['taken'] else '  '} {one['name']:<24} {one['smaller']:5.2f}x smaller, "
        f"{one['faster']:5.2f}x faster, {one['figure']} {change:+.4f} [{low:+.4f}, {high:+.4f}], "
        f"{one['flips']} of {one['items']} decided otherwise, {one['beyond']} beyond the promise"
    )


def _budget(**values: float | None) -> Record:
    return {name: value for name, value in values.items() if value is not None}


def _options(part_pattern: str) -> Record:
    return {"part_pattern": part_pattern} if part_pattern else {}


def _carry_out(
    model: str,
    data: Path,
    device: str,
    budget: Record,
    part_pattern: str,
    *,
    minutes: float = 15.0,
    register: bool = True,
    name: str = "",
    as_json: bool = False,
) -> None:
    from connectors.compress.job import budget_of
    from tasks.compress.device import device_named

    device_named(device)
    budget_of(budget)
    console = open_console()
    from flows.cli.progress import shown

    with shown(f"compressing for {device}", console):
        from flows.compress_model import compress_model

        shield_flow()
        record = compress_model(
            model if model.startswith("registry:") else str(Path(model).resolve()),
            str(data.resolve()),
            device,
            budget,
            _options(part_pattern),
            minutes=minutes,
            publish=register,
            name=name,
        )
    show_outcome(console, record)
    if as_json:
        typer.echo(json.dumps(record))
