"""``penstock demo-live``: the demo's payments through Kafka, Flink and the API, to be watched."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import open_console

if TYPE_CHECKING:
    from rich.console import Console

    from connectors.flink.spec import StreamSpec
    from flows.live_traffic import LiveBank
    from infra.settings import Settings

app = typer.Typer(help="Live payments through Kafka, Flink and the API.", add_completion=False)

STREAM = "demo-live"
SERVICES = ("kafka", "flink-taskmanager", "watchdog")
TOKENS = ("PENSTOCK_API_TOKENS", "PENSTOCK_API_TOKENS_FILE")
CAUGHT_UP_SECONDS = 120.0
TOLD_EVERY = 10.0


@app.command()
def demo_live(
    *,
    seconds: Annotated[float, typer.Option(help="How long payments are sent.", min=1)] = 120,
    rate: Annotated[float, typer.Option(help="Payments a second.", min=1, max=500)] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the demo's bank.")] = 0,
) -> None:
    """Serve the demo's model: payments ask the API, the stream keeps its state; watch it in /ui."""
    from connectors.flink.start import model_folder
    from flows.cli.paths import nearby, own_command
    from flows.live_traffic import divided
    from infra.errors import ConfigurationError
    from infra.settings import get_settings
    from tasks.fraud.bundle import Bundle

    main, console = get_settings(), open_console()
    data = main.home / "demo" / f"bank-{seed}.parquet"
    if not data.is_file():
        raise ConfigurationError(f"{data} is not there", "Run: make demo")
    given = [name for name in TOKENS if os.environ.get(name)]
    if given:
        raise ConfigurationError(f"{given[0]} is set", "Unset it: the demo makes its own token")
    # A home of its own: nothing of a stream that is in use here is touched.
    settings = main.model_copy(update={"home": main.home / "demo-live"})
    settings.home.mkdir(parents=True, exist_ok=True)
    bundle = Bundle.load(model_folder(main, "registry:demo"))
    bank = divided(data, bundle.config, round(seconds * rate))
    console.rule("1. broker, cluster, stream")
    spec = start_stream(settings, console, bundle.folder)
    console.rule("2. the weeks before")
    send_past(settings, console, spec, bank)
    console.rule("3. live payments")
    url, secret = start_api(settings, console, spec, bundle.folder)
    console.print(
        f"watch  {url}/ui   (log in with the token in {secret})", soft_wrap=True, highlight=False
    )
    send_live(console, url, secret, bank, rate)
    penstock = f"PENSTOCK_HOME={nearby(str(settings.home))} {own_command()}"
    console.rule("it goes on running")
    console.print(
        f"state   {penstock} stream status {STREAM}\nstop    {penstock} stream stop {STREAM} && "
        f"{penstock} down",
        highlight=False,
        soft_wrap=True,
    )


def start_stream(settings: Settings, console: Console, model: Path) -> StreamSpec:
    """Start the services and a stream that knows nothing yet."""
    from connectors.flink import operate
    from connectors.flink.start import described
    from infra.services.registry import start_service, with_needs

    for name in with_needs(SERVICES):
        with console.status(f"starting {name}"):
            found = start_service(settings, name)
        console.print(f"{found.title} is at {found.url}", highlight=False)
    # Behind what an earlier demo left in the topics.
    spec = described(settings, STREAM, str(model), anew=True).with_changes(start="latest")
    with console.status("starting the stream (20 to 60 s)"):
        if operate.spec_path(settings, STREAM).is_file():
            operate.stop(settings, STREAM, forget=True)
        seen = operate.start(settings, spec)
    console.print(f"stream {STREAM} runs as job {seen.job}", highlight=False)
    return spec


def send_past(settings: Settings, console: Console, spec: StreamSpec, bank: LiveBank) -> None:
    """Send the past through the topics, and wait until the stream has read it.

    Raises:
        ServiceError: It does not catch up.
    """
    from connectors.flink import operate
    from connectors.flink.history import send_history
    from infra.errors import ServiceError

    with console.status("sending the past") as status:
        sent = send_history(
            bank.past,
            spec.kafka,
            spec.prefix,
            0,
            lambda done: status.update(f"sending the past: {done:,} messages"),
        )
        deadline = time.monotonic() + CAUGHT_UP_SECONDS
        while True:
            time.sleep(3.5)  # Flink tells the lag anew every few seconds
            lag = operate.status(settings, spec.name).lag
            if lag == 0:
                break
            behind = "does not tell yet" if lag is None else f"is {lag:,} messages behind"
            status.update(f"the stream {behind}")
            if time.monotonic() > deadline:
                raise ServiceError(f"stream {spec.name} {behind}", "Is the machine busy?")
    console.print(f"{sent:,} messages of the past are counted", highlight=False)


def start_api(
    settings: Settings, console: Console, spec: StreamSpec, model: Path
) -> tuple[str, Path]:
    """Start the writer of the store and the API; returns its address and the token's file."""
    import shutil

    from connectors.flink.serving import serve
    from infra.services.registry import end_service

    end_service(settings, "api")
    shutil.rmtree(settings.home / "api" / "answers", ignore_errors=True)  # to the same payments
    with console.status("starting the API"):
        served = serve(settings, spec, str(model))
    return served[-1].url, settings.home / "api" / "token"


def send_live(console: Console, url: str, secret: Path, bank: LiveBank, rate: float) -> None:
    """Send the payments of now, and tell every few seconds what was decided."""
    from collections import Counter
    from urllib.parse import urlsplit

    import numpy as np

    from flows.live_traffic import Answer, send

    port = urlsplit(url).port or 0
    token = secret.read_text(encoding="utf-8").strip()
    answers: dict[str, Answer] = {}
    step = max(1, round(rate * TOLD_EVERY))
    for start in range(0, len(bank.live), step):
        part = bank.live[start : start + step]
        found, per_s = send(port, token, bank.past.config, part, rate, lambda: None)
        answers |= found
        counts = Counter(answer.content["decision"] for answer in found.values())
        took = np.percentile([1e3 * answer.took for answer in found.values()], [50, 99])
        console.print(
            f"{per_s:5.0f} a second, answered in {took[0]:.1f} ms (99 %: {took[1]:.1f} ms): "
            + ", ".join(f"{number} {name}" for name, number in sorted(counts.items())),
            highlight=False,
        )
    blocked = [a for a in answers.values() if a.content["decision"] == "block"]
    for answer in blocked[:3]:
        reasons = "; ".join(r["text"] for r in answer.content.get("reasons") or [])
        score = answer.content["score"]
        console.print(f"blocked at {score:.3f}: {reasons}", highlight=False, soft_wrap=True)
