"""The steps before the serving fraud model is asked about a file: the model, checks, features."""

from __future__ import annotations

from typing import Any, NamedTuple

from connectors import steps
from infra.settings import get_settings
from tasks.fraud import steps as fraud_steps
from tasks.workspace import place_of


class Prepared(NamedTuple):
    """A file that the champion can score.

    Attributes:
        job: The fingerprint of file and config.
        model: The champion, fetched.
        inputs: What places of later steps are named by.
        checked: The checked transactions.
        table: Their features.
    """

    job: dict[str, Any]
    model: dict[str, Any]
    inputs: dict[str, Any]
    checked: dict[str, Any]
    table: dict[str, Any]


def prepare(data: str, config: str, contract: str) -> Prepared:
    """Run the steps, inside a flow.

    Args:
        data: File of transactions.
        config: Dataset config, whose name finds the model.
        contract: TOML file of own lines that rows must meet; empty: none.
    """
    home = get_settings().home
    work = home / "work"
    job = steps.fingerprint(data, config, contract)
    model = steps.fetch_champion(job["config"]["name"], str(home / "models"))
    inputs = steps.inputs_of(job) | {"config": model["config"]}
    checked = steps.check_data(
        str(place_of(work, "checked", inputs).folder),
        data=job["data"],
        config=model["config"],
        quarantine=str(home / "quarantine" / job["config"]["name"]),
        contract=job.get("contract", ""),
        labels_required=False,
    )
    coded = inputs | ({"categories": model["categories"]} if model["categories"] else {})
    table = fraud_steps.build_features(
        str(place_of(work, "features", coded).folder),
        data=checked["folder"],
        config=model["config"],
        categories=model["categories"],
    )
    return Prepared(job, model, inputs, checked, table)
