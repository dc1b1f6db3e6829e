"""The flow that explains single cases: a page each, a record of all, in MLflow.

penstock explain case DATA --key 4711 --config handbook --out cases
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from connectors.explain import steps
from connectors.explain.set_files import ARRAYS, CONTRACT
from flows.explain_source import open_source, place_for


@flow(name="explain-cases", timeout_seconds=3_600)
def explain_cases(
    data: str,
    out: str,
    config: str = "handbook",
    *,
    keys: list[str] | None = None,
    worst: int = 5,
    contract: str = "",
    own: dict[str, Any] | None = None,
    catalogue: str = "",
    language: str = "en",
    seed: int = 0,
) -> dict[str, Any]:
    """Explain rows by their names, or those with the highest scores.

    Args:
        data: Parquet or CSV file.
        out: Folder for the pages and the record.
        config: Dataset config, whose name finds the fraud model.
        keys: Event ids (own tables: values of the key column); none: the highest scores of the
            last day (own tables: of all rows).
        worst: How many of the highest scores.
        contract: TOML file of own lines that rows must meet; empty: none.
        own: A user's own model (``OwnModel.to_record()``); None: the fraud champion.
        catalogue: TOML file of codes and words of the reasons; empty: the model's own.
        language: Language of the reasons, en or zh.
        seed: Of all draws.

    Returns:
        JSON record: cases (key, file, score, decision, reasons, beneath, change), method, run.
    """
    source = open_source(data, config, contract, own, catalogue=catalogue, language=language)
    asked: dict[str, Any] = {"keys": keys or [], "worst": worst, "seed": seed}
    made = steps.explain_cases(place_for("cases", source, **asked), source=source, **asked)
    pages = [case["file"] for case in made["cases"]]
    run = steps.log_explanations(
        dataset=source["dataset"],
        name="explain-cases",
        folder=made["folder"],
        digest=made["digest"],
        metrics=made["metrics"],
        pages=pages,
    )
    files = steps.copy_files(made["folder"], [*pages, ARRAYS, CONTRACT], out)
    cases = [case | {"page": file} for case, file in zip(made["cases"], files, strict=False)]
    return {"cases": cases, "method": made["method"], "run": run}
