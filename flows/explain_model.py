"""The flow that explains a model: record, page, figures in MLflow.

penstock explain model DATA --config handbook --out explained
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from connectors.explain import steps
from connectors.explain.set_files import ARRAYS, CONTRACT
from flows.explain_source import open_source, place_for


@flow(name="explain-model", timeout_seconds=2 * 3_600)
def explain_model(
    data: str,
    out: str,
    config: str = "handbook",
    *,
    contract: str = "",
    own: dict[str, Any] | None = None,
    catalogue: str = "",
    language: str = "en",
    days: float = 28.0,
    rows: int = 2_000,
    redraws: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """Explain the newest rows of a file.

    Args:
        data: Parquet or CSV file.
        out: Folder for the record and the page.
        config: Dataset config, whose name finds the fraud model.
        contract: TOML file of own lines that rows must meet; empty: none.
        own: A user's own model (``OwnModel.to_record()``); None: the fraud champion.
        catalogue: TOML file of codes and words of the reasons; empty: the model's own.
        language: Language of the reasons, en or zh.
        days: Whole days explained, counted back from the last one; 0: all.
        rows: Most rows; more are drawn from.
        redraws: Redraws of the background that stability is measured by.
        seed: Of all draws.

    Returns:
        JSON record: rows, method, metrics, strongest, alarms, files, run.
    """
    source = open_source(data, config, contract, own, catalogue=catalogue, language=language)
    asked: dict[str, Any] = {"days": days, "rows": rows, "redraws": redraws, "seed": seed}
    made = steps.explain_rows(place_for("explained", source, **asked), source=source, **asked)
    run = steps.log_explanations(
        dataset=source["dataset"],
        name="explain-model",
        folder=made["folder"],
        digest=made["digest"],
        metrics=made["metrics"],
        pages=[steps.PAGE],
    )
    files = steps.copy_files(made["folder"], [steps.PAGE, ARRAYS, CONTRACT], out)
    told = ("rows", "method", "metrics", "strongest", "alarms", "undrifted")
    return {key: made[key] for key in told} | {"files": files, "report": files[0], "run": run}
