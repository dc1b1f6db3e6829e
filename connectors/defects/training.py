"""A folder of images made a detector: stages on disk, each finished or absent.

One fits, the last sets thresholds on held-out parts, writes edge file, bundle and record; boxes are
learned by a stage of their own (`connectors.defects.box_training`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from connectors.defects.dataset import Dataset
from connectors.defects.folders import load_dataset
from connectors.defects.options import DatasetOptions
from connectors.defects.record import AUDIT, Told, write_record
from connectors.files import write_table
from tasks.defects.bundle.parts import BundleParts, Role, digest_of, example_of
from tasks.defects.classify.pack import packed
from tasks.defects.plan import plan_roles
from tasks.defects.samples import Sample
from tasks.defects.training import TrainingConfig
from tasks.defects.type_figures import type_figures

if TYPE_CHECKING:
    from tasks.defects.classify.found import FoundTypes
    from tasks.defects.detect.detector import Detector
    from tasks.defects.edge.format import EdgeFile
    from tasks.defects.judgement import Judgement
    from tasks.defects.promise.thresholds import Promised

ROLES, QUARANTINE, BUNDLE, JUDGED = "roles.csv", "quarantine.parquet", "bundle", "judged.csv"
LOSSES, LOSS_COLUMNS = "losses.csv", {"step": pl.Int64, "loss": pl.Float64}
MOST_EXPORTED = 64
"""Images that int8 ranges are measured on, and as many that prove it."""
MOST_UNLABELLED = 200
"""Unlabelled images that types may be learned from, if they are found defective."""


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
        draft: Where detector, roles, quarantine and the loss of each step are written.
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
            chosen += grouped(dataset, unlabelled.to_list())
        losses: list[tuple[int, float]] = []
        detector = fit(chosen, config.detect, listen=lambda *step: losses.append(step))
        pl.DataFrame(losses, LOSS_COLUMNS, orient="row").write_csv(draft / LOSSES)
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
    boxes: Path | None = None,
) -> dict[str, Any]:
    """Set the thresholds on held-out parts, judge the test, write edge file, bundle and record.

    Args:
        folder: The same images.
        fitted: What `fit_folder` wrote.
        draft: Where bundle, record, figures and judgements are written.
        config: The same settings.
        origin: For the bundle.
        options: What the person says of the folder.
        boxes: What `fit_boxes_of_folder` wrote, None for no detector of boxes.

    Returns:
        JSON record: digest of the bundle, figures, promise in words, paths within ``draft``.
    """
    from connectors.defects.box_training import drawn_boxes, read_boxes
    from tasks.defects import training
    from tasks.defects.bundle.bundle import write_bundle
    from tasks.defects.detect.detector import FACTS, WEIGHTS, Detector
    from tasks.defects.edge.session import EdgeSession

    files = {name: (fitted / name).read_bytes() for name in (WEIGHTS, FACTS)}
    detector = Detector.from_bytes(files)
    roles = pl.read_csv(fitted / ROLES)
    with opened(folder, options) as dataset:
        held = {role: _of_role(dataset, roles, role) for role in ("calibration", "test")}
        by_detector = training.judge(detector, held["calibration"])
        scores = [one.score for one in by_detector]
        floats = training.settle(held["calibration"], scores, config.promise)
        detector = training.with_thresholds(detector, floats)
        train = _of_role(dataset, roles, "train")
        proof = [sample.pixels for sample in [*held["test"], *held["calibration"]]]
        edge, promised = training.export(
            detector.scorer,
            floats,
            held["calibration"],
            [sample.pixels for sample in train[:: max(1, len(train) // MOST_EXPORTED)]],
            proof[:MOST_EXPORTED],
            replace(config.edge, bits=dataset.bits),
        )
        # From here on everything is told of the file, which is what runs on the line.
        session = EdgeSession(edge.model)
        judged = {role: training.judge(session, samples) for role, samples in held.items()}
        types = _types(detector, train, dataset, config)
        types_facts: dict[str, Any] = {}
        if types is not None:
            judged, types_facts = _named(types, held, judged, promised, train)
        shown = shown_role(dataset, roles)
        box_files: dict[str, bytes] = {}
        box_facts: dict[str, Any] = {}
        if boxes is not None and (box_detector := read_boxes(boxes)) is not None:
            box_files = box_detector.to_bytes()
            judged[shown], box_facts = drawn_boxes(box_detector, held[shown], judged[shown])
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
            types=b"" if types is None else packed(types.classifier),
            types_facts=types_facts,
            boxes=box_files,
            thresholds=training.promise_record(promised, floats),
            metrics=found | ({"boxes": box_facts} if box_facts else {}),
            images=_images(dataset, roles),
            example=example_of(proof),
            card=_card(origin, promised, edge, found, types_facts, box_facts),
        )
        bundle = write_bundle(draft / BUNDLE, parts)
        _judgements(held, judged, promised).write_csv(draft / JUDGED)
        if _both(held[shown]):
            words, each = training.edge_words(edge), (held[shown], judged[shown])
            told = Told(dataset, shown, *each, promised, types_facts, words, box_facts)
            write_record(draft, bundle, told, config)
    return {
        "digest": bundle.digest,
        "figures": found,
        "types": types_facts,
        "boxes": box_facts,
        "shown": shown,
        "thresholds": training.promise_record(promised, floats),
        "edge": _edge_facts(edge),
        "audit": (draft / AUDIT).is_file(),
    }


def _types(
    detector: Detector, train: Sequence[Sample], dataset: Dataset, config: TrainingConfig
) -> FoundTypes | None:
    from tasks.defects import training

    nobody = dataset.frame.filter(pl.col("label").is_null())["name"].to_list()
    some = nobody[:: max(1, len(nobody) // MOST_UNLABELLED)][:MOST_UNLABELLED]
    return training.types_of(detector, train, grouped(dataset, some), config.types)


def _named(
    types: FoundTypes,
    held: Mapping[str, Sequence[Sample]],
    judged: Mapping[str, Sequence[Judgement]],
    promised: Promised,
    train: Sequence[Sample],
) -> tuple[dict[str, list[Judgement]], dict[str, Any]]:
    """Return judgements with types named, and figures of all parts held out from the types."""
    from tasks.defects import training

    def by(types: FoundTypes) -> dict[str, list[Judgement]]:
        at = promised.thresholds
        return {role: training.named(types, held[role], judged[role], at) for role in held}

    said = by(types)
    samples = [sample for role in held for sample in held[role]]
    names, by_edge = ([one.kind for role in held for one in each[role]] for each in (said, judged))
    facts = type_figures(samples, names, by_edge, types, train)
    return (said if facts["decides"] else by(replace(types, decides=False))), facts


def _of_role(dataset: Dataset, roles: pl.DataFrame, role: str) -> list[Sample]:
    return grouped(dataset, roles.filter(pl.col("split") == role)["name"].to_list())


def shown_role(dataset: Dataset, roles: pl.DataFrame) -> str:
    """Return the role whose parts figures are told of: the test, if it has both labels."""
    both = roles.join(dataset.frame, on="name").filter(pl.col("split") == "test")
    return "test" if set(both["label"]) >= {"ok", "ng"} else "calibration"


def grouped(dataset: Dataset, names: Sequence[str]) -> list[Sample]:
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
            "like": "; ".join(judgement.like),
        }
        for role in held
        for sample, judgement in zip(held[role], judged[role], strict=True)
    ]
    return pl.DataFrame(rows)


def _edge_facts(edge: EdgeFile) -> dict[str, Any]:
    return {"bytes": len(edge.model), "record": json.loads(edge.record.to_json())["facts"]}


def _card(
    origin: Origin,
    promised: Promised,
    edge: EdgeFile,
    found: Mapping[str, Any],
    types: Mapping[str, Any],
    boxes: Mapping[str, Any],
) -> str:
    from tasks.defects.boxes.figures import box_words
    from tasks.defects.promise.words import assumptions, sentences
    from tasks.defects.training import edge_words

    lines = [f"# Inspection model of {origin.line}", "", "## Promise", *sentences(promised), ""]
    lines += ["It holds only while:", *(f"- {one}" for one in assumptions(promised)), ""]
    lines += [edge_words(edge), ""]
    lines += ["## Figures on held-out parts"]
    for role, each in found.items():
        area = f"AUROC {each['auroc']:.3f}" if "auroc" in each else "one class only"
        lines.append(
            f"- {role}: {each['ok_parts']} good, {each['ng_parts']} defective parts, {area}"
        )
    if types:
        lines.append(f"- types: {types['right']} of {types['parts']} parts named right")
    if boxes:
        lines.append(f"- {box_words(boxes)}")
    lines += ["", f"Code: {origin.git_commit}. What each image was used for: images.csv."]
    return "\n".join(lines) + "\n"
