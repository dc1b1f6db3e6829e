"""The command ``penstock``: finds the subcommand, and turns failures into one clear line."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import click
import typer

from flows.cli.failures import complain, describe
from flows.cli.interrupts import Interrupts, watch_interrupts
from flows.cli.lazy import LazyCommand, LazyGroup

INTERRUPTED = 130  # what typer makes of KeyboardInterrupt


class PenstockCommands(LazyGroup):
    """All command groups; each lives in the module named here."""

    table = {  # noqa: RUF012 - constant
        "demo": LazyCommand(
            "flows.cli.demo", "A bank and a line of parts: train, score, serve, inspect, report."
        ),
        "demo-live": LazyCommand(
            "flows.cli.demo_live", "Live payments through Kafka, Flink and the API."
        ),
        "fraud": LazyCommand("flows.cli.fraud", "Train, evaluate, score and report fraud models."),
        "explain": LazyCommand(
            "flows.cli.explain", "Say why a model decides: cases, the model, rules, drift."
        ),
        "train": LazyCommand("flows.cli.train", "Train a model of your own on the runtime."),
        "clean": LazyCommand("flows.cli.clean", "Clean tables: infer, run, review, undo, requeue."),
        "defects": LazyCommand("flows.cli.defects", "Inspect images for defects, edge and centre."),
        "compress": LazyCommand(
            "flows.cli.compress", "Make a model small and fast for a device: plan, run, report."
        ),
        "models": LazyCommand("flows.cli.models", "Serve ONNX models over HTTP."),
        "export": LazyCommand(
            "flows.cli.export", "Write a model in another format: ONNX, OpenVINO, phones, boards."
        ),
        "private": LazyCommand(
            "flows.cli.private", "Score encrypted rows, or have rows scored unseen."
        ),
        "simulate": LazyCommand("flows.cli.simulate", "Generate transactions to work on."),
        "schedule": LazyCommand(
            "flows.cli.schedule", "Place jobs on devices: profile, tune, simulate, apply."
        ),
        "stream": LazyCommand("flows.cli.stream", "Run the fraud stream: start, status, upgrade."),
        "tune": LazyCommand("flows.cli.tune", "Search the hyper-parameters of a model."),
        "doctor": LazyCommand("flows.cli.doctor", "Check this machine; findings come with fixes."),
        "up": LazyCommand("flows.cli.services", "Start the local services.", "up_app"),
        "down": LazyCommand("flows.cli.services", "Stop the local services.", "down_app"),
        "status": LazyCommand("flows.cli.services", "Show what runs and where.", "status_app"),
        "deploy": LazyCommand(
            "flows.cli.deployments", "Put the scheduled runs on the server.", "deploy_app"
        ),
        "worker": LazyCommand("flows.cli.deployments", "Run what is scheduled.", "worker_app"),
        "bench": LazyCommand("flows.cli.bench", "Run a benchmark of this checkout."),
        "version": LazyCommand("flows.cli.version", "Show versions of Penstock and its stack."),
    }


app = typer.Typer(
    cls=PenstockCommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Workflow pipelines for industry on Prefect and MLflow.",
)


@app.callback()
def options(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show details and tracebacks (anywhere in the line).")
    ] = False,
) -> None:
    """Workflow pipelines for industry on Prefect and MLflow."""
    from infra.logging import configure_logging
    from infra.settings import get_settings

    configure_logging(get_settings().log_level, debug=debug or "PENSTOCK_DEBUG" in os.environ)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script; always ends by SystemExit."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    arguments, debug = take_debug(arguments)
    with watch_interrupts() as interrupts:
        code = run_watched(arguments, interrupts, debug=debug)
        if code == INTERRUPTED:
            word = interrupts.word
            complain(f"{word}; nothing half-written is kept, run the command again to resume")
            return interrupts.code
    return code


def run_watched(arguments: list[str], interrupts: Interrupts, *, debug: bool) -> int:
    """Run one command line and tell every failure but Ctrl-C and SIGTERM."""
    try:
        code = app(arguments, prog_name="penstock", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):  # Ctrl-C at a prompt, or as click lets it through
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place where every failure is told
        if debug:
            traceback.print_exc()
        if interrupts.number:  # what fails then is its consequence
            return INTERRUPTED
        complain(describe(error, debug=debug))
        return 1
    return code if isinstance(code, int) else 0


def take_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """Move ``--debug`` to the front, where the top-level options are read.

    Only up to a ``--``; what follows belongs to the subcommand.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ours = [argument for argument in arguments[:end] if argument != "--debug"]
    debug = len(ours) < end
    flag = ["--debug"] if debug else []
    return [*flag, *ours, *arguments[end:]], debug or "PENSTOCK_DEBUG" in os.environ


if __name__ == "__main__":
    main()
