"""What commands need around flows: a terminal, a quiet Prefect whose server survives Ctrl-C."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def open_console() -> Console:
    """Prepare the environment of Prefect and MLflow before either is imported."""
    from rich.console import Console

    from infra.environment import apply_environment
    from infra.settings import get_settings

    apply_environment(get_settings())
    if "PENSTOCK_DEBUG" not in os.environ:
        os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
    return Console(stderr=False)


def open_flow_console() -> Console:
    """Do as `open_console`, for a command that runs a flow without `progress.shown`."""
    from flows.cli.progress import quieten

    console = open_console()
    quieten()
    shield_flow()
    return console


def shield_flow() -> None:
    """Keep Ctrl-C from the server that Prefect starts for a flow; its words go to the logs."""
    from flows.cli.interrupts import shield_temporary_server
    from infra.settings import get_settings

    shield_temporary_server(get_settings().logs / "prefect-temporary.log")


def printable(text: str) -> str:
    """Return a text of strangers' names without what a terminal would obey."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
