"""The flow that trains, judges, registers and promotes a fraud model.

    penstock fraud train DATA --config handbook

Every step keeps its result under a hash of its inputs, so a run that was killed is continued by
starting it again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow

from connectors import steps
from connectors.comparison import PromotionRules
from connectors.tracking import RunRequest, TrackedRun, tracked_run, unfinished_run
from flows.artifacts import publish_training
from infra.settings import get_settings
from tasks.fraud import steps as fraud_steps
from tasks.fraud.ingest.checks import require_trainable
from tasks.fraud.stages import read_plan
from tasks.fraud.training import TrainingConfig
from tasks.workspace import place_of

Record = dict[str, Any]


@flow(name="train-fraud", timeout_seconds=8 * 3_600, validate_parameters=True)
def train_fraud(
    data: str,
    config: str = "handbook",
    settings: Record | None = None,
    *,
    contract: str = "",
    report: str = "",
    promote: bool = True,
    margin: float = 0.0,
    embeddings_margin: float | None = None,
) -> Record:
    """Train a fraud model on a transaction file.

    Args:
        data: Parquet or CSV file.
        config: Dataset config: a TOML file or the name of a shipped one.
        settings: Training settings (fields of ``TrainingConfig``).
        contract: TOML file of own lines that rows must meet besides the config's; empty: none.
        report: Where to write the HTML report; empty: in the home folder.
        promote: Publish the model and let it serve if it deserves to.
        margin: Average precision by which it must beat the champion beyond doubt.
        embeddings_margin: The same where the chosen head reads embeddings; None: ``margin``.

    Returns:
        JSON record: figures, folders, promotion, run.
    """
    PromotionRules(margin, embeddings_margin)  # refused now, not after hours of training
    home = get_settings().home
    chosen = TrainingConfig.from_dict(settings or {}).to_dict()
    job = steps.fingerprint(data, config, contract)
    key = steps.inputs_of(job) | {"settings": chosen}
    key |= {name: job[name] for name in ("catalogue",) if name in job}
    name = str(place_of(home / "work", "job", key).key)
    dataset = str(job["config"]["name"])
    margins = {"margin": margin, "embeddings_margin": embeddings_margin}
    request = RunRequest(
        dataset=dataset,
        name=f"train {Path(data).name}",
        data_digest=job["digest"],
        params={"dataset": job["config"], "training": chosen, **margins},
        tags={"job_key": name},
        git_commit=job["git_commit"],
        resume=unfinished_run(dataset, name),
    )
    with tracked_run(request) as run:
        record = _train(home, job, key, run)
        if promote:
            record["promotion"] = steps.promote_model(
                bundle=record["bundle"],
                inputs=record["inputs"],
                cache=str(home / "models"),
                run_id=run.run_id,
                margin=margin,
                embeddings_margin=embeddings_margin,
            )
            run.set_tags({"promotion": record["promotion"]["reason"]})
        out = report or str(home / "reports" / f"{dataset}-{name[:8]}.html")
        record["report"] = _report(out, record, run)
        run.log_file(Path(out))
        publish_training(record, run)
    return record


def _train(home: Path, job: Record, key: Record, run: TrackedRun) -> Record:
    """Run the steps from the file to the bundle."""
    work, config, chosen = home / "work", job["config"], key["settings"]
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(step: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[step] = now - clock
        clock = now

    def place(step: str, **more: Any) -> str:
        return str(place_of(work, step, key | more).folder)

    data = steps.inputs_of(job)
    checked = steps.check_data(
        str(place_of(work, "checked", data).folder),
        data=job["data"],
        config=config,
        quarantine=str(home / "quarantine" / config["name"]),
        contract=job.get("contract", ""),
    )
    run.log_file(Path(checked["folder"]) / steps.CONTRACT)
    require_trainable(checked["report"], job["data"])
    lap("check")
    run.log_dataset(
        config["name"], job["digest"], checked["report"]["rows_used"], Path(job["data"])
    )
    table = fraud_steps.build_features(
        str(place_of(work, "features", data).folder), data=checked["folder"], config=config
    )
    lap("features")
    plan = fraud_steps.plan_folds(
        str(place_of(work, "plan", data).folder), data=checked["folder"], config=config
    )
    inputs = {
        "data": checked["folder"],
        "features": table["folder"],
        "plan": plan["folder"],
        "config": config,
        "settings": chosen,
    }
    cuts = read_plan(Path(plan["folder"]))
    wanted = [("validation", f.index) for f in cuts.validation]
    wanted += [("test", f.index) for f in cuts.test[1:]]
    folds = [
        steps.judge_fold(
            place("folds", kind=kind, index=index),
            inputs=inputs,
            kind=kind,
            index=index,
            run_id=run.run_id,
        )
        for kind, index in wanted
    ]
    lap("folds")
    trained = steps.train_model(
        place("model"),
        inputs=inputs,
        folds=[f["folder"] for f in folds],
        data_digest=job["digest"],
        git_commit=job["git_commit"],
        run_id=run.run_id,
        catalogue=job.get("catalogue", ""),
    )
    lap("train")
    _log_figures(run, trained)
    return {
        "dataset": config["name"],
        "source": job["data"],
        "checks": checked,
        "inputs": inputs,
        "folds": [f["folder"] for f in folds],
        "trained": trained,
        "bundle": str(Path(trained["folder"]) / "bundle"),
        "seconds": seconds,
        "run_id": run.run_id,
        "run_page": run.page,
        "promotion": None,
    }


def _log_figures(run: TrackedRun, trained: Record) -> None:
    from tasks.fraud.evaluation.figures import tracked_metrics

    run.log_metrics(tracked_metrics(trained["metrics"]))
    run.set_tags({"active_head": trained["active"], "bundle_sha256": trained["digest"]})
    run.log_file(Path(trained["folder"]) / "bundle" / "MODEL_CARD.md")
    run.log_file(Path(trained["folder"]) / "bundle" / "metrics.json")


def _report(out: str, record: Record, run: TrackedRun) -> str:
    written: str = steps.write_report(
        out=out,
        inputs=record["inputs"],
        folds=record["folds"],
        trained=record["trained"]["folder"],
        checks=record["checks"],
        source=record["source"],
        promotion=record["promotion"],
        durations=record["seconds"],
        run_page=run.page,
    )
    return written
