"""News for a running stream: another model or other rules, without a restart."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connectors.flink.models import place_model
from connectors.flink.operate import spec_path
from connectors.flink.spec import StreamSpec
from infra.errors import ServiceError
from infra.files import write_atomically
from infra.settings import Settings


def announce(
    settings: Settings,
    name: str,
    *,
    model: Path | None = None,
    rules: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Tell a running stream of a new model or new rules; it goes on without a restart.

    The model is loaded and scored here first: a broken one is never announced.

    Returns:
        The control message.

    Raises:
        BundleError: When the model is broken.
        RulesError: When the rules cannot be used.
    """
    from connectors.api.rules import Rules

    path = spec_path(settings, name)
    spec = StreamSpec.load(path)
    stamp = spec.model if model is None else place_model(model, Path(spec.models)).folder.name
    chosen = spec.rules if rules is None else Rules.from_dict(rules).to_dict()
    message = {"model": stamp, "rules": chosen}
    content = json.dumps(message).encode()
    if spec.kafka:
        _produce(spec.kafka, f"{spec.prefix}.control", content)
    else:
        target = Path(spec.folder) / "control" / f"{time.time_ns()}.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content.decode() + "\n")
    # A job that starts anew reads the control stream from its state, or from here.
    spec.with_changes(model=stamp, rules=dict(chosen)).save(path)
    return message


def _produce(servers: str, topic: str, content: bytes) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers, "acks": "all"})
    failures: list[str] = []
    # One key: of the compacted topic only the newest message need be read.
    producer.produce(
        topic,
        content,
        key=b"control",
        on_delivery=lambda error, _: failures.append(str(error)) if error else None,
    )
    if producer.flush(20) or failures:
        raise ServiceError(
            f"topic {topic}: the message was not taken ({'; '.join(failures) or 'no answer'})",
            "Run: penstock status",
        )
