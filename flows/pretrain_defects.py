"""The flow that builds the shipped weights of the inspection, from generated images alone.

    penstock defects pretrain --out defect_net.safetensors

A run that was killed is continued by starting it again: its folder is named by the recipe and the
sources that draw the images.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, task

from connectors.files import atomic_path
from connectors.tracking import RunRequest, TrackedRun, tracked_run, unfinished_run
from flows.artifacts import publish_own_training
from infra.settings import get_settings

if TYPE_CHECKING:
    from kernels.runtime.report import Report
    from tasks.defects.pretrain.recipe import PretrainConfig

Record = dict[str, Any]
NAME = "pretrain-defects"
WEIGHTS = "defect_net.safetensors"


@flow(name=NAME, timeout_seconds=24 * 3_600, validate_parameters=True)
def pretrain_defects(
    changes: Record | None = None, *, out: str = "", folder: str = "", shown: bool = False
) -> Record:
    """Train the small net on generated surfaces and pack its weights.

    Args:
        changes: Settings of `PretrainConfig` by name, e.g. ``{"steps": 200}``.
        out: File of the weights; empty: ``defect_net.safetensors`` in the folder.
        folder: Checkpoints; empty: in the home folder, by the recipe.
        shown: Draw a progress bar on the terminal.

    Returns:
        JSON record: the report, the recipe, ``weights``, their ``digest`` and the MLflow run.

    Raises:
        ValueError: For a setting that is not there or does not fit.
    """
    from tasks.defects.pretrain.recipe import with_changes

    config = with_changes(changes or {})
    key = recipe_key(config)
    place = Path(folder).resolve() if folder else get_settings().home / "training" / f"{NAME}-{key}"
    request = RunRequest(
        dataset=NAME,
        name=NAME,
        params={"recipe": asdict(config)},
        tags={"job_key": key},
        resume=unfinished_run(NAME, key),
    )
    with tracked_run(request) as run:
        report, content = train(config, place, run, shown=shown)
        weights = Path(out).resolve() if out else place / WEIGHTS
        with atomic_path(weights) as draft:
            draft.write_bytes(content)
        record: Record = json.loads(json.dumps(asdict(report), default=str))
        record |= {
            "module": NAME,
            "recipe": asdict(config),
            "folder": str(place),
            "weights": str(weights),
            "digest": hashlib.sha256(content).hexdigest(),
            "run_id": run.run_id,
            "run_page": run.page,
        }
        figures = {"seconds": report.cost.seconds, "megabytes": len(content) / 1e6}
        run.log_metrics(figures)
        run.log_file(weights)
        publish_own_training(record)
    return record


@task(name="pretrain")
def train(
    config: PretrainConfig, place: Path, run: TrackedRun, *, shown: bool
) -> tuple[Report, bytes]:
    """Train from the newest checkpoint on; return the report and the weights' file."""
    from contextlib import ExitStack

    from connectors.tracking import MlflowCallback
    from kernels.runtime.progress import ProgressBar
    from tasks.defects.pretrain.train import pretrain

    with ExitStack() as stack:
        callback = MlflowCallback(run, every=max(50, config.steps // 200))
        stack.callback(callback.close)
        bar = [stack.enter_context(ProgressBar(NAME))] if shown else []
        return pretrain(config, place / "checkpoints", [callback, *bar])


def recipe_key(config: PretrainConfig) -> str:
    """Return a short key of the recipe and of all source that decides what is learnt."""
    import models.defect_net
    import tasks.defects.pretrain
    import tasks.defects.textures

    files = [Path(models.defect_net.__file__)]
    for package in (tasks.defects.pretrain, tasks.defects.textures):
        files += sorted(Path(package.__path__[0]).glob("*.py"))
    found = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()[:16]
