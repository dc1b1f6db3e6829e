"""One trial of a search as a Prefect task: asked for, trained, told, tracked as a nested run."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

if TYPE_CHECKING:
    from connectors.tracking import RunRequest
    from kernels.tuning.autotune import AutoTune, Trial
    from kernels.tuning.history import TrialRecord

logger = logging.getLogger(__name__)

Record = dict[str, Any]
JOURNAL, TRIALS = "search.jsonl", "trials"


@task(name="run trial")
def run_trial(*, job: str, folder: str, settings: Record, dataset: str, run_id: str) -> Record:
    """Train the next trial of a search.

    Args:
        job: Search as ``package.module:attribute``.
        folder: Folder of its journal and checkpoints.
        settings: ``seconds``, ``trials`` and ``seed`` of the search.
        dataset: Names the experiment.
        run_id: MLflow run of the search.

    Returns:
        JSON record of the trial, empty when the budget is used up.
    """
    from connectors.tracking import MlflowCallback, tracked_run
    from kernels.tuning import training
    from kernels.tuning.job import find_job

    with open_search(job, folder, settings) as tune:
        trial = tune.ask()
        if trial is None:
            return {}
        with tracked_run(request_of(trial, dataset, run_id)) as run:
            callback = MlflowCallback(run)
            try:
                outcome = training.run_trial(
                    tune,
                    trial,
                    find_job(job).build,
                    folder=Path(folder) / TRIALS,
                    callbacks=[callback],
                )
            finally:
                callback.close()
            record = tune.trials[trial.number]
            run.log_metrics({"value": record.value, "steps": outcome.steps})
            run.set_tags({"trial_state": record.state})
    logger.info("trial %d %s at step %d", trial.number, record.state, outcome.steps)
    return as_json(record)


@task(name="sum up search", retries=1, timeout_seconds=600)
def sum_up(*, job: str, folder: str, settings: Record) -> Record:
    """Return what a search has found: the best trial, all trials, and the seconds spent."""
    with open_search(job, folder, settings) as tune:
        best = tune.best
        return {
            "best": as_json(best) if best else None,
            "trials": [as_json(trial) for trial in tune.trials],
            "seconds": tune.spent,
        }


def open_search(job: str, folder: str, settings: Record) -> AutoTune:
    """Begin the search in a folder, or go on with it."""
    from kernels.tuning.autotune import AutoTune, AutoTuneConfig
    from kernels.tuning.job import find_job

    found = find_job(job)
    config = AutoTuneConfig(goal=found.goal, asha=found.asha, **settings)
    return AutoTune(found.space, Path(folder) / JOURNAL, config)


def request_of(trial: Trial, dataset: str, run_id: str) -> RunRequest:
    """Return the run of a trial, nested in that of its search; an earlier attempt's is resumed."""
    from connectors.tracking import RunRequest, unfinished_run

    key = f"{run_id}-{trial.key}"
    return RunRequest(
        dataset=dataset,
        name=trial.key,
        params=trial.parameters,
        tags={"mlflow.parentRunId": run_id, "job_key": key},
        resume=unfinished_run(dataset, key),
    )


def as_json(record: TrialRecord) -> Record:
    """Return a trial as JSON holds it."""
    plain = asdict(record)
    plain["value"] = record.value if math.isfinite(record.value) else None
    plain["reports"] = {
        str(step): value if math.isfinite(value) else None for step, value in record.reports.items()
    }
    return {k: v for k, v in plain.items() if k not in {"worker", "seen"}}
