"""The flows that mine rules which decide as a model does, and try editions of them over history.

penstock explain rules DATA --config handbook --out rules
penstock explain trial rules/rules.json DATA --config handbook --by "A. Person"
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from connectors.explain import steps
from flows.explain_source import open_source, place_for


@flow(name="explain-rules", timeout_seconds=2 * 3_600)
def explain_rules(
    data: str,
    out: str,
    config: str = "handbook",
    *,
    contract: str = "",
    own: dict[str, Any] | None = None,
    days: float = 0.0,
    rows: int = 200_000,
    settings: dict[str, Any] | None = None,
    table: str = "payments",
    version: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Mine rules from decisions on the older 70 % of the rows, measure them on the newer 30 %.

    Args:
        data: Parquet or CSV file.
        out: Folder for the files.
        config: Dataset config, whose name finds the fraud model.
        contract: TOML file of own lines that rows must meet; empty: none.
        own: A user's own model (``OwnModel.to_record()``); None: the fraud champion.
        days: Whole days used, counted back from the last one; 0: all.
        rows: Most rows; more are drawn from.
        settings: Of ``MineConfig``.
        table: Name of the table in the queries.
        version: Of the edition; empty: the day of the newest row it is mined from.
        seed: Of the draw of rows.

    Returns:
        JSON record: version, files, metrics, mined, measured, fidelity, run.
    """
    source = open_source(data, config, contract, own)
    asked: dict[str, Any] = {"days": days, "rows": rows, "config": settings or {}, "table": table,
                             "version": version, "seed": seed}  # fmt: skip
    made = steps.mine_rules(place_for("rules", source, **asked), source=source, **asked)
    run = steps.log_rules(
        dataset=source["dataset"],
        folder=made["folder"],
        files=made["files"],
        metrics=made["metrics"],
        config=asked["config"],
    )
    files = steps.copy_files(made["folder"], made["files"], out)
    told = ("model", "version", "mined", "measured", "fidelity", "metrics")
    return {key: made[key] for key in told} | {"files": files, "run": run}


@flow(name="try-rules", timeout_seconds=2 * 3_600)
def try_rules(
    edition: str,
    data: str,
    config: str = "handbook",
    *,
    tried_by: str,
    before: str = "",
    contract: str = "",
    own: dict[str, Any] | None = None,
    days: float = 0.0,
    rows: int = 200_000,
    limits: dict[str, float] | None = None,
    newest: float = 0.3,
    seed: int = 0,
) -> dict[str, Any]:
    """Run an edition over rows that a model has decided; the record is written beside it.

    Args:
        edition: File of the rules, mined or edited by hand.
        data: Parquet or CSV file.
        config: Dataset config, whose name finds the fraud model.
        tried_by: Who answers for the edition.
        before: File of the edition in force; empty: this is the first.
        contract: TOML file of own lines that rows must meet; empty: none.
        own: A user's own model (``OwnModel.to_record()``); None: the fraud champion.
        days: Whole days used, counted back from the last one; 0: all.
        rows: Most rows; more are drawn from.
        limits: Of ``tasks.explain.rules.approval.Limits``.
        newest: Share of the rows it is tried on, the newest; mining learns from the others.
        seed: Of the draw of rows.

    Returns:
        JSON record: the trial, and the file that holds it.
    """
    source = open_source(data, config, contract, own)
    made: dict[str, Any] = steps.try_rules(
        edition, source=source, tried_by=tried_by, before=before, limits=limits or {},
        newest=newest, days=days, rows=rows, seed=seed,
    )  # fmt: skip
    return made
