"""The stage of a training that fits a detector of boxes, where a folder's labels carry one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from connectors.defects.options import DatasetOptions
from connectors.defects.training import grouped, opened, shown_role
from tasks.defects.boxes.config import FILES
from tasks.defects.plan import plan_roles

if TYPE_CHECKING:
    from connectors.defects.dataset import Dataset
    from tasks.defects.boxes.detector import BoxDetector
    from tasks.defects.judgement import Judgement
    from tasks.defects.samples import Sample
    from tasks.defects.training import TrainingConfig


def fit_boxes_of_folder(
    folder: Path,
    draft: Path,
    config: TrainingConfig,
    options: DatasetOptions | None = None,
) -> dict[str, Any]:
    """Fit a detector of boxes, unless the labels do not carry one.

    It learns from all labelled parts but those that figures are told of. Those that set the
    thresholds are among them: boxes never change a score, so the promise stays as it is.

    Args:
        folder: The images.
        draft: Where `FILES` are written.
        config: How.
        options: What the person says of the folder.

    Returns:
        JSON record: ``fitted``, ``reason`` why the labels do not carry one, provenance of the fit.

    Raises:
        DetectError: It was asked for, and nothing carries it.
    """
    from tasks.defects.boxes.fit import fit_boxes
    from tasks.defects.boxes.labelled import drawn, spread
    from tasks.defects.detect.config import DetectError

    if config.boxes.fit is False:
        return {"fitted": False, "reason": ""}
    with opened(folder, options) as dataset:
        roles = plan_roles(dataset.frame, config.promise, config.plan)
        shown = shown_role(dataset, roles)
        marked, good = _marked_and_good(dataset, roles.filter(pl.col("split") != shown)["name"])
        names = marked + spread(good, len(marked) // 2)
        chosen = drawn(grouped(dataset, names), config.boxes)
        if not chosen.samples:
            if config.boxes.fit:
                raise DetectError(f"no detector of boxes: {chosen.reason}, or leave it out")
            return {"fitted": False, "reason": chosen.reason}
        detector = fit_boxes(chosen.samples, config.boxes.detector)
    for name, content in detector.to_bytes().items():
        (draft / name).write_bytes(content)
    provenance = {**detector.provenance, "left_aside": chosen.left_aside}
    return {"fitted": True, "reason": "", "provenance": provenance}


def read_boxes(folder: Path) -> BoxDetector | None:
    """Return the detector that a folder of `fit_boxes_of_folder` holds, None for none."""
    from tasks.defects.boxes.detector import BoxDetector

    files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
    return BoxDetector.from_bytes(files) if files else None


def drawn_boxes(
    detector: BoxDetector, samples: Sequence[Sample], judged: Sequence[Judgement]
) -> tuple[list[Judgement], dict[str, Any]]:
    """Return judgements with their boxes drawn, and figures of `box_figures`.

    Args:
        detector: Of boxes.
        samples: That it was not fitted to.
        judged: One each, with the contours of the heat map as boxes.
    """
    from tasks.defects.boxes.figures import box_figures
    from tasks.defects.boxes.verdict import boxed

    found = [detector.judge([sample.pixels])[0] for sample in samples]
    contours = [said.boxes for said in judged]
    told, kinds = detector.config.told, detector.scorer.shape.kinds
    figures = box_figures(samples, found, contours, kinds, told)
    return [boxed(*pair, told) for pair in zip(judged, found, strict=True)], figures


def _marked_and_good(dataset: Dataset, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the names of defective images with boxes or masks, and of good ones; none decoded."""
    by_name = {record.file.name: record for record in dataset.samples.records}
    known = [by_name[name] for name in names]
    marked = [one for one in known if one.label == "ng" and (one.boxes or one.mask is not None)]
    good = [one for one in known if one.label == "ok"]
    return [one.file.name for one in marked], [one.file.name for one in good]
