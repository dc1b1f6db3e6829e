"""A model planned and compressed, with everything written that a person or a registry needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.compress.budget import Budget
from tasks.compress.device import CompressError, device_named
from tasks.compress.planner import make_plan
from tasks.compress.record import outcome_record, plan_record
from tasks.compress.subject import Say, Subject
from tasks.compress.trials import carry_out

PLAN, OUTCOME, PAGE = "plan.json", "outcome.json", "compress.html"
PICTURE, LAYERS = "pareto.svg", "sensitivity.svg"
MODEL, BUNDLE = "model.onnx", "bundle"
Record = dict[str, Any]


def budget_of(values: Mapping[str, Any]) -> Budget:
    """Return the budget of a JSON record.

    Raises:
        CompressError: An unknown limit, or an impossible one.
    """
    known = asdict(Budget())
    if unknown := sorted(set(values) - set(known)):
        raise CompressError(f"budget {unknown[0]!r} is unknown; there are {', '.join(known)}")
    return Budget(**values)


def subject_of(model: Path, data: Path, options: Mapping[str, Any] | None = None) -> Subject:
    """Return a model with its data.

    Args:
        model: Folder of an inspection bundle, or an ONNX file.
        data: Images that the bundle was made of; for a file, ``.npz`` of examples.
        options: How a folder of images is read.

    Raises:
        CompressError: Neither of both, or data that do not fit.
    """
    if model.is_dir():
        from connectors.compress.inspection import read_subject
        from connectors.defects.steps import options_of

        return read_subject(model, data, options_of(dict(options or {})))
    if model.suffix == ".onnx":
        from tasks.compress.onnx_subject import read_onnx_subject

        return read_onnx_subject(model, data)
    raise CompressError(
        f"{model}: give the folder of an inspection bundle, registry:LINE, or a file *.onnx"
    )


def compress_job(
    draft: Path,
    *,
    model: Path,
    data: Path,
    device: str,
    budget: Mapping[str, Any],
    minutes: float,
    options: Mapping[str, Any] | None,
    say: Say,
) -> Record:
    """Plan, carry out, and write file, bundle, page and records.

    Args:
        draft: Folder that everything is written into.
        model: As `subject_of`.
        data: As `subject_of`.
        device: Name of one.
        budget: Fields of `Budget`.
        minutes: After which no further recipe is begun.
        options: How a folder of images is read.
        say: Told what begins.

    Returns:
        JSON record: plan and outcome.
    """
    asked, target = budget_of(budget), device_named(device)
    subject = subject_of(model, data, options)
    plan = make_plan(subject, target, asked, say=say)
    outcome = carry_out(plan, subject, minutes=minutes, say=say)
    say("measuring what each layer loses alone")
    layers = subject.layers(outcome.taken.recipe)
    planned, done = plan_record(plan), outcome_record(outcome, layers)
    taken = next(one for one in done["trials"] if one["taken"])
    from connectors.compress.inspection import InspectionSubject
    from connectors.compress.publish import write_compressed
    from tasks.cleaning.report.page import style_sheet
    from tasks.compress.page import OWN_STYLE, PACKAGE, compress_page
    from tasks.compress.pareto_plot import pareto_plot
    from tasks.compress.sensitivity_plot import sensitivity_plot

    (draft / MODEL).write_bytes(outcome.taken.made.model)
    for name, content in outcome.taken.made.files.items():
        (draft / f"model.{name}").write_bytes(content)
    for name, record in ((PLAN, planned), (OUTCOME, done)):
        (draft / name).write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")
    (draft / PAGE).write_text(compress_page(planned, done, layers), encoding="utf-8")
    style = style_sheet(PACKAGE, OWN_STYLE)
    front = pareto_plot(done["whole"], done["trials"])
    for name, drawing in ((PICTURE, front), (LAYERS, sensitivity_plot(layers))):
        (draft / name).write_text(drawing.document(style), encoding="utf-8")
    if isinstance(subject, InspectionSubject):
        write_compressed(subject, outcome, taken, draft / BUNDLE)
    return {"plan": planned, "outcome": done, "bundle": (draft / BUNDLE).is_dir()}
