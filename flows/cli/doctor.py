"""``penstock doctor``: what stands in the way on this machine, and how to mend it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from infra.doctor import Finding, diagnose
from infra.settings import get_settings

app = typer.Typer(add_completion=False)

MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red]problem[/]"}


@app.command()
def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
) -> None:
    """Check this machine; exit code 1 if something needed is missing."""
    findings = diagnose(get_settings())
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        show(findings)
    raise typer.Exit(1 if any(finding.level == "problem" for finding in findings) else 0)


def show(findings: list[Finding]) -> None:
    """Print the findings as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("check", "", "found", "fix"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        row = (MARKS[finding.level], escape(finding.found), escape(finding.fix))
        table.add_row(finding.check, *row)
    Console().print(table)
