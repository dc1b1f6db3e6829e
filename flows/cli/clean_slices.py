"""``penstock clean slices``: what a run found and did, by group."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tasks.cleaning.slices.table import SliceTable


def slices(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    *,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Column that makes groups; repeat it [default: look for the worst]."),
    ] = None,
    target: Annotated[str, typer.Option(help="Column of labels or outcomes.")] = "",
    pairs: Annotated[bool, typer.Option("--pairs", help="Groups of two columns, too.")] = False,
    alpha: Annotated[
        float, typer.Option(help="Share of false ones among slices said to differ.")
    ] = 0.05,
    out: Annotated[
        Path | None, typer.Option(help="Folder for slices.html and slices.json.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Slices shown for each figure.", min=1)] = 8,
) -> None:
    """Say what a run found and did in each group: changed, set aside, missing, wrong labels."""
    from connectors.cleaning.slices import slices_of_run, write_slices
    from tasks.cleaning.slices.table import SliceConfig

    config = SliceConfig(alpha=alpha)
    tables = slices_of_run(folder, by or (), target=target, pairs=pairs, config=config)
    for heading, table in tables.items():
        typer.echo(f"{heading} ({table.tests:,} slices tested)")
        _show(table, limit)
    if out is not None:
        write_slices(tables, folder.name, out)
        typer.echo(f"wrote {out / 'slices.html'}")


def _show(table: SliceTable, limit: int) -> None:
    from tasks.cleaning.slices.render import ranked, short

    if table.frame.is_empty():
        typer.echo("  no slice is shown to be worse")
    for name, rows in ranked(table):
        typer.echo(f"  {name}")
        for row in rows[:limit]:
            typer.echo(
                f"    {row['verdict']:<9} {row['slice']}: {short(row['value'])} "
                f"[{short(row['low'])}, {short(row['high'])}] of {row['rows']:,} rows, rest "
                f"{short(row['rest'])}; apart by {short(row['difference_low'])} to "
                f"{short(row['difference_high'])}"
            )
        if len(rows) > limit:
            typer.echo(f"    {len(rows) - limit:,} more; see --limit, --out")
