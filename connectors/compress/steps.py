"""Compression as Prefect tasks: cached by inputs, with time limits."""

from __future__ import annotations

import logging
from pathlib import Path

from prefect import task

from tasks.steps import HOUR, Record, at, cached_step
from tasks.workspace import fill

logger = logging.getLogger(__name__)


@task(name="look at model and data", timeout_seconds=HOUR)
def look_at_model(model: str, data: str, options: Record) -> Record:
    """Return what a model and its data are: what every later key is made of."""
    from connectors.defects.models import model_at
    from connectors.files import digest
    from connectors.tracking import git_commit
    from kernels.bundle.folder import bundle_digest
    from tasks.workspace import source_digest

    found = model_at(model)
    if found.is_dir():
        from connectors.defects.steps import options_of
        from connectors.defects.training import opened

        with opened(Path(data), options_of(options)) as dataset:
            digests = {"model": bundle_digest(found), "data": dataset.digest}
    else:
        digests = {"model": digest(found), "data": digest(Path(data))}
    return {
        "path": str(found.resolve()),
        "data": str(Path(data).resolve()),
        "digests": digests,
        "source": source_digest(),
        "git_commit": git_commit(),
    }


@cached_step("compress", timeout=4 * HOUR, retries=0)
def compress(
    place: str,
    *,
    model: str,
    data: str,
    device: str,
    budget: Record,
    minutes: float,
    options: Record,
) -> Record:
    """Plan, carry out, judge and write."""
    from connectors.compress.job import compress_job

    return fill(
        at(place),
        lambda draft: compress_job(
            draft,
            model=Path(model),
            data=Path(data),
            device=device,
            budget=budget,
            minutes=minutes,
            options=options,
            say=logger.info,
        ),
    )


@task(name="register compressed model", timeout_seconds=HOUR)
def register_compressed(
    *, bundle: str | None, file: str, name: str, run_id: str, taken: Record
) -> Record:
    """Publish what was taken as a version of a registered model, with its loss as tags.

    No alias moves: ``penstock defects train`` and the registry's page promote.

    Args:
        bundle: Of an inspection model, a version of its line's model; None: the file by itself.
        file: The compressed ONNX file.
        name: Of the model that a file becomes.
        run_id: Run that made it.
        taken: Record of the trial.
    """
    tags = {
        "compressed": taken["name"],
        "loss": f"{taken['loss']:+.5f}",
        "loss_interval": f"{taken['loss_low']:+.5f} {taken['loss_high']:+.5f}",
        "smaller": f"{taken['smaller']:.3f}",
        "faster": f"{taken['faster']:.3f}",
    }
    if bundle is None:
        from connectors.onnx_registry import publish_onnx

        version = publish_onnx(Path(file), name, run_id=run_id, tags=tags)
    else:
        from connectors.defects.models import inspection_registry
        from tasks.defects.bundle.bundle import DefectBundle

        registry = inspection_registry()
        version = registry.publish(DefectBundle.load(Path(bundle)), run_id=run_id)
        registry.tag(version, tags)
    logger.info("registered as version %s of %s", version.version, version.name)
    return {"name": version.name, "version": version.version}
