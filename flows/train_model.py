"""The flow that trains a user's own model on the training runtime.

    penstock train --module mypkg.job:build --data rows.parquet --nproc 2

The function builds a `kernels.runtime.job.TrainingJob`. A run that was killed is continued by
starting it again: its folder is named by the module's source, the data and the settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task

from connectors import training
from connectors.tracking import RunRequest, TrackedRun, tracked_run, unfinished_run
from connectors.training import TrainingRequest
from flows.artifacts import publish_own_training
from infra.settings import get_settings
from kernels.runtime.launch import GRACE_SECONDS

Record = dict[str, Any]


@flow(name="train-model", timeout_seconds=7 * 24 * 3_600, validate_parameters=True)
def train_model(
    module: str,
    data: str = "",
    changes: Record | None = None,
    *,
    nproc: int = 1,
    folder: str = "",
    profile: bool = False,
    hang_seconds: float = training.HANG_SECONDS,
    grace_seconds: float = GRACE_SECONDS,
    shown: bool = False,
) -> Record:
    """Train a model that a function of the user's describes.

    Args:
        module: That function, ``package.module:function``.
        data: Path that it is given; empty for a function without arguments.
        changes: Settings of its config by dotted name, e.g. ``{"steps": 500}``.
        nproc: Processes on this machine.
        folder: Checkpoints, weights and report; empty: in the home folder.
        profile: Profile some steps; the report is attached to the MLflow run.
        hang_seconds: Of several processes, how long one may finish no step before it counts as
            hanging and all are ended; longer than the longest evaluation.
        grace_seconds: How long several may take to save and end when they are told to.
        shown: Draw a progress bar on the terminal.

    Returns:
        JSON record: the report, the settings, ``folder``, ``weights`` and the MLflow run.

    Raises:
        ValueError: For a job that cannot be built, and fewer than one process.
        PenstockError: When the data is not there.
    """
    if nproc < 1:
        raise ValueError(f"nproc must be at least 1, got {nproc}")
    path = Path(data).resolve() if data else None
    key = training.identity(module, path, changes or {})
    name = module.replace(":", ".")
    place = Path(folder).resolve() if folder else get_settings().home / "training" / f"{name}-{key}"
    request = RunRequest(
        dataset=name,
        name=f"train {name}",
        params={"module": module, "data": data, "nproc": nproc, "changes": changes or {}},
        tags={"job_key": key},
        resume=unfinished_run(name, key),
    )
    with tracked_run(request) as run:
        wanted = TrainingRequest(
            module=module,
            data=str(path or ""),
            changes=changes or {},
            folder=str(place),
            run_id=run.run_id,
            profile=profile,
            hang_seconds=hang_seconds,
        )
        record = train_in_processes(wanted, nproc, shown=shown, grace_seconds=grace_seconds)
        record |= {
            "module": module,
            "folder": str(place),
            "weights": str(place / training.WEIGHTS),
            "run_id": run.run_id,
            "run_page": run.page,
        }
        _log(run, record)
        publish_own_training(record)
    return record


@task(name="train")
def train_in_processes(
    request: TrainingRequest, processes: int, *, shown: bool, grace_seconds: float
) -> Record:
    """Train; what failed once fails again, so nothing is tried twice."""
    return training.train(request, processes, shown=shown, grace_seconds=grace_seconds)


def _log(run: TrackedRun, record: Record) -> None:
    run.log_params({"config": record["config"]})
    figures = {
        "seconds": record["cost"]["seconds"],
        "cpu_seconds": record["cost"]["cpu_seconds"],
        "skipped_steps": record["skipped"],
        "checkpoint_seconds": record["checkpoint_seconds"],
    }
    known = {"best": record["best"], "energy_wh": record["cost"]["energy_wh"]}
    known["price"] = record["cost"]["price"]
    run.log_metrics(figures | {k: v for k, v in known.items() if v is not None})
    for name in (training.WEIGHTS, training.REPORT):
        run.log_file(Path(record["folder"]) / name)
