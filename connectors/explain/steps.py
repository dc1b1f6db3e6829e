"""Steps of explanation flows as Prefect tasks: cached by what they depend on."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prefect import task

from tasks.explain.catalogue.model import MOST_REASONS
from tasks.steps import HOUR, Record, at, cached_step, worth_retrying
from tasks.workspace import fill

if TYPE_CHECKING:
    from tasks.explain.subject import Beneath

PAGE = "report.html"


@task(name="describe own model", retries=1, timeout_seconds=600, retry_condition_fn=worth_retrying)
def describe_own(own: Record) -> Record:
    """Return a user's model and tables as a source, with the digests that keys are made of."""
    from connectors.explain.own_model import OwnModel
    from connectors.files import digest
    from connectors.tracking import git_commit

    brought = OwnModel.from_record(own)
    files = [brought.model, brought.data, brought.background]
    files += [brought.groups] if brought.groups is not None else []
    return {
        "kind": "own",
        "own": brought.to_record(),
        "digests": [digest(path) for path in files],
        "dataset": brought.model.stem,
        "commit": git_commit(),
    }


@cached_step("explain rows", retries=0)
def explain_rows(
    place: str, *, source: Record, days: float, rows: int, redraws: int, seed: int
) -> Record:
    """Explain rows of a model, write the record and the model's page."""
    from connectors.explain.set_files import write_set
    from connectors.explain.subjects import open_rows
    from tasks.explain_report.model import ModelConfig, collect_model
    from tasks.explain_report.render import model_page

    def work(draft: Path) -> Record:
        subject, places = open_rows(source, days=days, limit=rows, seed=seed)
        page = collect_model(subject, places, ModelConfig(redraws=redraws))
        digest = write_set(draft, page.found)
        (draft / PAGE).write_text(model_page(page), encoding="utf-8")
        strength = np.abs(page.found.values).mean(axis=0)
        order = np.argsort(-strength, kind="stable")[:12]
        labels = page.found.contract.labels
        return {
            "digest": digest,
            "rows": len(places),
            "method": page.found.contract.method,
            "metrics": page.metrics,
            "strongest": [[labels[p], float(strength[p])] for p in order.tolist()],
            "alarms": list(page.drifted.alarms) if page.drifted else [],
            "undrifted": page.undrifted,
        }

    return fill(at(place), work)


@cached_step("explain cases", retries=0)
def explain_cases(
    place: str, *, source: Record, keys: list[str], worst: int, seed: int
) -> Record:  # fmt: skip
    """Explain single rows: a record of all of them and a page of each."""
    from connectors.explain.set_files import write_set
    from connectors.explain.subjects import open_cases
    from tasks.explain_report.case import CaseConfig, collect_case
    from tasks.explain_report.render import case_page

    def work(draft: Path) -> Record:
        subject, places = open_cases(source, keys, worst=worst)
        fraud = source["kind"] == "fraud"
        # Any function takes up to a second a row; trees take microseconds.
        config = CaseConfig(compared=2_000 if fraud else 100, seed=seed)
        words = {"bad": "fraud", "good": "genuine"} if fraud else {}
        cases = []
        for p in places.tolist():
            page = collect_case(subject, p, config)
            name = case_name(page.found.keys[0])
            (draft / name).write_text(case_page(page, **words), encoding="utf-8")
            cases.append(
                {
                    "key": page.found.keys[0],
                    "file": name,
                    "score": float(page.found.decided[0]),
                    "decision": page.found.decision(0),
                    "reasons": [r.to_dict() for r in page.reasons],
                    "beneath": _beneath(page.beneath),
                    "change": list(page.change.players) if page.change else [],
                }
            )
        found = subject.explain(places).found
        return {
            "digest": write_set(draft, found),
            "method": found.contract.method,
            "cases": cases,
            "metrics": {"shap/additivity_max": found.contract.gap},
        }

    return fill(at(place), work)


