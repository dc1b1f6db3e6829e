"""``penstock defects inspect``: images of a folder or a camera through the edge model."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import printable

if TYPE_CHECKING:
    from connectors.defects.inspect.monitor import WatchReport
    from connectors.defects.inspect.report import LineReport
    from connectors.defects.inspect.run import InspectionRun, Told

TOKEN = "PENSTOCK_CENTRAL_TOKEN"  # noqa: S105 - the name of a variable
MIB = 2**20
SHOWN = 5


def inspect(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of images, or where a camera puts them.", show_default=False),
    ],
    *,
    model: Annotated[
        Path,
        typer.Option(
            help="Edge file (ONNX), or a bundle's folder: it tells types and likenesses.",
            show_default=False,
        ),
    ],
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run [default: FOLDER.inspected].")
    ] = None,
    sink: Annotated[
        list[str] | None,
        typer.Option(
            help="Where results go beside OUT/results.jsonl: jsonl:FILE, csv:FILE, folder:FOLDER, "
            "https://HOST/PATH, kafka://HOST:PORT/TOPIC; may be repeated."
        ),
    ] = None,
    central: Annotated[
        str, typer.Option(help=f"Address of `penstock defects serve`; token in {TOKEN}.")
    ] = "",
    labels: Annotated[
        Path | None, typer.Option(help="CSV image,label (ok, ng): errors in the report.")
    ] = None,
    wait: Annotated[
        float, typer.Option(help="Seconds that decisions and sinks are waited for at the end.")
    ] = 30.0,
    settle: Annotated[
        float, typer.Option(help="Seconds without a change after which a file is whole.")
    ] = 0.3,
    queue_images: Annotated[int, typer.Option(help="Most images in the review queue.")] = 10_000,
    queue_mib: Annotated[int, typer.Option(help="Most MiB in the review queue.")] = 2_048,
    keep_days: Annotated[
        float,
        typer.Option(min=0, help="Days that images without a file are remembered; 0: always."),
    ] = 30.0,
    learn_parts: Annotated[
        int,
        typer.Option(help="Parts that the line is learnt from before it is watched; 0: no watch."),
    ] = 100,
    part_pattern: Annotated[
        str,
        typer.Option(help="Regular expression that finds the part in an image's path, to watch."),
    ] = "",
    relearn: Annotated[
        bool, typer.Option("--relearn", help="Learn the line anew, after a change meant to stay.")
    ] = False,
    decoder_mib: Annotated[
        int, typer.Option(help="Memory of the decoder; 768 MiB do for 30 million pixels in colour.")
    ] = 768,
) -> None:
    """Judge every image once: OK, NG or REVIEW; doubtful ones go to the central model."""
    from connectors.defects.inspect.camera import CameraTiming
    from connectors.defects.inspect.inspector import open_inspector
    from connectors.defects.inspect.monitor import MonitorConfig
    from connectors.defects.inspect.report import read_labels
    from connectors.defects.inspect.review_queue import QueueLimits
    from connectors.defects.inspect.run import QUARANTINE, RESULTS, RunConfig, inspect_folder

    known = None if labels is None else read_labels(labels)
    config = RunConfig(
        sinks=tuple(sink or ()),
        central=central,
        token=os.environ.get(TOKEN, ""),
        watch=watch,
        wait=wait,
        queue=QueueLimits(queue_images, queue_mib * MIB),
        timing=CameraTiming(settle=settle, patience=max(5.0, settle)),
        keep_days=keep_days,
        decoder_mib=decoder_mib,
        monitor=MonitorConfig(learn_parts, part_pattern, relearn),
    )
    place = out or folder.resolve().with_name(f"{folder.resolve().name}.inspected")
    inspector = open_inspector(model)
    with inspection_progress(folder, watch=watch) as told:
        run = inspect_folder(folder, place, inspector, config, labels=known, told=told)
    show_run(run)
    if run.watch is not None:
        show_watch(run.watch)
    typer.echo(f"results     {place / RESULTS}")
    if run.report.quarantined:
        typer.echo(f"quarantine  {place / QUARANTINE}")
    _say_next(run, central=central)


@contextmanager
def inspection_progress(folder: Path, *, watch: bool) -> Iterator[Told]:
    """Yield what is to be called with counts and files found; shown on terminals only."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
    began = time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as it:
        task = it.add_task(folder.name, total=None)

        def told(counts: Counter[str], found: int) -> None:
            done = sum(counts[name] for name in ("OK", "NG", "REVIEW", "QUARANTINED"))
            rate = done / max(time.perf_counter() - began, 1e-9)
            shares = "  ".join(
                f"{name} {counts[name] / max(done, 1):.1%}" for name in ("OK", "NG", "REVIEW")
            )
            it.update(
                task,
                completed=done + counts["again"],
                total=None if watch else found,
                description=f"{folder.name}  {done:,} images  {rate:,.1f} images/s  {shares}",
            )

        yield told


