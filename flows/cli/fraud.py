"""``penstock fraud``: everything about fraud models."""

from __future__ import annotations

import typer

from flows.cli import fraud_data, fraud_model

app = typer.Typer(
    help="Describe data, train, evaluate, score and report fraud models.",
    no_args_is_help=True,
    add_completion=False,
)
fraud_data.register(app)
fraud_model.register(app)
