"""``penstock defects``: find defects on a line; every command is a module of its own."""

from __future__ import annotations

import typer

from flows.cli.defects_golden import golden
from flows.cli.defects_import import check
from flows.cli.defects_inspect import inspect
from flows.cli.defects_label import label
from flows.cli.defects_pretrain import pretrain
from flows.cli.defects_serve import serve
from flows.cli.defects_train import train

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Find defects on a line.")
for command in (check, label, train, golden, inspect, serve, pretrain):
    app.command()(command)
