"""``penstock version``: what is installed, for bug reports."""

from __future__ import annotations

import platform
from importlib import metadata

import typer

STACK = (
    *("prefect", "mlflow", "torch", "torchvision", "torch-geometric"),
    *("apache-flink", "shap", "tenseal"),
)

app = typer.Typer(add_completion=False)


@app.command()
def version() -> None:
    """Show versions of Penstock and its stack."""
    typer.echo(f"penstock {metadata.version('penstock')} (Python {platform.python_version()})")
    for name in STACK:
        try:
            typer.echo(f"  {name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            typer.echo(f"  {name} missing")
