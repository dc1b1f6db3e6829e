"""A golden sample from a folder: fitted, held against the other images, sealed as a folder.

Images of one print look alike by nature: each is a part of its own unless parts are named.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from connectors.defects.dataset import Dataset
from connectors.defects.options import DatasetError, DatasetOptions
from connectors.defects.training import opened
from connectors.tracking import git_commit
from kernels.bundle.folder import (
    bundle_digest,
    read_json,
    read_manifest,
    read_verified,
    write_sealed,
)
from tasks.defects.bundle.manifest import Manifest
from tasks.defects.judgement import Judgement
from tasks.defects.promise.thresholds import Promise, Promised
from tasks.defects.samples import Sample, parts_of
from tasks.defects.template.config import AlignError, TemplateConfig
from tasks.defects.template.detector import ARRAYS, FACTS, TemplateDetector
from tasks.defects.template.fit import fit_template

logger = logging.getLogger(__name__)

KIND = "golden"
THRESHOLDS, METRICS = "thresholds.json", "metrics.json"
_TOLD_EVERY = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenConfig:
    """How a golden sample is made.

    Attributes:
        goldens: Names of good images of the folder; empty: `count` of them, spread evenly.
        count: So many, where none is named; with five the tolerance of each pixel becomes its own.
        promise: What is promised; None: what the other images can carry.
        template: How images are laid on it and compared.
    """

    goldens: tuple[str, ...] = ()
    count: int = 5
    promise: Promise | None = None
    template: TemplateConfig = field(default_factory=TemplateConfig)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.count < 1:
            raise ValueError(f"count is {self.count}; give at least 1 golden image")


@dataclass(frozen=True, slots=True)
class GoldenRecord:
    """What came of it.

    Attributes:
        goldens: Names of the golden images.
        judged: Other images that were judged, by label.
        refused: Labelled images that cannot be laid on it; on the line such go to a person.
        promised: Thresholds and promise.
        figures: Of the judged images, which set the thresholds.
    """

    goldens: tuple[str, ...]
    judged: Mapping[str, int]
    refused: tuple[str, ...]
    promised: Promised
    figures: Mapping[str, Any]


def make_golden(
    folder: Path,
    out: Path,
    config: GoldenConfig | None = None,
    options: DatasetOptions | None = None,
) -> GoldenRecord:
    """Make a golden sample of a folder's good images, with thresholds by all its other images.

    Args:
        folder: Images of one product, with labels in any known layout.
        out: Folder of the golden sample; replaced.
        config: Settings.
        options: What the person says of the folder.

    Raises:
        DatasetError: The folder has no such golden image, or none besides.
        DetectError: No golden sample can be made of the images; says why.
        TooFewPartsError: A promise that the other images cannot carry.
    """
    from tasks.defects.training import figures, promise_record, settle

    config = config or GoldenConfig()
    options = replace(options or DatasetOptions(), near_copies="kept")
    with opened(folder, options) as dataset:
        names = _goldens(dataset, config)
        detector = fit_template([s.pixels for s in dataset.subset(names)], config.template)
        samples, judged, refused = _judged(detector, _others(dataset, names))
        promised = settle(samples, [one.score for one in judged], config.promise)
        facts = dict(detector.provenance) | {"bits": dataset.bits, "golden_images": list(names)}
        detector = replace(detector, provenance=facts, thresholds=promised.thresholds)
        found = figures(samples, judged, promised) | {"refused": list(refused)}
        manifest = Manifest(
            dataset=folder.resolve().name,
            data_digest=dataset.digest,
            git_commit=git_commit(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            kind=KIND,
        )
    files = detector.to_bytes() | {
        THRESHOLDS: _text(promise_record(promised)),
        METRICS: _text(found),
    }

    def write(draft: Path) -> Manifest:
        for name, content in files.items():
            (draft / name).write_bytes(content)
        return manifest

    write_sealed(out, write, open_golden)
    counts = {label: sum(s.label == label for s in samples) for label in ("ok", "ng")}
    return GoldenRecord(names, counts, refused, promised, found)


def open_golden(folder: Path) -> tuple[TemplateDetector, str]:
    """Return a golden sample and the digest of its folder.

    Raises:
        BundleError: It is no such folder, or not as it was written.
        DetectError: Its files are those of another version.
    """
    manifest = read_manifest(folder, partial(Manifest.from_json, kind=KIND))
    files = {name: read_verified(folder, manifest, name) for name in (ARRAYS, FACTS)}
    read_json(folder, manifest, THRESHOLDS)
    return TemplateDetector.from_bytes(files), bundle_digest(folder)


def is_golden(folder: Path) -> bool:
    """Tell whether a folder looks like a golden sample."""
    return (folder / FACTS).is_file()


def _goldens(dataset: Dataset, config: GoldenConfig) -> tuple[str, ...]:
    good = dataset.frame.filter(pl.col("label") == "ok")["name"].sort().to_list()
    if not good:
        raise DatasetError("no image is labelled ok; a golden sample is made of good images")
    if unknown := sorted(set(config.goldens) - set(good)):
        raise DatasetError(
            f"{unknown[0]} is no good image of the folder; name one as {good[0]}, by its path there"
        )
    if config.goldens:
        return tuple(dict.fromkeys(config.goldens))
    # Half of the good images at most: the others say what a good image scores.
    count = max(1, min(config.count, len(good) // 2))
    return tuple(good[place * len(good) // count] for place in range(count))


def _others(dataset: Dataset, goldens: Sequence[str]) -> list[Sample]:
    """Return the labelled samples of other parts than the golden images show."""
    known = dataset.frame.filter(pl.col("label").is_not_null())["name"].to_list()
    samples = dataset.subset(known)
    parts = parts_of(samples)
    taken = {part for part, sample in zip(parts, samples, strict=True) if sample.name in goldens}
    return [s for s, part in zip(samples, parts, strict=True) if part not in taken]


def _judged(
    detector: TemplateDetector, samples: Sequence[Sample]
) -> tuple[list[Sample], list[Judgement], tuple[str, ...]]:
    """Return samples that can be laid on the golden sample, their judgements, and other names."""
    kept: list[Sample] = []
    judged: list[Judgement] = []
    refused: list[str] = []
    for place, sample in enumerate(samples, 1):
        try:
            judged += detector.judge([sample.pixels])
        except AlignError as error:
            logger.warning("%s: %s", sample.name, error)
            refused.append(sample.name)
        else:
            kept.append(sample)
        if place % _TOLD_EVERY == 0 or place == len(samples):
            logger.info("%d of %d images compared", place, len(samples))
    return kept, judged, tuple(refused)


def _text(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode()
