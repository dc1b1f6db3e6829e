"""``penstock private``: score without seeing, and have scored without showing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from flows.cli import private_joint
from flows.cli.console import open_console

if TYPE_CHECKING:
    from rich.console import Console

    from tasks.privacy.compile import Profile

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Score without seeing, score together, train together.",
)
app.add_typer(private_joint.app, name="joint")

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
OWNERS = {
    "models": "List what a scorer serves.",
    "offer": "Fetch the offer of a model.",
    "keygen": "Make a key for a model.",
    "register": "Make a key known to a scorer.",
    "revoke": "End a key at once.",
    "encrypt": "Encrypt the rows of a table.",
    "score": "Have encrypted rows scored.",
    "decrypt": "Check and decrypt an answer.",
}
"""Commands of the data owner, those of ``penstock-client``."""


@app.command("compile")
def compile_bundle(
    bundle: Annotated[Path, typer.Argument(help="Folder of a fraud bundle.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the compiled model.", show_default=False)],
    *,
    name: Annotated[str, typer.Option(help="What owners ask for.")] = "fraud",
    head: Annotated[
        str, typer.Option(help="Head of the bundle; of trees the splits are told to owners.")
    ] = "logistic",
    profile: Annotated[
        str, typer.Option(help="owner-only, or shareable: scores may leave their owner.")
    ] = "owner-only",
    tolerance: Annotated[
        float | None,
        typer.Option(help="Largest error of a log-odds [default: .001, shareable .01]."),
    ] = None,
    releases: Annotated[
        int, typer.Option(help="Values that a key may release, shareable only.")
    ] = 65_536,
    parameters: Annotated[str, typer.Option(help="Parameter set [default: the cheapest].")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line.")
    ] = False,
) -> None:
    """Compile a bundle's head for encrypted scoring, with a proved error."""
    from connectors.private.bundle import REPORT, BundleError, write_bundle
    from connectors.private.fraud_head import head_model
    from infra.errors import PenstockError
    from kernels.bundle.folder import BundleError as FraudBundleError
    from tasks.privacy.compile import CompileOptions, compile_model
    from tasks.privacy.model import ModelError
    from tasks.privacy.parameters import ParameterError
    from tasks.privacy.report import report

    console = open_console()
    try:
        with console.status("compiling"):
            model, rows = head_model(bundle, head)
            options = CompileOptions(
                profile=cast("Profile", profile),  # which the options check
                tolerance=tolerance,
                releases=releases,
                parameters=parameters,
            )
            compiled = compile_model(model, rows, options)
            write_bundle(out, compiled, name)
            told = report(compiled, rows)
    except (FraudBundleError, BundleError, ModelError, ParameterError, ValueError) as error:
        raise PenstockError(str(error)) from error
    (out / REPORT).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    _show(console, told, out)
    if as_json:
        typer.echo(json.dumps(told))


