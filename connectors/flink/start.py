"""From what a person names, a model and a stream, to the description of a job."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connectors.flink.models import place_model
from connectors.flink.operate import models_folder, spec_path
from connectors.flink.presets import PresetName
from connectors.flink.spec import StreamSpec, new_epoch
from infra.settings import Settings

REGISTRY = "registry:"


def described(
    settings: Settings,
    name: str,
    model: str,
    *,
    kafka: str = "",
    preset: PresetName = "latency",
    parallelism: int = 1,
    rules: Mapping[str, Any] | None = None,
    anew: bool = False,
) -> StreamSpec:
    """Return the description of a stream; one that was stopped goes on from its savepoint.

    Args:
        settings: The settings.
        name: Name of the stream.
        model: Bundle folder, or ``registry:DATASET`` for the serving model.
        kafka: Brokers; empty: our own broker.
        preset: Throughput or latency.
        parallelism: Parallel instances of every operator.
        rules: Thresholds and lists; None: those the bundle proposes.
        anew: Begin with empty state even where there is a savepoint.

    Raises:
        PenstockError: When there is no such model, no broker, or the rules cannot be used.
    """
    from connectors.api.rules import Rules, default_rules
    from infra.services.kafka_broker import kafka_servers

    placed = place_model(model_folder(settings, model), models_folder(settings))
    chosen = Rules.from_dict(rules) if rules else default_rules(placed.thresholds, placed.digest)
    path = spec_path(settings, name)
    before = StreamSpec.load(path) if path.is_file() and not anew else None
    return StreamSpec(
        name=name,
        models=str(models_folder(settings)),
        model=placed.folder.name,
        rules=chosen.to_dict(),
        kafka=kafka or kafka_servers(settings),
        preset=preset,
        parallelism=parallelism,
        start="earliest",
        epoch=before.epoch if before and before.restore else new_epoch(time.time()),
        restore=before.restore if before else "",
    )


def model_folder(settings: Settings, model: str) -> Path:
    """Return the folder of a model, fetched from the registry where it is named so."""
    if not model.startswith(REGISTRY):
        return Path(model)
    from connectors.fraud_models import fraud_registry
    from infra.environment import apply_environment

    apply_environment(settings)
    dataset = model.removeprefix(REGISTRY)
    _, bundle = fraud_registry().champion(dataset, settings.home / "models")
    return bundle.folder
