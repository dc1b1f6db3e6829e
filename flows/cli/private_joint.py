"""``penstock private joint``: two houses and a dealer score together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from connectors.private.joint.party import PartyResult
    from tasks.privacy.shares.plan import Party

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Score with another house; neither shows rows or weights.",
)

PartyNumber = Annotated[int, typer.Option("--party", min=0, max=1, help="0 listens, 1 calls.")]
Own = Annotated[Path, typer.Option(help="Own certificate (PEM).")]
Key = Annotated[Path, typer.Option(help="Its key (PEM, mode 600).")]
Peer = Annotated[Path, typer.Option(help="The other party's certificate (PEM).")]
Port = Annotated[int, typer.Option(help="Port to meet at.")]
Host = Annotated[str, typer.Option(help="Address to listen at or to call.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait for the other party.")]


@app.command("compile")
def compile_model(
    bundle: Annotated[Path, typer.Argument(help="Folder of a fraud bundle.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for plan and parts.", show_default=False)],
    *,
    first: Annotated[str, typer.Option(help="Columns of party 0, comma between.")],
    holder: Annotated[
        str, typer.Option(help="Who knows the weights: party-0, party-1 or shared.")
    ] = "party-0",
    reveal: Annotated[str, typer.Option(help="score or decision.")] = "score",
    receivers: Annotated[str, typer.Option(help="party-0, party-1 or both.")] = "party-0",
    threshold: Annotated[float, typer.Option(help="Log-odds from which a decision is yes.")] = 0.0,
    tolerance: Annotated[
        float, typer.Option(help="Error of a log-odds; the coarser, the less a score tells.")
    ] = 1e-5,
) -> None:
    """Compile a bundle's logistic head for two parties, with a proved error."""
    from connectors.private.fraud_head import head_model
    from connectors.private.joint.model_file import write_model
    from tasks.privacy.shares.compile import JointOptions, compile_joint

    with _told():
        model, rows = head_model(bundle)
        chosen: Any = {"holder": holder, "reveal": reveal, "receivers": receivers}
        joint = compile_joint(
            model,
            first=[name.strip() for name in first.split(",") if name.strip()],
            calibration=rows,
            options=JointOptions(threshold=threshold, tolerance=tolerance, **chosen),
        )
        plan, *parts = write_model(joint, out)
    step = joint.proof.step
    told = f", and told to a step of {step:.1e}" if step else ""
    typer.echo(
        f"{plan}: for both parties and the dealer; a log-odds is off by at most"
        f" {joint.proof.certain:.1e}{told}\n{parts[0]}: for party 0 alone"
        f"\n{parts[1]}: for party 1 alone"
    )


@app.command()
def certificate(
    folder: Annotated[Path, typer.Argument(help="Folder for it.", show_default=False)],
    *,
    name: Annotated[str, typer.Option(help="Of the house, for people.")],
) -> None:
    """Make a house's certificate; certificate.pem goes to the other house, key.pem stays."""
    from connectors.private.joint.certificates import make_certificate

    with _told():
        made, key = make_certificate(folder, name)
    typer.echo(f"{made}: for the other house\n{key}: stays here")


@app.command("dealer-key")
def dealer_key(
    folder: Annotated[Path, typer.Argument(help="Folder for it.", show_default=False)],
) -> None:
    """Make the trusted dealer's key; the public half goes to both parties."""
    from connectors.private.joint.dealer import make_dealer_key

    with _told():
        public, private = make_dealer_key(folder)
    typer.echo(f"{public}: for both parties\n{private}: stays here")


@app.command()
def deal(
    plan: Annotated[Path, typer.Argument(help="Plan of the model.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for both deals.", show_default=False)],
    *,
    key: Annotated[Path, typer.Option(help="The dealer's private key.")],
    rows: Annotated[int, typer.Option(help="Rows that can be scored with it.")],
    batch_rows: Annotated[
        int | None,
        typer.Option(help="Rows of a batch, used up whole (default 8,192, or as many as go)."),
    ] = None,
    dealer: Annotated[str, typer.Option(help="Name of the dealer.")] = "trusted dealer",
) -> None:
    """Deal what two parties use up while they score. Whoever deals is trusted by both."""
    from connectors.private.joint.dealer import DealConfig
    from connectors.private.joint.dealer import deal as run_dealer
    from connectors.private.joint.model_file import read_plan

    with _told():
        run_dealer(DealConfig(read_plan(plan), key, out, rows, batch_rows, dealer))
    typer.echo(
        f"{out / 'party-0.deal'} and {out / 'party-1.deal'}: each for its party alone, by a way as"
        " confidential as a key's; delete them here"
    )


