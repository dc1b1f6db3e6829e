"""The flow that makes a trained model small and fast for a device, and registers it.

penstock compress run MODEL --data FOLDER --device box-2gb --smaller 3.6 --faster 2.5
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow

from connectors.compress import steps
from connectors.compress.job import (
    BUNDLE,
    LAYERS,
    MODEL,
    OUTCOME,
    PAGE,
    PICTURE,
    PLAN,
    budget_of,
)
from connectors.onnx_registry import check_name
from connectors.tracking import RunRequest, tracked_run
from infra.settings import get_settings
from tasks.compress.device import device_named
from tasks.compress.record import figures_of
from tasks.workspace import place_of

Record = dict[str, Any]


@flow(name="compress-model", timeout_seconds=4 * 3_600, validate_parameters=True)
def compress_model(
    model: str,
    data: str,
    device: str,
    budget: Record | None = None,
    options: Record | None = None,
    *,
    minutes: float = 15.0,
    publish: bool = True,
    name: str = "",
) -> Record:
    """Compress a model for a device within a budget.

    Args:
        model: Folder of an inspection bundle, ``registry:LINE``, or an ONNX file.
        data: Images that the bundle was made of; for a file, ``.npz`` of examples.
        device: Name of a device, such as ``box-2gb``.
        budget: Fields of `tasks.compress.budget.Budget`.
        options: How a folder of images is read.
        minutes: After which no further recipe is begun.
        publish: Register what was taken: of an inspection model a version of it, of a file a
            model of its own.
        name: Of the registered model that a file becomes; empty: that of the file.

    Returns:
        JSON record: plan, outcome, paths, registered version, run.
    """
    budget, options = budget or {}, options or {}
    device_named(device)  # refused now, not after the data were read
    budget_of(budget)
    name = name or Path(model).stem
    if publish and Path(model).suffix == ".onnx":
        check_name(name)
    seen = steps.look_at_model(model, data, options)
    key = {"digests": seen["digests"], "source": seen["source"], "device": device}
    key |= {"budget": budget, "minutes": minutes}
    request = RunRequest(
        dataset=Path(seen["path"]).stem,
        name=f"compress for {device}",
        data_digest=seen["digests"]["data"],
        params={"device": device, "budget": budget, "model": seen["digests"]["model"]},
        tags={"job_key": json.dumps(key, sort_keys=True)[:200]},
        git_commit=seen["git_commit"],
    )
    with tracked_run(request) as run:
        made = steps.compress(
            str(place_of(get_settings().home / "work", "compress", key).folder),
            model=seen["path"],
            data=seen["data"],
            device=device,
            budget=budget,
            minutes=minutes,
            options=options,
        )
        folder = Path(made["folder"])
        run.log_metrics(figures_of(made["outcome"]))
        for file in (PLAN, OUTCOME, PAGE, PICTURE, LAYERS):
            run.log_file(folder / file)
        record: Record = made | {"run_page": run.page, "model": str(folder / MODEL)}
        record |= {"page": str(folder / PAGE), "registered": None}
        record["bundle"] = str(folder / BUNDLE) if made["bundle"] else None
        if publish:
            record["registered"] = steps.register_compressed(
                bundle=record["bundle"],
                file=record["model"],
                name=name,
                run_id=run.run_id,
                taken=next(one for one in made["outcome"]["trials"] if one["taken"]),
            )
    return record
