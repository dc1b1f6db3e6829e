"""``penstock models``: serve ONNX models over HTTP, and ask a server what it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Serve models over HTTP.")


@app.command()
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            help="[NAME=]PLACE: a folder NAME/VERSION/model.onnx, an ONNX file, a bundle, "
            "models:/NAME@ALIAS or models:/NAME/VERSION.",
            show_default=False,
        ),
    ],
    *,
    host: Annotated[str | None, typer.Option(help="Address [default: 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes any [default: 8020].")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes, each with every model [default: 1].")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Cores of one run [default: 1].")] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Runs at a time, all models [default: 1].")
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(help="Rows of a batch; 1: no batching [default: 32].")
    ] = None,
    max_wait_ms: Annotated[
        float | None, typer.Option(help="Wait for others while idle [default: 1].")
    ] = None,
    max_queue: Annotated[
        int | None, typer.Option(help="Requests that wait, per version [default: 256].")
    ] = None,
    reload_seconds: Annotated[
        float | None, typer.Option(help="How often models are looked for [default: 30].")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
) -> None:
    """Serve models by the Open Inference Protocol; tokens in PENSTOCK_API_TOKENS.

    Every option, and more, is a variable PENSTOCK_MODELS_NAME, too.
    """
    from connectors.model_server.server import serve as run_server
    from connectors.model_server.settings import model_server_settings

    given = {
        "serve": ",".join(models),
        "host": host,
        "port": port,
        "workers": workers,
        "threads": threads,
        "concurrency": concurrency,
        "max_rows": max_rows,
        "max_wait_ms": max_wait_ms,
        "max_queue": max_queue,
        "reload_seconds": reload_seconds,
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
    }
    settings = model_server_settings(**{k: v for k, v in given.items() if v is not None})
    run_server(settings, lambda address: typer.echo(f"serving {address}/v2/models"))


@app.command(name="list")
def listed(
    url: Annotated[str, typer.Argument(help="Address of a server.")] = "http://127.0.0.1:8020",
    *,
    token: Annotated[
        str, typer.Option(envvar="PENSTOCK_TOKEN", help="Token to ask with.", show_default=False)
    ] = "",
) -> None:
    """Show the models of a running server: versions, inputs, outputs."""
    from connectors.model_server.client import Client

    with Client(url, token) as client:
        for name, versions in client.models().items():
            for version in versions:
                said = client.metadata(name, version)
                ends = [
                    ", ".join(f"{one['name']} {one['datatype']}{one['shape']}" for one in said[key])
                    for key in ("inputs", "outputs")
                ]
                typer.echo(f"{name} version {version}: {ends[0]} -> {ends[1]}")
