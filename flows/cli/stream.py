"""``penstock stream``: start, watch, upgrade and stop the fraud stream; replay files without it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tasks.fraud.dataset import DatasetConfig

app = typer.Typer(help="Run the fraud stream.", add_completion=False, no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name: lower-case letters, digits, dashes.")]
Model = Annotated[
    str, typer.Option(help="Bundle folder, or registry:DATASET for the serving model.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command()
def start(
    name: Name,
    *,
    model: Model,
    kafka: Annotated[str, typer.Option(help="Brokers, host:port; our own by default.")] = "",
    preset: Annotated[str, typer.Option(help="latency or throughput.")] = "latency",
    parallelism: Annotated[int, typer.Option(help="Parallel instances of every operator.")] = 1,
    anew: Annotated[
        bool, typer.Option("--anew", help="Begin with empty state, not from the last savepoint.")
    ] = False,
    api: Annotated[
        bool, typer.Option("--api/--no-api", help="Start the API and the writer of its store, too.")
    ] = True,
    store: Annotated[str, typer.Option(help="Online store: lmdb, redis, or an address.")] = "lmdb",
) -> None:
    """Submit the stream to the running Flink cluster; ready once it completed a checkpoint."""
    from connectors.flink import operate
    from connectors.flink.serving import require_own_store, serve
    from connectors.flink.start import described
    from infra.settings import get_settings

    settings = get_settings()
    spec = described(
        settings,
        name,
        model,
        kafka=kafka,
        preset=preset,  # type: ignore[arg-type]  # checked by the spec
        parallelism=parallelism,
        anew=anew,
    )
    if api:
        require_own_store(settings, spec, store)
    with waiting(f"starting stream {name} (20 to 60 s)"):
        seen = operate.start(settings, spec)
        served = serve(settings, spec, model, store=store) if api else []
    typer.echo(f"stream {name} runs as job {seen.job}, model {seen.model}")
    for each in served:
        typer.echo(f"{each.title}: {each.url}")
    typer.echo(
        f"transactions go to topic {spec.prefix}.transactions, labels to {spec.prefix}.labels"
    )


@app.command()
def status(name: Name, *, as_json: Json = False) -> None:
    """Show how the stream is doing; exit code 1 where it is not healthy."""
    from connectors.flink import operate
    from infra.settings import get_settings

    seen = operate.status(get_settings(), name)
    if as_json:
        typer.echo(json.dumps(seen.to_dict()))
    else:
        show(seen.to_dict())
    if not seen.healthy:
        raise typer.Exit(1)


@app.command()
def upgrade(
    name: Name,
    *,
    preset: Annotated[str, typer.Option(help="latency or throughput.")] = "",
    parallelism: Annotated[int, typer.Option(help="Parallel instances; 0: as before.")] = 0,
) -> None:
    """Replace the job by one of the present code: savepoint, new job, verify, or back."""
    from connectors.flink import operate
    from infra.settings import get_settings

    changes: dict[str, Any] = {}
    if preset:
        changes["preset"] = preset
    if parallelism:
        changes["parallelism"] = parallelism
    with waiting(f"upgrading stream {name} (30 to 90 s)"):
        seen = operate.upgrade(get_settings(), name, changes)
    typer.echo(f"stream {name} runs as job {seen.job}")


@app.command()
def announce(
    name: Name,
    *,
    model: Annotated[str, typer.Option(help="Bundle folder or registry:DATASET.")] = "",
    rules: Annotated[
        Path | None, typer.Option(help="JSON file: version, review_at, block_at, block.")
    ] = None,
) -> None:
    """Tell the running stream of a new model or new rules, without a restart."""
    from connectors.flink.announce import announce as tell
    from connectors.flink.start import model_folder
    from infra.errors import ConfigurationError
    from infra.settings import get_settings

    if not model and rules is None:
        raise ConfigurationError("nothing to announce", "Give --model, --rules or both")
    settings = get_settings()
    given = json.loads(rules.read_text(encoding="utf-8")) if rules else None
    folder = model_folder(settings, model) if model else None
    message = tell(settings, name, model=folder, rules=given)
    typer.echo(f"announced: model {message['model']}, rules {message['rules'].get('version')}")


@app.command()
def stop(
    name: Name,
    *,
    forget: Annotated[
        bool, typer.Option("--forget", help="Without a savepoint: the next start begins anew.")
    ] = False,
) -> None:
    """Stop the stream with a savepoint; the next start goes on from it."""
    from connectors.flink import operate
    from infra.settings import get_settings

    with waiting(f"stopping stream {name}"):
        savepoint = operate.stop(get_settings(), name, forget=forget)
    typer.echo(f"stream {name} stopped" + (f"; savepoint {savepoint}" if savepoint else ""))


@app.command()
def replay(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder with transactions/ and, if any, labels/: JSON lines; or a history, "
            ".parquet or .csv."
        ),
    ],
    *,
    model: Model,
    out: Annotated[
        Path | None, typer.Option(help="Where a history's results go [default: beside it].")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on watching for new files, until Ctrl-C.")
    ] = False,
    parallelism: Annotated[int, typer.Option(help="Parallel instances of every operator.")] = 1,
) -> None:
    """Run the stream over files or a history, without broker or cluster, beside the input.

    In the order of event time: the same files give the same scores, byte for byte.
    """
    from connectors.api.rules import default_rules
    from connectors.flink.models import place_model
    from connectors.flink.operate import models_folder
    from connectors.flink.spec import StreamSpec
    from connectors.flink.start import model_folder
    from connectors.flink.submit import submit
    from infra.errors import ConfigurationError
    from infra.settings import get_settings

    settings = get_settings()
    placed = place_model(model_folder(settings, model), models_folder(settings))
    folder = source
    if not source.exists():
        raise ConfigurationError(f"{source} is not there", "Name a folder, .parquet or .csv file")
    if source.is_file():
        folder = out or source.with_name(f"{source.stem}-replay")
        lay_out(source, placed.config, folder)
    elif not (folder / "transactions").is_dir():
        raise ConfigurationError(
            f"{folder} holds no folder transactions",
            "Put files of JSON lines there, or name a .parquet or .csv file",
        )
    spec = StreamSpec(
        name="replay",
        models=str(models_folder(settings)),
        model=placed.folder.name,
        rules=default_rules(placed.thresholds, placed.digest).to_dict(),
        folder=str(folder.resolve()),
        target="local",
        mode="latency" if follow else "event-time",
        preset="latency" if follow else "throughput",
        bounded=not follow,
        batch=not follow,
        labels=(folder / "labels").is_dir(),
        parallelism=parallelism,
        epoch=1,
    )
    submit(settings, spec)
    typer.echo(f"scores lie in {folder / 'scores'}")


@app.command()
def seed(
    source: Annotated[Path, typer.Argument(help="Past transactions: .parquet or .csv.")],
    *,
    model: Model,
    store: Annotated[
        str, typer.Option(help="Address of the online store [default: that of an API by itself].")
    ] = "",
) -> None:
    """Give an API without a stream the state of a history, so that its entities are not new."""
    import time

    from connectors.flink.start import model_folder
    from connectors.online_store.record import epoch_of
    from connectors.online_store.seed import seed_store
    from connectors.online_store.store import open_store
    from connectors.transactions import load_transactions
    from infra.settings import get_settings
    from tasks.fraud.bundle import Bundle

    settings = get_settings()
    config = Bundle.load(model_folder(settings, model)).config
    place = store or f"lmdb://{(settings.home / 'api' / 'store').resolve()}"
    with waiting(f"seeding from {source.name}"):
        loaded = load_transactions(
            source, config, settings.home / "quarantine", labels_required=False
        )
        tx = loaded.transactions
        with open_store(place) as opened:
            done = seed_store(opened, tx, config, epoch=epoch_of(round(time.time() * 1_000)))
    entities = ", ".join(f"{count:,} of kind {kind}" for kind, count in done.entities.items())
    refused = loaded.report.rows_quarantined
    typer.echo(f"{len(tx):,} transactions ({refused:,} set aside), entities: {entities}")


@app.command()
def send(
    name: Name,
    source: Annotated[Path, typer.Argument(help="Transactions, labelled or not: .parquet, .csv.")],
    *,
    rate: Annotated[float, typer.Option(help="Transactions a second; 0: as fast as it goes.")] = 0,
) -> None:
    """Send a file's transactions to the stream in order of time, each label when it is known."""
    from connectors.flink.history import read_history, send_history
    from connectors.flink.operate import spec_path
    from connectors.flink.spec import StreamSpec
    from infra.errors import ConfigurationError
    from infra.settings import get_settings
    from tasks.fraud.bundle import Bundle

    spec = StreamSpec.load(spec_path(get_settings(), name))
    if not spec.kafka:
        raise ConfigurationError(f"stream {name} reads files", f"Put them into {spec.folder}")
    history = read_history(source, Bundle.load(Path(spec.model_folder)).config)
    total = history.transactions.num_rows + history.labels.num_rows
    with counted(f"sending {source.name}", total) as tell:
        sent = send_history(history, spec.kafka, spec.prefix, rate, tell)
    typer.echo(f"{sent:,} messages sent")


def lay_out(source: Path, config: DatasetConfig, folder: Path) -> None:
    """Write a history as the messages of a replay; an earlier replay there is refused."""
    from connectors.flink.history import read_history, write_history
    from infra.errors import ConfigurationError

    if folder.exists():
        raise ConfigurationError(
            f"{folder} is there already", "Remove it, or name another folder with --out"
        )
    history = read_history(source, config)
    total = history.transactions.num_rows + history.labels.num_rows
    draft = folder.with_name(f".{folder.name}-draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with counted(f"reading {source.name}", total) as tell:
            write_history(history, draft, tell)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over messages; yields what takes their number so far."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def show(record: dict[str, Any]) -> None:
    """Print a status as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    watchdog = record.pop("watchdog") or {}
    for key, value in record.items():
        table.add_row(key.replace("_", " "), "" if value is None else str(value))
    if watchdog:
        table.add_row("watchdog", str(watchdog.get("state", "")))
    Console().print(table)


def waiting(what: str) -> Any:
    """A line on stderr that says what is waited for."""
    from rich.console import Console

    return Console(stderr=True).status(what)
