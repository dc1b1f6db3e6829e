"""A small bank on disk and the flows run on it once, against real servers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

SETTINGS = {
    "graph": False,
    "trees": {"rounds": 40, "seeds": 1, "min_rows": 10, "learning_rate": 0.1},
    "mlp": {"hidden": [8], "epochs": 2},
    "background_rows": 32,
}
CONFIG = """
name = "{name}"
time = "t"
time_unit = "s"
time_origin = "2018-04-01T00:00:00"
amount = "amount_cents"
amount_unit = "minor"
event_id = "tx_id"
label = "fraud"
label_delay_days = 5

[[entities]]
column = "customer"

[[entities]]
column = "terminal"

[split]
train_days = 14
test_days = 5
folds = 2
validation_folds = 1
warmup_days = 7
"""


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for text in (
                # MLflow's own type hints and its database mapping, seen while it is imported.
                "ignore:.*Any type hint is inferred as AnyType.*:UserWarning",
                "ignore:.*noload.*:DeprecationWarning",
                # Prefect's client leaves its sockets to the garbage collector.
                "ignore:.*:pytest.PytestUnraisableExceptionWarning",
                "ignore:unclosed:ResourceWarning",
            ):
                item.add_marker(pytest.mark.filterwarnings(text))


@dataclass
class SmallBank:
    """Files of a simulated bank."""

    data: Path
    config: Path
    folder: Path


@pytest.fixture(scope="session")
def small_bank(tmp_path_factory):
    """Builder of a bank under its own dataset name."""
    from connectors.files import write_parquet_stream
    from tasks.fraud.simulate import CARDS_SCHEMA, CardsConfig, simulate_cards

    folder = tmp_path_factory.mktemp("bank")
    data = folder / "bank.parquet"
    bank = CardsConfig(
        cards=250, terminals=400, days=52, seed=5, bad_terminals_per_day=0.7, bad_cards_per_day=0.5
    )
    write_parquet_stream(data, CARDS_SCHEMA, simulate_cards(bank))

    def build(name):
        config = folder / f"{name}.toml"
        config.write_text(CONFIG.format(name=name))
        return SmallBank(data, config, folder)

    return build


@pytest.fixture(scope="session")
def settings():
    return json.loads(json.dumps(SETTINGS))


@pytest.fixture(scope="session")
def trained(small_bank, settings, prefect_server, mlflow_server):
    """The record of one training run, promoted."""
    from flows.train_fraud import train_fraud

    bank = small_bank("flowbank")
    return bank, train_fraud(
        str(bank.data), str(bank.config), settings, report=str(bank.folder / "report.html")
    )