@app.command()
def serve(
    models: Annotated[
        list[Path],
        typer.Argument(help="Folders that 'compile' has written.", show_default=False),
    ],
    *,
    host: Annotated[str | None, typer.Option(help="Address [default: 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes any [default: 8030].")] = None,
    home: Annotated[
        Path | None, typer.Option(help="Folder of keys and log [default: .penstock/private].")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that score [default: 1].")] = None,
    max_rows: Annotated[
        int | None, typer.Option(help="Rows of a request [default: 16384].")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
) -> None:
    """Score ciphertexts over HTTP; tokens in PENSTOCK_API_TOKENS, TENANT:score:SECRET.

    Every option, and more, is a variable PENSTOCK_PRIVATE_NAME, too.
    """
    from connectors.private.server.server import serve as run_server
    from connectors.private.server.settings import private_settings

    given: dict[str, Any] = {
        "models": ",".join(str(folder.resolve()) for folder in models),
        "host": host,
        "port": port,
        "home": home,
        "workers": workers,
        "max_rows": max_rows,
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
    }
    settings = private_settings(**{k: v for k, v in given.items() if v is not None})
    run_server(settings, lambda address: typer.echo(f"scoring at {address}/v1/encrypted/score"))


@app.command()
def audit(
    log: Annotated[Path, typer.Argument(help="audit.jsonl of a server.", show_default=False)],
    *,
    receipt: Annotated[
        list[str] | None, typer.Option(help="Receipt of an answer that the log must hold.")
    ] = None,
) -> None:
    """Check that no line of a log was changed or taken out."""
    from connectors.private.server.audit import verify_log
    from infra.errors import PenstockError

    if not log.is_file():
        raise PenstockError(f"{log} is no file", "Name the audit.jsonl in the server's home")
    found = verify_log(log, receipt or ())
    if found.trouble:
        raise PenstockError(f"{log}: {found.trouble}", "Compare it with a copy")
    if found.missing:
        raise PenstockError(
            f"{log} has no line for receipt {found.missing[0]}", "Compare it with a copy"
        )
    typer.echo(f"{found.lines:,} lines hold each other; the last one is {found.head}")


@app.command()
def federate(
    data: Annotated[Path, typer.Argument(help="Parquet or CSV file.", show_default=False)],
    *,
    config: Annotated[
        str, typer.Option(help="Dataset config: a TOML file or a name.")
    ] = "handbook",
    branches: Annotated[int, typer.Option(help="Processes that keep their rows.")] = 10,
    threshold: Annotated[
        int | None, typer.Option(help="Branches in every sum at least [default: two thirds].")
    ] = None,
    entity: Annotated[
        str, typer.Option(help="Column by which rows are shared out [default: the last].")
    ] = "",
    settings: Annotated[
        Path | None, typer.Option(help="TOML of the plan: rounds, hidden, [local], [private].")
    ] = None,
    public: Annotated[
        Path | None, typer.Option(help="Public file that scales the features, for [private].")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line.")
    ] = False,
) -> None:
    """Train a fraud head over branches of a file that show nobody their rows."""
    from flows.cli.fraud_model import read_settings
    from flows.cli.progress import shown

    console = open_console()
    plan = read_settings(settings)
    with shown("training together", console):
        from flows.federated_train import federated_train

        record = federated_train(
            str(data),
            config,
            plan,
            branches=branches,
            threshold=threshold,
            entity=entity,
            public=str(public or ""),
        )
    last = record["rounds"][-1]
    console.print(
        f"AUC {record['figures']['auc']:.4f}, average precision {record['figures']['ap']:.4f}"
        f" after {len(record['rounds'])} rounds; {last['survivors']:.0f} of {branches} branches in"
        f" the last sum\nmodel: {record['model']}\nMLflow: {record['run_page']}",
        highlight=False,
        soft_wrap=True,
    )
    if as_json:
        typer.echo(json.dumps(record))


def _passed_on(name: str, text: str) -> None:
    @app.command(name, context_settings=PASSED_ON, help=f"{text} The same as penstock-client.")
    def command(context: typer.Context) -> None:
        from connectors.private.client.command import main

        raise typer.Exit(main([name, *context.args]))


for _name, _text in OWNERS.items():
    _passed_on(_name, _text)


def _show(console: Console, told: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    table = Table("rows", "packing", "up", "down", "scorer")
    for one in told["requests"]:
        table.add_row(
            f"{one['rows']:,}",
            one["packing"],
            f"{one['up_bytes'] / 1000:,.0f} kB",
            f"{one['down_bytes'] / 1000:,.0f} kB",
            f"{one['scorer_ms']:.2f} ms",
        )
    console.print(
        f"{told['parameters']}: {told['security_bits']} bits of security, no evaluation keys\n"
        f"a log-odds is off by at most {told['error_certain']:.1e}, proved for every row"
        f" ({told['error_simulated']:.1e} simulated)",
        highlight=False,
    )
    console.print(table)
    console.print(f"written to {out}", highlight=False, soft_wrap=True)
