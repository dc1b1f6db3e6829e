"""The compressed inspection model as a bundle of its own: the edge file is new, the rest stays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connectors.compress.inspection import InspectionSubject
from kernels.bundle.folder import read_json
from tasks.compress.trials import Outcome
from tasks.defects import training
from tasks.defects.bundle.bundle import (
    DETECTOR,
    DETECTOR_FACTS,
    TYPES,
    TYPES_FACTS,
    DefectBundle,
    write_bundle,
)
from tasks.defects.bundle.parts import BundleParts, example_of
from tasks.defects.edge.session import EdgeSession


def write_compressed(
    subject: InspectionSubject, outcome: Outcome, told: Mapping[str, Any], folder: Path
) -> DefectBundle:
    """Write the bundle of the file that was taken.

    The central machine keeps the detector as it was trained; thresholds, figures and the parity
    record are those of the compressed file.

    Args:
        subject: The model, with its images.
        outcome: What was taken.
        told: Record of the taken trial, which goes into the figures.
        folder: Where the bundle is written.

    Raises:
        BundleError: When the file cannot be run.
    """
    old = subject.bundle
    edge, promised, floats = subject.shipped(outcome.taken.recipe)
    session = EdgeSession(edge.model)
    held = {role: subject.samples[role] for role in ("calibration", "test")}
    figures = {
        role: training.figures(samples, training.judge(session, samples), promised)
        for role, samples in held.items()
    }
    kept = {name: old.metrics[name] for name in ("boxes",) if name in old.metrics}
    has_types = TYPES in old.manifest.files
    parts = BundleParts(
        dataset=old.manifest.dataset,
        data_digest=old.manifest.data_digest,
        git_commit=old.manifest.git_commit,
        edge=edge.model,
        parity=json.loads(edge.record.to_json()),
        detector=old.read(DETECTOR),
        detector_facts=json.loads(old.read(DETECTOR_FACTS)),
        types=old.read(TYPES) if has_types else b"",
        types_facts=read_json(old.folder, old.manifest, TYPES_FACTS) if has_types else {},
        boxes={name: old.read(name) for name in old.box_files},
        thresholds=training.promise_record(promised, floats),
        metrics={**figures, **kept, "compression": dict(told)},
        images=old.images,
        example=example_of([sample.pixels for sample in held["test"]]),
        card=_card(old, told),
    )
    return write_bundle(folder, parts)


def _card(old: DefectBundle, told: Mapping[str, Any]) -> str:
    card = old.read("MODEL_CARD.md").decode("utf-8").rstrip()
    methods = ", then ".join(told["methods"])
    figures = (
        f"Edge file: {methods}. {told['smaller']:.2f} times smaller and {told['faster']:.2f} times "
        f"faster than the float file; {told['figure']} {told['after']:.4f} of {told['before']:.4f} "
        f"[{told['loss_low']:+.4f}, {told['loss_high']:+.4f}] on {told['items']} test images."
    )
    whose = (
        "Promise and figures above are those of the model that was compressed; this one's are in "
        "thresholds.json and metrics.json."
    )
    lines = ["", "## Compression", figures, whose]
    return "\n".join([card, *lines]) + "\n"
