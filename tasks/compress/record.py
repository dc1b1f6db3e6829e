"""A plan and its outcome as plain data, for files, pages and MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kernels.compression.sensitivity import LayerSensitivity
from kernels.plain_data import finite
from tasks.compress.footprint import Footprint
from tasks.compress.planner import Plan
from tasks.compress.trials import Outcome, Trial

Record = dict[str, Any]


def plan_record(plan: Plan) -> Record:
    """Return a plan as JSON data."""
    return {
        "subject": plan.subject,
        "family": plan.family,
        "device": asdict(plan.device),
        "budget": asdict(plan.budget),
        "budget_words": plan.budget.words(),
        "whole": asdict(plan.whole),
        "sketches": [
            {"name": one.recipe.name, **_against(one.footprint, plan.whole)}
            | {"keeps": not one.over, "over": {n: list(both) for n, both in one.over.items()}}
            for one in plan.sketches
        ],
        "chosen": [
            {"name": one.name, "methods": list(one.methods), **asdict(one)} for one in plan.chosen
        ],
        "ruled_out": dict(plan.ruled_out),
    }


def outcome_record(outcome: Outcome, layers: Sequence[LayerSensitivity]) -> Record:
    """Return an outcome as JSON data.

    Args:
        outcome: Of a plan.
        layers: Of what was taken.
    """
    return {
        "whole": asdict(outcome.whole),
        "taken": outcome.taken.recipe.name,
        "trials": [_trial(one, outcome) for one in outcome.trials],
        "made": {one.recipe.name: finite(one.made.facts) for one in outcome.trials},
        "layers": [finite(one.as_dict()) for one in layers],
    }


def figures_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of the file that was taken, as metrics of a run."""
    taken = next(one for one in record["trials"] if one["taken"])
    names = ["mb", "ms", "cpu_ms", "memory_mb", "smaller", "faster", "faster_cpu", "loss"]
    names += ["loss_low", "loss_high", "flips", "beyond", "items"]
    return {name: float(taken[name]) for name in names}


def _trial(trial: Trial, outcome: Outcome) -> Record:
    lost = trial.lost
    return {
        "name": trial.recipe.name,
        "methods": list(trial.recipe.methods),
        **_against(trial.footprint, outcome.whole),
        "figure": lost.figure,
        "before": lost.before,
        "after": lost.after,
        "loss": lost.loss,
        "loss_low": lost.low,
        "loss_high": lost.high,
        "items": lost.items,
        "flips": lost.flips,
        "beyond": lost.beyond,
        "front": trial.recipe.name in outcome.front,
        "taken": trial is outcome.taken,
        "seconds": trial.seconds,
    }


def _against(found: Footprint, whole: Footprint) -> Record:
    return asdict(found) | {
        "smaller": whole.mb / found.mb,
        "faster": whole.ms / found.ms,
        "faster_cpu": whole.cpu_ms / found.cpu_ms,
    }