@app.command()
def party(
    rows: Annotated[
        Path, typer.Argument(help="Own table, whole: .npy or CSV.", show_default=False)
    ],
    *,
    number: PartyNumber,
    certificate: Own,
    key: Key,
    peer: Peer,
    port: Port,
    plan: Annotated[Path, typer.Option(help="Plan of the model.")],
    part: Annotated[Path, typer.Option(help="Own part of the weights.")],
    deal: Annotated[Path, typer.Option(help="Own deal.")],
    dealer_key: Annotated[Path, typer.Option(help="The dealer's public key.")],
    ledger: Annotated[Path, typer.Option(help="File that records what was used up.")],
    common: Annotated[Path | None, typer.Option(help="File of 'intersect': what to score.")] = None,
    key_column: Annotated[str, typer.Option(help="CSV: column of keys, to be compared.")] = "",
    same_order: Annotated[
        bool, typer.Option(help="No intersection: both tables list the same customers in order.")
    ] = False,
    out: Annotated[Path, typer.Option(help="CSV for scores or decisions.")] = Path("scores.csv"),
    host: Host = "127.0.0.1",
    wait: Wait = 30.0,
) -> None:
    """Score with the other party, at the same time."""
    from connectors.private.client.tables import read_rows
    from connectors.private.joint.door import Door
    from connectors.private.joint.key_list import read_keys
    from connectors.private.joint.model_file import read_plan
    from connectors.private.joint.party import PartyConfig, run_party

    with _told():
        if (common is None) != same_order:
            raise ValueError(
                "whose rows these are is not told: give --common, the file of 'intersect', or"
                " --same-order if both tables list the same customers in the same order"
            )
        columns = read_plan(plan).encodings[number].columns
        door = Door(cast("Party", number), certificate, key, peer, port, host, wait)
        config = PartyConfig(door, plan, part, deal, dealer_key, ledger, common)
        keys = read_keys(rows, key_column) if key_column else None
        table = read_rows(rows, columns)
        with _writable(out):  # before a deal is used up for scores that could not be written
            result = run_party(config, table, keys)
            if result.outcome is not None:
                _write_outcome(out, result)
    told: dict[str, Any] = {
        "rows": result.rows,
        "sent": result.sent,
        "received": result.received,
        "online_s": round(result.online_s, 3),
        "out": None if result.outcome is None else str(out),
    }
    typer.echo(json.dumps(told))


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Refuse a file that cannot be written, at once; leaves what was there if nothing is."""
    existed = path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.open("ab").close()
    try:
        yield
    finally:
        if not existed and not path.stat().st_size:
            path.unlink()


def _write_outcome(out: Path, result: PartyResult) -> None:
    """Write CSV: the place of each row in the own table, and its scores or decisions (1 or 0)."""
    import numpy as np

    outcome = np.asarray(result.outcome)
    name = "decision" if outcome.dtype == np.bool_ else "score"
    several = outcome.shape[1] > 1
    names = [f"{name}_{i}" if several else name for i in range(outcome.shape[1])]
    np.savetxt(
        out,
        np.column_stack([result.places, outcome]),
        fmt=["%d", *["%.17g"] * len(names)],
        delimiter=",",
        header=",".join(["row", *names]),
        comments="",
    )


@app.command()
def intersect(
    keys: Annotated[
        Path, typer.Argument(help="A key on each line, or CSV (--key-column).", show_default=False)
    ],
    *,
    number: PartyNumber,
    certificate: Own,
    key: Key,
    peer: Peer,
    port: Port,
    out: Annotated[Path, typer.Option(help="New file for 'party --common'.")],
    key_column: Annotated[str, typer.Option(help="CSV: column of keys.")] = "",
    host: Host = "127.0.0.1",
    wait: Wait = 30.0,
) -> None:
    """Find the common keys, and nothing of the others."""
    from connectors.private.joint.common_rows import write_common_rows
    from connectors.private.joint.door import Door
    from connectors.private.joint.intersection import run_intersection
    from connectors.private.joint.key_list import read_keys

    with _told():
        if out.exists():
            raise ValueError(f"{out} is there already, of another run; name a new file")
        out.parent.mkdir(parents=True, exist_ok=True)
        door = Door(cast("Party", number), certificate, key, peer, port, host, wait)
        found = run_intersection(door, read_keys(keys, key_column)).common
        write_common_rows(out, found)
    told = {"own": found.listed, "common": len(found.rows), "alignment": found.alignment}
    typer.echo(json.dumps({**told, "out": str(out)}))


@contextmanager
def _told() -> Iterator[None]:
    """Turn refusals into one line."""
    from infra.errors import PenstockError

    try:
        yield
    except (ValueError, OSError) as error:
        raise PenstockError(str(error)) from error
    except RuntimeError as error:
        raise PenstockError(f"{getattr(error, 'code', 'failed')}: {error}") from error
