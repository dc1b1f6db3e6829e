"""A folder of images made a detector: two stages on disk, each finished or absent.

The first fits, the second sets thresholds on held-out parts, writes edge file, bundle and record.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from connectors.defects.dataset import Dataset
from connectors.defects.folders import load_dataset
from connectors.defects.inspect.heat_map import heat_png
from connectors.defects.options import DatasetOptions
from connectors.files import write_table
from tasks.defects.bundle.parts import BundleParts, Role, digest_of, example_of
from tasks.defects.plan import plan_roles
from tasks.defects.samples import Sample, rgb
from tasks.defects.training import TrainingConfig

if TYPE_CHECKING:
    from tasks.defects.audit.record import Pictures
    from tasks.defects.bundle.bundle import DefectBundle
    from tasks.defects.edge.format import EdgeFile
    from tasks.defects.judgement import Judgement
    from tasks.defects.promise.thresholds import Promised

ROLES, QUARANTINE, BUNDLE, AUDIT, JUDGED = (
    "roles.csv",
    "quarantine.parquet",
    "bundle",
    "audit.html",
    "judged.csv",
)
MOST_EXPORTED = 64
"""Images that int8 ranges are measured on, and as many that prove it."""
SHOWN_SIDE = 256


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from, as its bundle says.

    Attributes:
        line: Name of the line.
        git_commit: Code that trained.
    """

    line: str
    git_commit: str


@contextmanager
def opened(folder: Path, options: DatasetOptions | None = None) -> Iterator[Dataset]:
    """Load a folder's dataset; its worker ends with the block."""
    dataset = load_dataset(folder, options)
    try:
        yield dataset
    finally:
        dataset.close()


def fit_folder(
    folder: Path, draft: Path, config: TrainingConfig, options: DatasetOptions | None = None
) -> dict[str, Any]:
    """Check a folder, plan what each image is used for, and fit a detector.

    Args:
        folder: Images, with labels in one of the layouts of docs/reference/defects-data.
        draft: Where detector, roles and quarantine are written.
        config: How.
        options: What the person says of the folder.

    Returns:
        JSON record: counts, findings, digest, provenance.
    """
    from tasks.defects.detect.fit import fit

    with opened(folder, options) as dataset:
        roles = plan_roles(dataset.frame, config.promise, config.plan)
        roles.write_csv(draft / ROLES)
        write_table(dataset.quarantine, draft / QUARANTINE)
        chosen = _of_role(dataset, roles, "train")
        if config.detect.self_train:
            unlabelled = dataset.frame.filter(pl.col("label").is_null())["name"]
            chosen += _grouped(dataset, unlabelled.to_list())
        detector = fit(chosen, config.detect)
        for name, content in detector.to_bytes().items():
            (draft / name).write_bytes(content)
        return {
            "data_digest": dataset.digest,
            "rows_in": dataset.rows_in,
            "quarantined": dataset.quarantine.num_rows,
            "findings": list(dataset.findings),
            "labels": _counted(dataset.frame, "label"),
            "kinds": _counted(dataset.frame.filter(pl.col("label") == "ng"), "kind"),
            "roles": _counted(roles, "split"),
            "provenance": dict(detector.provenance),
        }


