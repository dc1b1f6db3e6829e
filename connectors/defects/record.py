"""What a training leaves for people: the audit page, its plots and example pictures as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from connectors.defects.dataset import Dataset
from connectors.defects.pictures import heat_picture, picture, sheet
from tasks.defects.bundle.bundle import DefectBundle
from tasks.defects.judgement import Judgement
from tasks.defects.promise.thresholds import Promised
from tasks.defects.samples import Sample

if TYPE_CHECKING:
    from tasks.defects.audit.record import AuditInputs
    from tasks.defects.training import TrainingConfig

AUDIT, FIGURES, PICTURES = "audit.html", "figures", "pictures"


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What is told of a detector.

    Attributes:
        dataset: The folder.
        role: What the samples were held out for.
        samples: Labelled, good and defective ones.
        judged: One each.
        promised: The thresholds.
        types: Of `type_figures`, empty without types.
        edge: Of `tasks.defects.training.edge_words`.
        boxes: Of `box_figures`, empty without a detector of boxes.
    """

    dataset: Dataset
    role: str
    samples: Sequence[Sample]
    judged: Sequence[Judgement]
    promised: Promised
    types: Mapping[str, Any]
    edge: str
    boxes: Mapping[str, Any]


def write_record(draft: Path, bundle: DefectBundle, told: Told, config: TrainingConfig) -> None:
    """Write `AUDIT`, plots as SVG into `FIGURES` and sheets of examples as PNG into `PICTURES`."""
    from tasks.defects.audit.examples import examples
    from tasks.defects.audit.page import build_record, plots
    from tasks.defects.audit.plots import document

    inputs = _inputs(bundle, told, config)
    (draft / AUDIT).write_text(build_record(inputs), encoding="utf-8")
    for folder in (FIGURES, PICTURES):
        (draft / folder).mkdir()
    for drawing in plots(inputs):
        text = document(drawing)
        (draft / FIGURES / f"{drawing.key}.svg").write_text(text, encoding="utf-8")
    for name, places in examples(inputs.tested, told.promised.thresholds).items():
        shown = [(told.samples[i], told.judged[i]) for i in places]
        (draft / PICTURES / f"{name}.png").write_bytes(sheet(shown))


def _inputs(bundle: DefectBundle, told: Told, config: TrainingConfig) -> AuditInputs:
    from tasks.defects.audit.record import AuditInputs, Judged, Pictures

    judged = told.judged

    def draw(place: int) -> Pictures:
        pixels = told.samples[place].pixels
        return Pictures(picture(pixels), heat_picture(judged[place], pixels))

    scores = np.array([one.score for one in judged])
    named = [one.kind for one in judged]
    tested = Judged(told.samples, scores, named, [one.like for one in judged])
    notes = [told.edge, f"Costs are {config.costs.words()}."]
    if told.role == "calibration":
        notes.append(
            "There are too few parts for a test of their own: figures are of the calibration "
            "parts, whose scores set the thresholds. Error rates are therefore flattered."
        )
    return AuditInputs(
        _facts(bundle, told.dataset, config),
        tested,
        told.promised,
        cost=config.costs.model(*tested.sides()),
        draw=draw,
        notes=notes,
        types=told.types,
        boxes=told.boxes,
    )


def _facts(bundle: DefectBundle, dataset: Dataset, config: TrainingConfig) -> Any:
    from tasks.defects.audit.record import Facts

    counts = bundle.images.group_by("role").agg(
        pl.len().alias("images"), pl.col("part").n_unique().alias("parts")
    )
    return Facts(
        title=bundle.manifest.dataset,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        data=dataset.folder.name,
        data_sha256=dataset.digest,
        model_sha256=bundle.digest,
        split="Parts were shared out by group; none is in two of training, calibration and test.",
        counts={r: f"{n} images of {p} parts" for r, n, p in counts.sort("role").iter_rows()},
        seeds={"split": config.plan.seed, "training": config.detect.seed},
        config={name: str(value) for name, value in asdict(config.detect).items()},
        environment={name: version(name) for name in ("torch", "onnxruntime", "numpy")},
    )
