"""The flow that trains, judges, exports, registers and promotes an inspection model.

    penstock defects train FOLDER --line casting

Every step keeps its result under a hash of its inputs, so a run that was killed is continued by
starting it again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow

from connectors.defects import steps
from connectors.defects.comparison import InspectionRules
from connectors.defects.record import AUDIT
from connectors.defects.tracking import log_training
from connectors.defects.training import BUNDLE
from connectors.tracking import RunRequest, TrackedRun, tracked_run, unfinished_run
from flows.artifacts import publish_inspection_training
from infra.settings import get_settings
from tasks.workspace import place_of

Record = dict[str, Any]


@flow(name="train-defects", timeout_seconds=8 * 3_600, validate_parameters=True)
def train_defects(
    folder: str,
    line: str = "",
    settings: Record | None = None,
    options: Record | None = None,
    *,
    promote: bool = True,
    margin: float = 0.0,
) -> Record:
    """Train an inspection model on a folder of images.

    Args:
        folder: Good images, and none, a few or many defective ones.
        line: Name of the line; empty: that of the folder.
        settings: Of the fit, the split, the promise, the boxes and more: ``{"detect": ..., "plan":
            ..., "promise": ..., "boxes": ...}``.
        options: How the folder is read (fields of ``DatasetOptions``).
        promote: Publish the model and let it serve if it deserves to.
        margin: AUROC by which it must beat the champion beyond doubt.

    Returns:
        JSON record: figures, promise, folders, promotion, run.
    """
    InspectionRules(margin)  # refused now, not after an hour of training
    settings, options = settings or {}, options or {}
    steps.config_of(settings)
    home = get_settings().home
    name = line or Path(folder).resolve().name
    seen = steps.look_at_images(folder, options)
    key = {"digest": seen["digest"], "source": seen["source"], "settings": settings}
    key |= {"options": {k: str(v) for k, v in options.items()}, "line": name}
    job = str(place_of(home / "work", "inspection", key).key)
    request = RunRequest(
        dataset=name,
        name=f"train {Path(folder).name}",
        data_digest=seen["digest"],
        params={"folder": Path(folder).name, "settings": settings, "margin": margin},
        tags={"job_key": job},
        git_commit=seen["git_commit"],
        resume=unfinished_run(name, job),
    )
    with tracked_run(request) as run:
        record = _train(home, seen, key, {"settings": settings, "options": options}, run)
        record |= {"line": name, "run_id": run.run_id, "run_page": run.page, "promotion": None}
        if promote:
            record["promotion"] = steps.promote_inspection(
                bundle=record["bundle"],
                folder=seen["folder"],
                options=options,
                cache=str(home / "models"),
                run_id=run.run_id,
                margin=margin,
            )
            run.set_tags({"promotion": record["promotion"]["reason"]})
        publish_inspection_training(record)
    return record


def _train(home: Path, seen: Record, key: Record, shared: Record, run: TrackedRun) -> Record:
    """Run the steps from the folder to the bundle."""
    began = time.perf_counter()
    run.log_dataset(key["line"], seen["digest"], seen["images"], Path(seen["folder"]))

    def of(names: tuple[str, ...]) -> Record:
        return {name: value for name, value in shared["settings"].items() if name in names}

    # First, since it says within seconds if it was asked for and nothing carries it.
    boxes = steps.fit_box_detector(
        str(place_of(home / "work", "boxes", key | {"settings": of(steps.OF_BOXES)}).folder),
        folder=seen["folder"],
        **shared | {"settings": of(steps.OF_BOXES)},
    )
    fitted = steps.fit_detector(
        str(place_of(home / "work", "fitted", key | {"settings": of(steps.OF_FIT)}).folder),
        folder=seen["folder"],
        **shared | {"settings": of(steps.OF_FIT)},
    )
    finished = steps.finish_detector(
        str(place_of(home / "work", "inspection", key).folder),
        folder=seen["folder"],
        fitted=fitted["folder"],
        boxes=boxes["folder"],
        line=key["line"],
        git_commit=seen["git_commit"],
        **shared,
    )
    place = Path(finished["folder"])
    log_training(run, fitted, finished)
    return {
        "fitted": fitted,
        "boxes": boxes,
        "finished": finished,
        "bundle": str(place / BUNDLE),
        "audit": str(place / AUDIT) if finished["audit"] else "",
        "seconds": time.perf_counter() - began,
    }
