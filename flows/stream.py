"""Flows over a running stream: start it, upgrade it, look after it."""

from __future__ import annotations

import logging
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from connectors.flink import operate
from flows.artifacts import artifact_key
from infra.errors import PenstockError
from infra.settings import get_settings

logger = logging.getLogger(__name__)


@flow(name="start-stream", timeout_seconds=900)
def start_stream(
    name: str,
    model: str,
    kafka: str = "",
    *,
    preset: str = "latency",
    parallelism: int = 1,
    rules: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Submit a stream to the local Flink cluster, or let a stopped one go on.

    Args:
        name: Name of the stream; part of its topics' names.
        model: Bundle folder, or ``registry:DATASET`` for the serving model.
        kafka: Brokers; empty: our own.
        preset: ``latency`` or ``throughput``.
        parallelism: Parallel instances of every operator.
        rules: Thresholds and lists; None: those the bundle proposes.

    Returns:
        JSON record of its status.
    """
    from connectors.flink.start import described

    settings = get_settings()
    spec = described(
        settings,
        name,
        model,
        kafka=kafka,
        preset=preset,  # type: ignore[arg-type]  # checked by the spec
        parallelism=parallelism,
        rules=rules,
    )
    return operate.start(settings, spec).to_dict()


@flow(name="upgrade-stream", timeout_seconds=1_800)
def upgrade_stream(name: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Replace a stream's job by one of the present code: savepoint, new job, verify.

    Args:
        name: Name of the stream.
        changes: Fields of its spec that change.

    Returns:
        JSON record of its status.
    """
    return operate.upgrade(get_settings(), name, changes or {}).to_dict()


@flow(name="check-stream", timeout_seconds=900)
def check_stream(name: str, *, repair: bool = True) -> dict[str, Any]:
    """Report a stream's health on the flow's page, and mend what the watchdog could not.

    Args:
        name: Name of the stream.
        repair: Start a watchdog that died, and submit a job that it has given up, from its newest
            checkpoint or savepoint.

    Returns:
        JSON record of its status; ``repaired`` tells what was done.
    """
    settings = get_settings()
    record: dict[str, Any] = {"name": name, "repaired": []}
    try:
        if repair:
            record["repaired"] = operate.repair(settings, name)
        record |= operate.status(settings, name).to_dict()
    except PenstockError as error:
        record |= {"healthy": False, "state": "UNREACHABLE", "error": str(error)}
    lines = "\n".join(f"| {key} | {value} |" for key, value in record.items() if key != "watchdog")
    create_markdown_artifact(
        f"# Stream {name}: {'healthy' if record['healthy'] else 'NOT healthy'}\n\n"
        f"| what | value |\n|---|---|\n{lines}\n",
        key=f"{artifact_key(name)}-stream",
        description="Health of the stream",
    )
    if not record["healthy"]:
        logger.error("stream %s is not healthy: %s", name, record)
    return record
