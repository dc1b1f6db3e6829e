"""The flow that judges the images of a folder that were not judged yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from connectors.defects.steps import inspect_images
from flows.artifacts import publish_inspection


@flow(name="inspect-batch", timeout_seconds=5 * 3_600, validate_parameters=True)
def inspect_batch(
    folder: str, model: str, out: str = "", sinks: list[str] | None = None
) -> dict[str, Any]:
    """Judge a folder; images that were judged before are left out.

    Args:
        folder: Images.
        model: An edge file, a bundle's folder, or ``registry:LINE`` for the serving model.
        out: Folder of the run; beside the images if left out.
        sinks: Where results go beside the run's own file, as `penstock defects inspect --sink`.

    Returns:
        JSON record: counts by verdict, share sent for review, alarms of the watch, paths.
    """
    place = out or str(Path(folder).resolve().with_name(f"{Path(folder).resolve().name}.inspected"))
    record: dict[str, Any] = inspect_images(folder, place, model, list(sinks or ()))
    publish_inspection(record)
    return record
