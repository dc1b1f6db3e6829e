"""Judges a model on the newest labelled days of a file, by the protocol of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from connectors.fraud_models import fraud_registry
from connectors.transactions import load_transactions
from infra.settings import get_settings
from tasks.cleaning.contract.toml import read_contract
from tasks.fraud.bundle import Bundle
from tasks.fraud.dataset import find_config
from tasks.fraud.evaluation.judge_bundle import judge_bundle


def evaluate_model(
    data: Path, config: str, bundle: Path | None = None, contract: Path | None = None
) -> dict[str, Any]:
    """Judge every head of a bundle (default: the champion) on the newest test window.

    Args:
        data: Parquet or CSV file.
        config: Dataset config, whose name finds the model.
        bundle: Bundle folder; None: the serving model.
        contract: TOML file of own lines that rows must meet besides the config's.

    Returns:
        JSON record: window, figures by head, whether the model has seen these days.
    """
    described = find_config(config)
    if bundle is None:
        _, model = fraud_registry().champion(described.name, get_settings().home / "models")
    else:
        model = Bundle.load(bundle)
    own = None if contract is None else read_contract(contract)
    checked = load_transactions(data, described, own=own)
    return judge_bundle(model, checked.transactions, described)