def show_run(run: InspectionRun) -> None:
    """Say what came of a run."""
    counts = run.counts
    total = sum(counts[name] for name in ("OK", "NG", "REVIEW", "QUARANTINED"))
    typer.echo(
        f"{total:,} images in, {counts['OK']:,} OK, {counts['NG']:,} NG, "
        f"{counts['REVIEW']:,} REVIEW, {counts['QUARANTINED']:,} quarantined"
    )
    report = run.report
    if report.images > total:
        typer.echo(f"{report.images:,} with the runs before")
    for rule, number in sorted(report.quarantined.items()):
        hint = "; raise --decoder-mib for the next ones" if rule == "out-of-memory" else ""
        typer.echo(f"  {number:,} quarantined by {rule}{hint}")
    final = {name: report.final.get(name, 0) for name in ("OK", "NG", "REVIEW")}
    typer.echo(
        f"left to review {report.sent_share:.1%}; final: "
        + ", ".join(f"{number:,} {name}" for name, number in final.items())
    )
    _say_errors(report)


def _say_errors(report: LineReport) -> None:
    if report.cascade is not None and not report.cascade.ng + report.cascade.ok:
        typer.echo(
            "no label names an inspected image: write paths within the folder, as results do"
        )
        return
    for title, errors in (("edge alone", report.edge_alone), ("final", report.cascade)):
        if errors is not None:
            typer.echo(
                f"{title}: missed {errors.missed:,} of {errors.ng:,} defective, "
                f"rejected {errors.rejected:,} of {errors.ok:,} good, "
                f"{errors.undecided:,} undecided"
            )


def show_watch(watch: WatchReport) -> None:
    """Say what has changed on the line."""
    if watch.missing:
        typer.echo(f"the line is not watched yet: {watch.missing:,} parts more to learn it from")
    elif not watch.new:
        before = f" ({watch.told:,} before, see alarms.jsonl)" if watch.told else ""
        typer.echo(f"no new alarm of the line in {watch.seen:,} parts since it was learnt{before}")
    for alarm in watch.new[-SHOWN:]:
        typer.echo(printable(f"the line has changed at {alarm['image']}: {alarm['message']}"))
    if len(watch.new) > SHOWN:
        typer.echo(f"  and {len(watch.new) - SHOWN:,} alarms before, see alarms.jsonl")


def _say_next(run: InspectionRun, *, central: str) -> None:
    """Say what is left to do, and how."""
    if run.queue.open:
        why = f" ({run.central_trouble})" if run.central_trouble else ""
        typer.echo(
            f"{run.queue.open:,} images wait for the central model{why}; "
            "run the same command again to go on"
        )
        if run.queue.unqueued:
            typer.echo(
                f"  {run.queue.unqueued:,} of them found no room in the queue and are read from "
                "the folder later: keep them there, or raise --queue-images, --queue-mib"
            )
    for name, reason in list(run.review_refused.items())[:SHOWN]:
        typer.echo(printable(f"the central model will not decide {name}: {reason}"))
    for name, (left, trouble) in run.undelivered.items():
        typer.echo(
            f"{left:,} results wait for {name}{f' ({trouble})' if trouble else ''}; "
            "run the same command again to deliver them"
        )
    for name, number in run.refused.items():
        typer.echo(f"{number:,} results were refused by {name}; they stand in the results")
    if run.unfinished:
        typer.echo(
            f"{len(run.unfinished):,} files were still being written and are left for the next "
            f"run, {printable(run.unfinished[0])} among them"
        )
    if run.report.final.get("REVIEW", 0) > run.queue.open and not central:
        typer.echo(
            "REVIEW is for a person, or for a larger model: penstock defects serve, then "
            "--central ADDRESS"
        )
