"""The flow that searches the hyper-parameters of a model, trial by trial, within a budget.

    tune_model("mypackage.search:job", seconds=3_600)

Each trial is a task with an MLflow run of its own, nested in that of the search. Started again it
goes on: with the trial that was training when it was killed, from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ProcessPoolTaskRunner

from connectors.tracking import RunRequest, TrackedRun, tracked_run, unfinished_run
from connectors.tuning import steps
from flows.artifacts import artifact_key, publish_search
from infra.settings import get_settings
from kernels.tuning.job import find_job

Record = dict[str, Any]

FAILURES = 3
"""Trials failed in a row after which the model, not the parameters, must be at fault."""


@flow(name="tune-model", timeout_seconds=24 * 3_600, validate_parameters=True)
def tune_model(
    job: str,
    *,
    seconds: float = 3_600.0,
    trials: int | None = None,
    seed: int = 0,
    workers: int = 1,
) -> Record:
    """Search for the best hyper-parameters of a model.

    Args:
        job: A `TuningJob` as ``package.module:attribute``.
        seconds: Budget of the search, over all its starts.
        trials: Trials at most; None: as many as there is time for.
        seed: Seed of the search.
        workers: Trials at the same time, each in a process of its own.

    Returns:
        JSON record: the best trial, all trials, seconds, run.

    Raises:
        ValueError: When there is no such job, or a setting is out of range.
        Exception: What the third trial in a row failed of.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    space = find_job(job).space.describe()  # refused now, not in the first trial
    key = hashlib.sha256(json.dumps([job, space, seed]).encode()).hexdigest()[:16]
    dataset = artifact_key(job)
    settings = {"seconds": seconds, "trials": trials, "seed": seed}
    request = RunRequest(
        dataset=dataset,
        name=f"tune {job}",
        params={"job": job, "space": space, **settings},
        tags={"job_key": key},
        resume=unfinished_run(dataset, key),
    )
    folder = str(get_settings().home / "tuning" / f"{dataset}-{key}")
    with tracked_run(request) as run:
        inputs = {
            "job": job,
            "folder": folder,
            "settings": settings,
            "dataset": dataset,
            "run_id": run.run_id,
        }
        if workers == 1:
            _one_by_one(inputs)
        else:
            _side_by_side(inputs, workers)
        record = steps.sum_up(job=job, folder=folder, settings=settings)
        record |= {"run_id": run.run_id, "run_page": run.page}
        _log(run, record)
        publish_search(dataset, record)
    return record


def _one_by_one(inputs: Record) -> None:
    failures = 0
    while True:
        state = steps.run_trial(**inputs, return_state=True)
        failures = 0 if state.is_completed() else failures + 1
        if failures == FAILURES:
            state.result()  # raises what the last one failed of
        if state.is_completed() and not state.result():
            return


def _side_by_side(inputs: Record, workers: int) -> None:
    failures = 0
    with ProcessPoolTaskRunner(max_workers=workers) as pool:
        waiting: list[PrefectFuture[Record]] = [
            pool.submit(steps.run_trial, inputs) for _ in range(workers)
        ]
        while waiting:
            done = next(as_completed(waiting))
            waiting.remove(done)
            failures = 0 if done.state.is_completed() else failures + 1
            if failures == FAILURES:
                done.result()  # raises what the last one failed of
            if not done.state.is_completed() or done.result():
                waiting.append(pool.submit(steps.run_trial, inputs))


def _log(run: TrackedRun, record: Record) -> None:
    best = record["best"]
    run.log_metrics({"trials": len(record["trials"]), "seconds": record["seconds"]})
    if best is not None:
        run.log_metrics({"best": best["value"]})
        # Tags, for parameters of a run that is gone on with could not change.
        run.set_tags({f"best.{name}": str(value) for name, value in best["parameters"].items()})
