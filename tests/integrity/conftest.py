"""Small generated banks on which the integrity of every scoring path is tested."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.ingest.checks import check
from tasks.fraud.simulate import CARDS_SCHEMA, CardsConfig, simulate_cards
from tasks.fraud.transactions import Transactions

DATASETS = Path(__file__).resolve().parents[2] / "tasks" / "fraud" / "datasets"


@pytest.fixture(scope="session")
def bank_config() -> DatasetConfig:
    """Config of simulated card payments."""
    return DatasetConfig.from_toml(DATASETS / "handbook.toml")


@pytest.fixture(scope="session")
def bank(bank_config: DatasetConfig) -> Transactions:
    """Fifty days of a bank of 150 cards, frauds more frequent than in life."""
    config = CardsConfig(
        cards=150, terminals=300, days=50, seed=11, bad_terminals_per_day=0.6, bad_cards_per_day=0.4
    )
    table = pa.Table.from_batches(list(simulate_cards(config)), CARDS_SCHEMA)
    return check(table, bank_config, "simulated").transactions
