"""``penstock defects serve``: the central model for single images and for the edges' reviews."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    *,
    model: Annotated[
        list[Path],
        typer.Option(
            help="Edge file (ONNX), or a bundle's folder: it names types. Several are averaged.",
            show_default=False,
        ),
    ],
    good: Annotated[
        Path | None,
        typer.Option(help="Folder of good images: brings several models to one scale."),
    ] = None,
    positions: Annotated[int, typer.Option(help="Positions each image is judged in, 1 to 8.")] = 4,
    exposure: Annotated[
        list[float] | None, typer.Option(help="Factors of its gray values [default: 1].")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes any free one.")] = 8010,
    home: Annotated[
        Path | None, typer.Option(help="Folder of its state [default: PENSTOCK_HOME/inspection].")
    ] = None,
    max_image_mib: Annotated[int, typer.Option(help="Largest image.")] = 64,
    keep_days: Annotated[
        float, typer.Option(min=0, help="Days that decisions are kept; 0: always.")
    ] = 30.0,
    tls_certificate: Annotated[Path | None, typer.Option(help="Certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
) -> None:
    """Serve /v1/inspect and /v1/review; tokens as NAME:score:SECRET in PENSTOCK_API_TOKENS."""
    from connectors.defects.inspect.central.load import load_central
    from connectors.defects.inspect.central.server import serve as run_server
    from connectors.defects.inspect.central.service import CentralConfig
    from infra.settings import get_settings

    if (tls_certificate is None) != (tls_key is None):
        raise typer.BadParameter("--tls-certificate and --tls-key belong together")
    inspector = load_central(model, good, positions=positions, exposures=tuple(exposure or (1.0,)))
    place = home or get_settings().home / "inspection"
    run_server(
        inspector,
        place,
        host=host,
        port=port,
        config=CentralConfig(max_image_bytes=max_image_mib * 2**20, keep_days=keep_days),
        tls=(tls_certificate, tls_key) if tls_certificate and tls_key else None,
        told=_say,
    )


def _say(address: str) -> None:
    typer.echo(f"serving {address}/v1/inspect, {address}/v1/review")
    typer.echo(f"next: penstock defects inspect FOLDER --model edge.onnx --central {address}")
