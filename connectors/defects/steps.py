"""Training and inspection as Prefect tasks: cached by inputs, retried, with time limits."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from tasks.steps import HOUR, Record, at, cached_step
from tasks.workspace import fill

if TYPE_CHECKING:
    from connectors.defects.options import DatasetOptions
    from tasks.defects.training import TrainingConfig

logger = logging.getLogger(__name__)
OF_FIT = ("detect", "plan", "promise")
"""Settings that the fit depends on; with others changed it is not done again."""
OF_BOXES = ("plan", "promise", "boxes")
"""Settings that the detector of boxes depends on, likewise."""


def config_of(settings: Record) -> TrainingConfig:
    """Return the training settings of a JSON record.

    Raises:
        ValueError: An unknown or impossible setting; names it.
    """
    from kernels.compression.mixed import MixedConfig
    from kernels.compression.qdq import QdqConfig
    from tasks.defects.boxes.config import BoxConfig
    from tasks.defects.boxes.labelled import BoxesConfig
    from tasks.defects.classify.fit import TypesConfig
    from tasks.defects.classify.self_training import SelfTrainingConfig
    from tasks.defects.detect.config import DetectConfig
    from tasks.defects.edge.build import EdgeConfig
    from tasks.defects.plan import PlanConfig
    from tasks.defects.promise.thresholds import Promise
    from tasks.defects.training import CostConfig, TrainingConfig

    def edge(
        qdq: Record | None = None, four_bits: Record | None = None, **values: Any
    ) -> EdgeConfig:
        fewer = None if four_bits is None else MixedConfig(**four_bits)
        return EdgeConfig(qdq=QdqConfig(**(qdq or {})), four_bits=fewer, **values)

    def types(self_training: Record | None = None, **values: Any) -> TypesConfig:
        return TypesConfig(self_training=SelfTrainingConfig(**(self_training or {})), **values)

    def boxes(detector: Record | None = None, **values: Any) -> BoxesConfig:
        return BoxesConfig(detector=BoxConfig(**(detector or {})), **values)

    known: dict[str, Callable[..., Any]] = {
        "detect": DetectConfig,
        "plan": PlanConfig,
        "promise": Promise,
        "edge": edge,
        "types": types,
        "boxes": boxes,
        "costs": CostConfig,
    }
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"unknown settings {', '.join(unknown)}; there are {', '.join(known)}")
    try:
        made = {name: known[name](**values) for name, values in settings.items()}
    except TypeError as error:
        raise ValueError(f"a setting is unknown: {error}") from error
    return TrainingConfig(**made)


def options_of(values: Record) -> DatasetOptions:
    """Return how a folder is read, of a JSON record."""
    from connectors.defects.options import DatasetOptions

    paths = {name: Path(values[name]) for name in ("index", "parts") if values.get(name)}
    return DatasetOptions(**{**values, **paths})


@task(name="look at images", timeout_seconds=HOUR)
def look_at_images(folder: str, options: Record) -> Record:
    """Return the digest of a folder's content: what every later key is made of."""
    from connectors.defects.training import opened
    from connectors.tracking import git_commit
    from tasks.workspace import source_digest

    with opened(Path(folder), options_of(options)) as dataset:
        return {
            "folder": str(Path(folder).resolve()),
            "digest": dataset.digest,
            "images": dataset.frame.height,
            "source": source_digest(),
            "git_commit": git_commit(),
        }


@cached_step("fit detector", timeout=4 * HOUR)
def fit_detector(place: str, *, folder: str, settings: Record, options: Record) -> Record:
    """Check the images, plan what each is used for, and fit."""
    from connectors.defects.training import fit_folder

    return fill(
        at(place),
        lambda draft: fit_folder(Path(folder), draft, config_of(settings), options_of(options)),
    )


@cached_step("fit boxes", timeout=4 * HOUR)
def fit_box_detector(place: str, *, folder: str, settings: Record, options: Record) -> Record:
    """Fit a detector of boxes, where the labels carry one."""
    from connectors.defects.box_training import fit_boxes_of_folder

    def work(draft: Path) -> Record:
        return fit_boxes_of_folder(Path(folder), draft, config_of(settings), options_of(options))

    return fill(at(place), work)


@cached_step("finish detector", timeout=4 * HOUR)
def finish_detector(
    place: str,
    *,
    folder: str,
    fitted: str,
    boxes: str,
    settings: Record,
    options: Record,
    line: str,
    git_commit: str,
) -> Record:
    """Set thresholds, judge the test, write edge file, bundle and record."""
    from connectors.defects.training import Origin, finish_folder

    return fill(
        at(place),
        lambda draft: finish_folder(
            Path(folder),
            Path(fitted),
            draft,
            config_of(settings),
            Origin(line, git_commit),
            options_of(options),
            Path(boxes),
        ),
    )


@task(name="promote inspection model", timeout_seconds=HOUR)
def promote_inspection(
    *, bundle: str, folder: str, options: Record, cache: str, run_id: str, margin: float = 0.0
) -> Record:
    """Publish the bundle, compare it with the champion and let the better one serve.

    A failed promotion fails the step; the former champion serves on.
    """
    from connectors.defects.comparison import InspectionRules, on_parts
    from connectors.defects.models import inspection_registry
    from connectors.defects.training import opened
    from connectors.promotion import promote
    from tasks.defects.bundle.bundle import DefectBundle

    with opened(Path(folder), options_of(options)) as dataset:
        outcome = promote(
            inspection_registry(),
            DefectBundle.load(Path(bundle)),
            on_parts(dataset.samples, InspectionRules(margin)),
            cache=Path(cache),
            run_id=run_id,
        )
    logger.info("%s: %s", "promoted" if outcome.promoted else "not promoted", outcome.reason)
    record: Record = json.loads(json.dumps(outcome.to_dict()))
    return record


@task(name="inspect images", timeout_seconds=4 * HOUR)
def inspect_images(folder: str, out: str, model: str, sinks: list[str]) -> dict[str, Any]:
    """Judge the images of a folder that were not judged yet.

    Args:
        folder: Images.
        out: Folder of the run.
        model: An edge file, a bundle's folder, or ``registry:LINE``.
        sinks: Where results go beside the run's own file.

    Returns:
        JSON record: counts, what was sent, paths.
    """
    from connectors.defects.inspect.inspector import open_inspector
    from connectors.defects.inspect.run import RESULTS, RunConfig, inspect_folder
    from connectors.defects.models import model_at

    run = inspect_folder(
        Path(folder), Path(out), open_inspector(model_at(model)), RunConfig(sinks=tuple(sinks))
    )
    return {
        "source": Path(folder).name,
        "counts": dict(run.counts),
        "sent_share": run.report.sent_share,
        "alarms": [f"{a['image']}: {a['message']}" for a in (run.watch.new if run.watch else ())],
        "results": str(Path(out) / RESULTS),
    }