def finish_folder(
    folder: Path,
    fitted: Path,
    draft: Path,
    config: TrainingConfig,
    origin: Origin,
    options: DatasetOptions | None = None,
) -> dict[str, Any]:
    """Set the thresholds on held-out parts, judge the test, write edge file, bundle and record.

    Args:
        folder: The same images.
        fitted: What `fit_folder` wrote.
        draft: Where bundle, record and judgements are written.
        config: The same settings.
        origin: For the bundle.
        options: What the person says of the folder.

    Returns:
        JSON record: digest of the bundle, figures, promise in words, paths within ``draft``.
    """
    from tasks.defects import training
    from tasks.defects.bundle.bundle import write_bundle
    from tasks.defects.detect.detector import FACTS, WEIGHTS, Detector

    files = {name: (fitted / name).read_bytes() for name in (WEIGHTS, FACTS)}
    detector = Detector.from_bytes(files)
    roles = pl.read_csv(fitted / ROLES)
    with opened(folder, options) as dataset:
        held = {role: _of_role(dataset, roles, role) for role in ("calibration", "test")}
        judged = {role: training.judge(detector, samples) for role, samples in held.items()}
        promised = training.settle(
            held["calibration"], [one.score for one in judged["calibration"]], config.promise
        )
        detector = training.with_thresholds(detector, promised)
        train = _of_role(dataset, roles, "train")
        proof = [sample.pixels for sample in [*held["test"], *held["calibration"]]]
        edge = training.export(
            detector,
            promised,
            [sample.pixels for sample in train[:: max(1, len(train) // MOST_EXPORTED)]],
            proof[:MOST_EXPORTED],
            config.edge,
        )
        shown = "test" if _both(held["test"]) else "calibration"
        found = {
            role: training.figures(held[role], judged[role], promised)
            for role in held
            if held[role]
        }
        written = detector.to_bytes()
        parts = BundleParts(
            dataset=origin.line,
            data_digest=dataset.digest,
            git_commit=origin.git_commit,
            edge=edge.model,
            parity=json.loads(edge.record.to_json()),
            detector=written[WEIGHTS],
            detector_facts=json.loads(written[FACTS]),
            thresholds=training.promise_record(promised),
            metrics=found,
            images=_images(dataset, roles),
            example=example_of(proof),
            card=_card(origin, promised, found),
        )
        bundle = write_bundle(draft / BUNDLE, parts)
        _judgements(held, judged, promised).write_csv(draft / JUDGED)
        if _both(held[shown]):
            audit = _audit(bundle, dataset, held[shown], judged[shown], promised, shown, config)
            (draft / AUDIT).write_text(audit, encoding="utf-8")
    return {
        "digest": bundle.digest,
        "figures": found,
        "shown": shown,
        "thresholds": training.promise_record(promised),
        "edge": _edge_facts(edge),
        "audit": (draft / AUDIT).is_file(),
    }


def _of_role(dataset: Dataset, roles: pl.DataFrame, role: str) -> list[Sample]:
    return _grouped(dataset, roles.filter(pl.col("split") == role)["name"].to_list())


def _grouped(dataset: Dataset, names: Sequence[str]) -> list[Sample]:
    """Return samples whose part is their group: near-copies count as one part, too."""
    groups = dict(dataset.frame.select("name", "group").iter_rows())
    return [
        replace(sample, part=f"group {groups[sample.name]}") for sample in dataset.subset(names)
    ]


def _both(samples: Sequence[Sample]) -> bool:
    return {sample.label for sample in samples} >= {"ok", "ng"}


def _counted(frame: pl.DataFrame, column: str) -> dict[str, int]:
    counts = frame[column].fill_null("unlabelled").value_counts().sort(column)
    return {str(name): int(number) for name, number in counts.iter_rows()}


def _images(dataset: Dataset, roles: pl.DataFrame) -> pl.DataFrame:
    groups = dict(dataset.frame.select("name", "group").iter_rows())
    rows: list[tuple[str, str, str, Role]] = []
    for name, role in roles.select("name", "split").iter_rows():
        sample = dataset.subset([name])[0]
        rows.append((name, digest_of(sample.pixels), f"group {groups[name]}", role))
    columns = ("image", "digest", "part", "role")
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def _judgements(
    held: Mapping[str, Sequence[Sample]],
    judged: Mapping[str, Sequence[Judgement]],
    promised: Promised,
) -> pl.DataFrame:
    """Return what was said of every held-out image."""
    rows = [
        {
            "image": sample.name,
            "role": role,
            "label": sample.label,
            "kind": sample.kind,
            "score": judgement.score,
            "verdict": promised.thresholds.verdict(judgement.score),
            "named": judgement.kind,
        }
        for role in held
        for sample, judgement in zip(held[role], judged[role], strict=True)
    ]
    return pl.DataFrame(rows)


def _audit(
    bundle: DefectBundle,
    dataset: Dataset,
    samples: Sequence[Sample],
    judged: Sequence[Judgement],
    promised: Promised,
    role: str,
    config: TrainingConfig,
) -> str:
    from tasks.defects.audit.page import build_record
    from tasks.defects.audit.record import AuditInputs, Facts, Judged, Pictures

    def draw(place: int) -> Pictures:
        pixels = samples[place].pixels
        return Pictures(_png(pixels), heat_png(judged[place].heat, pixels))

    counts = bundle.images.group_by("role").agg(
        pl.len().alias("images"), pl.col("part").n_unique().alias("parts")
    )
    facts = Facts(
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
    named = [judgement.kind for judgement in judged]
    notes = []
    if role == "calibration":
        notes.append(
            "There are too few parts for a test of their own: figures are of the calibration "
            "parts, whose scores set the thresholds. Error rates are therefore flattered."
        )
    tested = Judged(samples, np.array([one.score for one in judged]), named)
    return build_record(AuditInputs(facts, tested, promised, draw=draw, notes=notes))


def _png(pixels: Any) -> bytes:
    from PIL import Image

    image = Image.fromarray(rgb(pixels))
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    held = io.BytesIO()
    image.save(held, "PNG")
    return held.getvalue()


def _edge_facts(edge: EdgeFile) -> dict[str, Any]:
    return {"bytes": len(edge.model), "record": json.loads(edge.record.to_json())["facts"]}


def _card(origin: Origin, promised: Promised, found: Mapping[str, Any]) -> str:
    from tasks.defects.promise.words import assumptions, sentences

    lines = [f"# Inspection model of {origin.line}", "", "## Promise", *sentences(promised), ""]
    lines += ["It holds only while:", *(f"- {one}" for one in assumptions(promised)), ""]
    lines += ["## Figures on held-out parts"]
    for role, each in found.items():
        area = f"AUROC {each['auroc']:.3f}" if "auroc" in each else "one class only"
        lines.append(
            f"- {role}: {each['ok_parts']} good, {each['ng_parts']} defective parts, {area}"
        )
    lines += ["", f"Code: {origin.git_commit}. What each image was used for: images.csv."]
    return "\n".join(lines) + "\n"