@cached_step("mine rules", retries=0)
def mine_rules(
    place: str, *, source: Record, days: float, rows: int, config: Record, table: str,
    version: str, seed: int,
) -> Record:  # fmt: skip
    """Mine rules from a model's decisions, measure them on newer rows, write them."""
    from connectors.explain.rule_files import FILES, mine_subject, write_rules
    from connectors.explain.subjects import open_rows
    from tasks.explain.rules.mine import MineConfig

    def work(draft: Path) -> Record:
        subject, places = open_rows(source, days=days, limit=rows, seed=seed)
        mined = mine_subject(subject, places, MineConfig(**config), version=version)
        write_rules(mined, draft, table=table)
        figures = asdict(mined.figures.fidelity)
        return {
            "files": list(FILES),
            "model": str(subject.model),
            "version": mined.rules.version,
            "mined": mined.mined,
            "measured": mined.measured,
            "fidelity": figures,
            "metrics": {k: v for k, v in mined.metrics.items() if np.isfinite(v)},
        }

    return fill(at(place), work)


@task(name="try rules", retries=1, timeout_seconds=HOUR, retry_condition_fn=worth_retrying)
def try_rules(
    edition: str, *, source: Record, tried_by: str, before: str, limits: Record, newest: float,
    days: float, rows: int, seed: int,
) -> Record:  # fmt: skip
    """Run an edition over a model's rows and write the record of the trial beside it."""
    from connectors.explain.rule_trial import trial_path, try_over
    from connectors.explain.subjects import open_rows
    from tasks.explain.rules.approval import Limits

    subject, places = open_rows(source, days=days, limit=rows, seed=seed)
    path = Path(edition)
    trial = try_over(
        path, subject, places, tried_by=tried_by, before=Path(before) if before else None,
        limits=Limits(**limits), newest=newest,
    )  # fmt: skip
    return {**asdict(trial), "failures": list(trial.failures), "file": str(trial_path(path))}


@task(name="log explanations", retries=1, timeout_seconds=HOUR, retry_condition_fn=worth_retrying)
def log_explanations(
    *, dataset: str, name: str, folder: str, digest: str, metrics: dict[str, float],
    pages: list[str],
) -> Record:  # fmt: skip
    """Log a record with its pages and plots to MLflow."""
    from connectors.explain import tracking

    made = tracking.log_explanations(
        dataset, name, Path(folder), digest, metrics=metrics,
        pages=[Path(folder) / page for page in pages],
    )  # fmt: skip
    return asdict(made)


@task(name="log rules", retries=1, timeout_seconds=HOUR, retry_condition_fn=worth_retrying)
def log_rules(
    *, dataset: str, folder: str, files: list[str], metrics: dict[str, float], config: Record
) -> Record:
    """Log a rule set with its figures to MLflow."""
    from connectors.tracking import RunRequest, tracked_run

    request = RunRequest(dataset=dataset, name="explain-rules", params=config)
    with tracked_run(request) as run:
        run.log_metrics(metrics)
        for file in files:
            run.log_file(Path(folder) / file, "rules")
        return {"run_id": run.run_id, "page": run.page}


@task(name="copy files", retries=1, timeout_seconds=600, retry_condition_fn=worth_retrying)
def copy_files(folder: str, files: list[str], out: str) -> list[str]:
    """Copy finished files to where the user wants them, each whole or not at all."""
    from connectors.files import atomic_path

    copied = []
    for file in files:
        target = Path(out) / file
        with atomic_path(target) as temporary:
            shutil.copyfile(Path(folder) / file, temporary)
        copied.append(str(target))
    return copied


def _beneath(one: Beneath | None) -> Record:
    """Return the player that stands for a model beneath, and what raised it; empty without one."""
    return {"player": one.player, "raising": one.raising[:MOST_REASONS]} if one else {}


def case_name(key: str) -> str:
    """Return the file name of a case's page: its key where that is a plain word, else a digest.

    >>> case_name("4711"), case_name("a/b")
    ('case-4711.html', 'case-c14cddc033f6.html')
    """
    plain = key.isascii() and key.replace("-", "").replace("_", "").isalnum() and len(key) <= 64
    return f"case-{key if plain else hashlib.sha256(key.encode()).hexdigest()[:12]}.html"
