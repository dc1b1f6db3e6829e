"""How a sink is named on the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from connectors.defects.inspect.journal import Journal
from connectors.defects.inspect.sink import Sink
from infra.errors import ConfigurationError

FORMS = (
    "jsonl:FILE",
    "csv:FILE",
    "folder:FOLDER",
    "https://HOST/PATH",
    "kafka://HOST:PORT/TOPIC",
)
WEBHOOK_SECRET = "PENSTOCK_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
MIN_SECRET = 20


def open_sink(
    text: str,
    journal: Journal,
    folder: Path,
    variables: Mapping[str, str] | None = None,
    *,
    leave_out: Path | None = None,
) -> Sink:
    """Return the sink that a text such as ``csv:results.csv`` names.

    Args:
        text: One of `FORMS`.
        journal: For the pictures.
        folder: The inspected folder: images are copied from it.
        variables: Environment; the process's own if None.
        leave_out: A folder in the inspected one that is not looked into.

    Raises:
        ConfigurationError: The text names no sink, its secret is missing, or its images would be
            inspected in turn.
    """
    variables = os.environ if variables is None else variables
    kind, _, rest = text.partition(":")
    if kind in {"jsonl", "csv", "folder"} and rest:
        from connectors.defects.inspect.file_sinks import CsvSink, JsonLinesSink, PictureFolderSink

        if kind == "folder":
            _require_apart(Path(rest), folder, leave_out)
            return PictureFolderSink(Path(rest), journal, folder)
        return (JsonLinesSink if kind == "jsonl" else CsvSink)(Path(rest), journal.id)
    if kind in {"http", "https"}:
        from connectors.defects.inspect.webhook import WebhookSink

        secret = variables.get(WEBHOOK_SECRET, "")
        if len(secret) < MIN_SECRET:
            raise ConfigurationError(
                f"sink {text}: {WEBHOOK_SECRET} has fewer than {MIN_SECRET} characters",
                "Set it to the secret that the receiver checks signatures by",
            )
        return WebhookSink(text, secret)
    if kind == "kafka":
        from connectors.defects.inspect.kafka_sink import KafkaSink

        servers, _, topic = rest.removeprefix("//").partition("/")
        if servers and topic:
            return KafkaSink(servers, topic)
    raise ConfigurationError(f"sink {text!r} is of no known form", f"Use {', '.join(FORMS)}")


def _require_apart(target: Path, folder: Path, leave_out: Path | None) -> None:
    place, root = target.resolve(), folder.resolve()
    without = (leave_out or folder).resolve()
    spared = root in without.parents and place.is_relative_to(without)
    if place.is_relative_to(root) and not spared:
        raise ConfigurationError(
            f"{target} lies in the inspected folder, and its copies would be inspected in turn",
            "Choose a folder outside of it",
        )
