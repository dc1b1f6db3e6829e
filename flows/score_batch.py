"""The flow that scores a transaction file with the serving model.

penstock fraud score DATA --config handbook --out scores.parquet
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from connectors import steps
from flows.artifacts import publish_checks, publish_scores
from flows.prepared import prepare
from infra.settings import get_settings
from tasks.workspace import place_of


@flow(name="score-batch", timeout_seconds=2 * 3_600)
def score_batch(
    data: str, out: str, config: str = "handbook", *, contract: str = "", days: float = 1.0
) -> dict[str, Any]:
    """Score the last days of a file; the days before give the entities their history.

    Args:
        data: Parquet or CSV file with at least the longest look-back of history.
        out: File for the scores (.parquet or .csv).
        config: Dataset config, whose name finds the model.
        contract: TOML file of own lines that rows must meet besides the config's; empty: none.
        days: Whole days scored, counted back from the last one; 0: all rows.

    Returns:
        JSON record: model, rows, alerts, file.
    """
    job, model, inputs, checked, table = prepare(data, config, contract)
    work = get_settings().home / "work"
    scored = steps.score_file(
        str(place_of(work, "scores", inputs | {"bundle": model["digest"], "days": days}).folder),
        data=checked["folder"],
        features=table["folder"],
        bundle=model["bundle"],
        days=days,
    )
    written = steps.copy_table(str(Path(scored["folder"]) / "scores.parquet"), out)
    record = {
        "model": model["model"],
        "version": model["version"],
        "rows": scored["rows"],
        "alerts": scored["alerts"],
        "highest": scored["highest"],
        "out": written,
    }
    publish_scores(record)
    publish_checks(job["config"]["name"], checked["report"])
    return record
