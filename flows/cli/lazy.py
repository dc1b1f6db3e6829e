"""A command group that imports a subcommand only when it is used."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import click
import typer
from typer.core import TyperGroup

from infra.errors import PenstockError


@dataclass(frozen=True)
class LazyCommand:
    """Where a subcommand lives.

    Args:
        module: module to import on use.
        help: the line shown by ``penstock --help`` without importing anything.
        attribute: name of the ``typer.Typer`` in the module.
    """

    module: str
    help: str
    attribute: str = "app"


class LazyGroup(TyperGroup):
    """A group whose commands stand in a table; subclasses set ``table``."""

    table: dict[str, LazyCommand] = {}  # noqa: RUF012 - constant of the subclass

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """A stand-in that knows its help line; the real one comes on use."""
        entry = self.table.get(cmd_name)
        return click.Command(cmd_name, help=entry.help) if entry else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the command that was asked for."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name in self.table:
            command = load(name, self.table[name])
        return name, command, rest


def load(name: str, entry: LazyCommand) -> click.Command:
    """Import the module of a command.

    Raises:
        PenstockError: this checkout does not have it.
    """
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if error.name != entry.module:
            raise
        raise PenstockError(
            f"penstock {name}: {entry.module} is not in this checkout", "Update the checkout"
        ) from error
    app: typer.Typer = getattr(module, entry.attribute)
    command = typer.main.get_command(app)
    command.name = name
    return command
