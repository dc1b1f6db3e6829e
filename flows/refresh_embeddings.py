"""The flow that renews entity embeddings together with the head that fits them.

Embeddings of another network mean nothing to a head, so both are learnt again on the newest data
and swapped in one promotion: they lie in the same bundle. The refreshed model need not be better,
only not worse by more than a small margin: fresh embeddings know entities the old ones have never
seen. Should a head without embeddings be chosen in the retraining, that reason is gone, and it must
be better beyond doubt like any other model.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prefect import flow

from connectors.fraud_models import fraud_registry
from flows.artifacts import publish_refresh
from flows.train_fraud import train_fraud
from infra.settings import get_settings
from tasks.fraud.bundle import Bundle
from tasks.fraud.dataset import find_config

logger = logging.getLogger(__name__)

NOT_WORSE_BY = 0.01
"""Average precision the refreshed model may lose within the interval."""


@flow(name="refresh-embeddings", timeout_seconds=8 * 3_600)
def refresh_embeddings(
    data: str,
    config: str = "handbook",
    settings: dict[str, Any] | None = None,
    *,
    not_worse_by: float = NOT_WORSE_BY,
) -> dict[str, Any]:
    """Train on the newest data and swap embeddings and head together.

    Where the serving head reads no embeddings there is nothing to renew, and nothing is trained.

    Args:
        data: Parquet or CSV file that reaches to now.
        config: Dataset config, whose name finds the serving model.
        settings: Training settings; the graph part is always on.
        not_worse_by: Average precision the refreshed model may lose, by the lower end of the
            interval of the difference, and still serve. A head without embeddings may lose nothing.

    Returns:
        JSON record: ``refreshed`` (whether embeddings and head were swapped), ``replaced`` (whether
        another version serves now, refreshed or without embeddings), ``reason``, ``serving`` (the
        version that serves now), and where something was trained ``training`` (the record of that
        run).

    Raises:
        RegistryError: When no model serves yet; train one first.
        ValueError: When ``not_worse_by`` is negative.
    """
    if not_worse_by < 0:
        raise ValueError(
            f"not_worse_by must be at least 0, got {not_worse_by}; a model that must be better is "
            "trained by train-fraud with a margin"
        )
    version, champion = fraud_registry().champion(
        find_config(config).name, get_settings().home / "models"
    )
    record: dict[str, Any] = {
        "refreshed": False,
        "replaced": False,
        "serving": version.version,
        "training": None,
    }
    if not champion.reads_embeddings():
        record["reason"] = (
            f"nothing to refresh: head '{champion.active}' of the serving version "
            f"{version.version} reads no embeddings"
        )
    else:
        training = train_fraud(
            data, config, {**(settings or {}), "graph": True}, embeddings_margin=-not_worse_by
        )
        record |= decision(training, before=version.version)
    logger.info("%s", record["reason"])
    publish_refresh(version.name, record)
    return record


def decision(training: dict[str, Any], *, before: str) -> dict[str, Any]:
    """Return what came of a refresh, from the record of its training run."""
    promotion = training["promotion"]
    replaced = promotion["promoted"] and promotion["version"] != before
    return {
        "refreshed": replaced and Bundle.load(Path(training["bundle"])).reads_embeddings(),
        "replaced": replaced,
        "reason": promotion["reason"],
        "serving": promotion["serving"],
        "training": training,
    }
