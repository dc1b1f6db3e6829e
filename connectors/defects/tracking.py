"""What a training leaves on its run's page in MLflow: curves, figures, pictures, thresholds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from connectors.defects.record import AUDIT, FIGURES, PICTURES
from connectors.defects.training import BUNDLE, JUDGED, LOSSES, QUARANTINE, ROLES
from connectors.tracking import TrackedRun, make_metrics

_UNNAMED = re.compile(r"[^A-Za-z0-9_.-]")
"""What a metric's name cannot hold everywhere; types are named by people."""
OF_BUNDLE = ("MODEL_CARD.md", "thresholds.json", "metrics.json", "parity.json", "types.json")


def log_training(run: TrackedRun, fitted: Mapping[str, Any], finished: Mapping[str, Any]) -> None:
    """Log what both stages of a training made.

    Args:
        run: The run.
        fitted: Record of the fit, with its ``folder``.
        finished: Record of the rest, likewise.
    """
    first, second = Path(fitted["folder"]), Path(finished["folder"])
    losses = pl.read_csv(first / LOSSES)
    run.send_metrics(
        [m for step, loss in losses.iter_rows() for m in make_metrics({"loss": loss}, step)],
        synchronous=True,
    )
    run.log_metrics(run_metrics(finished))
    run.log_params({"thresholds": _threshold_params(finished["thresholds"])})
    files = [second / JUDGED, first / ROLES, first / QUARANTINE, first / LOSSES, second / AUDIT]
    files += [second / BUNDLE / name for name in OF_BUNDLE]
    for path in files:
        if path.is_file():
            run.log_file(path)
    for folder in (FIGURES, PICTURES):
        for path in sorted((second / folder).glob("*")):
            run.log_file(path, folder)


def run_metrics(finished: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a training.

    Figures are named ``test.auroc``, error rates ``test.escape.scratch`` with their limits
    ``…_low`` and ``…_high``, types ``types.right.all`` (a share of parts), boxes
    ``boxes.map50`` and ``boxes.ap.scratch`` on ``boxes.images``, thresholds ``ok_below``
    and ``ng_from``, a promise ``promise.escape`` and the least share that its parts can promise
    ``…_least``.
    """
    found: dict[str, float] = {}
    for role, each in finished["figures"].items():
        for name, value in each.items():
            if isinstance(value, int | float):
                found[f"{role}.{name}"] = float(value)
        for one in each.get("escapes", []):
            found |= _rate(f"{role}.escape.{one['name']}", one, one["wrong"])
        if "false_rejects" in each:
            one = each["false_rejects"]
            found |= _rate(f"{role}.false_reject", one, one["wrong"])
    if types := finished["types"]:
        for one in [types, *types["by_type"]]:
            found |= _rate(f"types.right.{one['name']}", one, one["right"])
        found["types.unknown"] = types["unknown"]
        for name, right in types["floors"].items():
            found[f"types.floor.{name}"] = right / max(types["parts"], 1)
    if boxes := finished["boxes"]:
        found |= {f"boxes.{n}": float(v) for n, v in boxes.items() if isinstance(v, int | float)}
        found |= {f"boxes.ap.{one['name']}": one["ap"] for one in boxes.get("by_type", [])}
    limits = finished["thresholds"]
    both = {name: float(limits[name]) for name in ("ok_below", "ng_from")}
    found |= {name: limit for name, limit in both.items() if math.isfinite(limit)}
    for one in limits["kept"]:
        side = ".".join(part for part in (one["side"], one["kind"]) if part)
        found |= {f"promise.{side}": one["alpha"], f"promise.{side}_least": one["bound"]}
    return {_UNNAMED.sub("_", name): value for name, value in found.items()}


def _threshold_params(limits: Mapping[str, Any]) -> dict[str, Any]:
    promise = {name: value for name, value in limits["promise"].items() if value is not None}
    return {
        "ok_below": limits["ok_below"],
        "ng_from": limits["ng_from"],
        "promise": promise,
        "in_words": " ".join(limits["in_words"]),
    }


def _rate(name: str, one: Mapping[str, Any], count: int) -> dict[str, float]:
    if not one["parts"]:
        return {}
    return {
        name: count / one["parts"],
        f"{name}_low": float(one["low"]),
        f"{name}_high": float(one["high"]),
    }
