"""``penstock clean profile``: what a file holds, and whether it still looks like another one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from connectors.cleaning.profile import Profiled

SHOWN = 20
"""Drifted aspects in the terminal; the page has more."""


def profile(
    file: Annotated[
        Path,
        typer.Argument(help="CSV, TSV, JSON lines or Parquet, also packed.", show_default=False),
    ],
    *,
    reference: Annotated[
        Path | None, typer.Option(help="A file that this one should look like.")
    ] = None,
    segment: Annotated[
        str, typer.Option(help="Column whose values are compared with the reference one by one.")
    ] = "",
    contract: Annotated[
        Path | None, typer.Option(help="Contract [default: kinds are inferred].")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder [default: FILE.profile].")] = None,
    alpha: Annotated[
        float, typer.Option(help="Share of tables without drift that alarm at most.")
    ] = 0.05,
) -> None:
    """Show what a file holds: kinds, values, gaps, keys, dependencies, drift."""
    from connectors.cleaning.profile import ProfileOptions, profile_file
    from tasks.cleaning.contract.toml import read_contract
    from tasks.cleaning.profile.drift.columns import DriftConfig

    if segment and reference is None:
        raise typer.BadParameter("--segment needs --reference")
    done = profile_file(
        file,
        out or Path(f"{file}.profile"),
        reference=reference,
        contract=None if contract is None else read_contract(contract),
        how=ProfileOptions(segment=segment, drift=DriftConfig(alpha=alpha)),
    )
    _tell(done, reference)


def _tell(done: Profiled, reference: Path | None) -> None:
    shown, sample = done.profile, done.sample
    kinds = Counter(one.kind for one in shown.columns)
    typer.echo(
        f"{sample.rows_in:,} rows, {len(shown.columns):,} columns "
        f"({', '.join(f'{number:,} {kind}' for kind, number in kinds.most_common())})"
    )
    if sample.note:
        typer.echo(f"looked at {sample.note}")
    if sample.quarantined:
        typer.echo(f"rows that could not be read: {sum(sample.quarantined.values()):,}")
    cells = sum(one.rows for one in shown.columns) or 1
    typer.echo(
        f"{sum(one.missing for one in shown.columns) / cells:.1%} of the cells missing, "
        f"rows repeated {shown.copies:,}, candidate keys {len(shown.keys):,}, "
        f"dependencies {len(shown.dependencies):,}, doubtful numbers {shown.outliers.height:,}"
    )
    if done.drift is not None and reference is not None:
        typer.echo(f"drift against {reference.name}: {done.drift.verdict}")
        drifted = [one for one in done.drift.findings.to_dicts() if one["verdict"] == "drifted"]
        for one in drifted[:SHOWN]:
            typer.echo(f"  {one['column']}  {one['aspect']}: {_change(one)}")
        if len(drifted) > SHOWN:
            typer.echo(f"  {len(drifted) - SHOWN:,} more on the page")
    if done.segments is not None:
        parted = done.segments.filter(done.segments["verdict"] == "drifted")
        names = parted["segment"].unique(maintain_order=True).to_list()
        typer.echo(f"drifted segments: {', '.join(map(str, names[:SHOWN])) or 'none'}")
    typer.echo(f"page    {done.page}")
    typer.echo(f"record  {done.record}")


def _change(one: dict[str, str | float | None]) -> str:
    """Say what changed, in one line."""
    sides = [str(one[side]) for side in ("reference", "current") if one[side]]
    return " -> ".join(sides)
